"""`--scale tiny`: what becomes of a recipe's values, the rows that stand in, and rehearsals that really run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from runner.check import load_checked, load_variants
from runner.cli import cli
from runner.console import plan_screen
from runner.data import standins
from runner.errors import BadRecipe
from runner.preparation import Prepared
from runner.recipe import Loaded
from runner.recipe.few_steps import CHECKPOINTS, STEPS
from runner.recipe.small_models import cut
from tests.screens import PLAN, lines
from tests.tiny_project import leave_out_dpo, recipe, write_project

RECIPES = Path(__file__).parents[1] / "recipes"
CONFIG = {"model_type": "qwen2", "hidden_size": 1024, "num_hidden_layers": 48, "num_attention_heads": 16,
          "num_key_value_heads": 4, "intermediate_size": 4864, "vocab_size": 151936}  # fmt: skip
STAGE: dict[str, Any] = {"kind": "sft", "data": "rows"}
WORDS = {"model": {"config": CONFIG, "tokenizer": "owner/name"}, "stages": {"tune": STAGE}}


def tiny(root: Path, *sets: str, **blocks: Any) -> Loaded:
    """A recipe of these blocks, cut down."""
    whole = {"recipe": "big", "data": {"rows": {"path": "rows.jsonl", "format": "alpaca"}}, **WORDS, **blocks}
    (root / "pyproject.toml").touch()
    (root / "big.yaml").write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return load_checked(root / "big.yaml", sets, scale="tiny")


def stand_ins(loaded: Loaded, name: str = "rows") -> list[dict[str, Any]]:
    """The rows that were written for a data set."""
    path = loaded.spec.data[name].path
    assert path is not None
    text = (loaded.root / path).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def notes(loaded: Loaded) -> tuple[str, ...]:
    """What is said of it."""
    assert loaded.scaled is not None
    return loaded.scaled.notes


# --- the model ---


def test_a_config_keeps_its_type_and_proportions_with_few_layers_of_a_small_width() -> None:
    assert cut({**CONFIG, "tie_word_embeddings": True, "layer_types": ["full_attention"] * 48}) == {
        "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 1, "intermediate_size": 304, "tie_word_embeddings": True,
    }  # fmt: skip


def test_a_config_that_is_small_stays_as_it_is() -> None:
    small = {"model_type": "qwen3", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64}  # fmt: skip
    assert cut(small) == small


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 192}),
        ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}),
    ],
)
def test_sizes_have_the_names_that_the_type_has_for_them(kind: str, sizes: dict[str, int]) -> None:
    assert cut({"model_type": kind}).items() >= sizes.items()


def test_a_checkpoint_becomes_a_new_model_of_its_type(tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
              "num_key_value_heads": 8, "intermediate_size": 14336, "torch_dtype": "bfloat16"}  # fmt: skip
    (tmp_path / "llama" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    lora = {"r": 4, "targets": ["q_proj"], "quantize": "4bit"}
    loaded = tiny(tmp_path, model={"path": "llama", "dtype": "float16"}, stages={"tune": {**STAGE, "lora": lora}})
    model, stage = loaded.spec.model, loaded.spec.stages["tune"]
    assert model.config is not None
    assert model.path is None
    assert model.dtype == "auto"
    assert (model.config["model_type"], model.config["num_key_value_heads"]) == ("llama", 1)
    assert stage.lora is not None
    assert stage.lora.targets == ("q_proj",)
    assert stage.lora.quantize is None
    assert notes(loaded)[0] == "model: a new llama of 2 layers of width 64 instead of llama, in its proportions"
    assert "left out: lora.quantize" in notes(loaded)


def test_a_pattern_of_parameters_names_layers_that_there_are(tmp_path: Path) -> None:
    frozen = {**STAGE, "freeze": ["model.embed_tokens.*", "model.layers.0.*", "model.layers.40.mlp.*"]}
    stage = tiny(tmp_path, stages={"tune": frozen}).spec.stages["tune"]
    assert stage.freeze == ("model.embed_tokens.*", "model.layers.0.*", "model.layers.1.mlp.*")


def test_attention_that_runs_everywhere_stays_and_flash_attention_is_left_to_the_machine(tmp_path: Path) -> None:
    for wanted, taken in (("eager", "eager"), ("flash_attention_2", "auto")):
        model = {**WORDS["model"], "attn_implementation": wanted}
        assert tiny(tmp_path, model=model).spec.model.attn_implementation == taken


def test_of_a_hub_id_that_is_not_here_the_name_tells_the_type(tmp_path: Path) -> None:
    loaded = tiny(tmp_path, model={"path": "bigscience/bloomz-3b"})
    assert loaded.spec.model.config is not None
    assert loaded.spec.model.config["model_type"] == "bloom"


def test_where_nothing_tells_the_type_a_default_is_taken_and_said(tmp_path: Path) -> None:
    lora = {"targets": ["query_key_value"]}
    loaded = tiny(tmp_path, model={"path": "owner/tiger"}, stages={"tune": {**STAGE, "lora": lora}})
    assert notes(loaded)[0] == (
        "model: a new qwen3 of 2 layers of width 64 instead of owner/tiger, which is not here and whose name tells no "
        "type: qwen3 is taken"
    )
    assert loaded.spec.stages["tune"].lora is not None
    assert loaded.spec.stages["tune"].lora.targets == ("all-linear",)


# --- stages ---


def test_as_many_checkpoints_in_the_same_order_and_references_follow(tmp_path: Path) -> None:
    first = {**STAGE, "max_steps": 12640, "save_steps": [1264, 2529, 6323], "warmup_steps": 1264,
             "global_batch_size": 1152, "micro_batch_size": 12, "max_length": 4096}  # fmt: skip
    stages = {"tune": first, "more": {**STAGE, "from": "tune@2529", "save_strategy": "epoch", "num_train_epochs": 4},
              "last": {**STAGE, "from": "more@epoch=2"}, "end": {**STAGE, "from": "tune@12640"}}  # fmt: skip
    loaded = tiny(tmp_path, stages=stages, result={"checkpoint": "end@last", "baseline": "tune@6323"})
    tune, more = loaded.spec.stages["tune"], loaded.spec.stages["more"]
    assert (tune.max_steps, tune.save_steps, tune.warmup_steps) == (STEPS, (2, 5, 12), 0.1)
    assert (tune.global_batch_size, tune.micro_batch_size, tune.max_length) == (8, 4, 256)
    assert (more.num_train_epochs, more.max_steps, more.save_strategy) == (4, None, "epoch")
    assert [stage.from_ for stage in loaded.spec.stages.values()] == [None, "tune@5", "more@epoch=2", "tune@last"]
    assert loaded.spec.result is not None
    assert loaded.spec.result.baseline == "tune@12"
    assert loaded.spec.recipe == "big-tiny"


def test_a_stage_that_is_short_stays_as_it_is(tmp_path: Path) -> None:
    short = {**STAGE, "max_steps": 6, "save_steps": [2, 5], "global_batch_size": 4, "max_length": 64, "warmup_steps": 3}
    stage = tiny(tmp_path, stages={"tune": short}).spec.stages["tune"]
    assert (stage.max_steps, stage.save_steps, stage.warmup_steps) == (6, (2, 5), 0.5)
    assert (stage.global_batch_size, stage.max_length) == (4, 64)


def test_a_hundred_checkpoints_become_ten(tmp_path: Path) -> None:
    loaded = tiny(tmp_path, stages={"tune": {**STAGE, "max_steps": 40000, "save_steps": 400}})
    steps = loaded.spec.stages["tune"].save_steps
    assert isinstance(steps, tuple)
    assert len(steps) == CHECKPOINTS - 1
    assert list(steps) == sorted(set(steps))
    assert any(note.endswith("10 checkpoints instead of 100") for note in notes(loaded))


def test_what_is_of_other_machines_or_ends_a_run_early_is_left_out(tmp_path: Path) -> None:
    stage = {**STAGE, "save_steps": 5, "stop_when": {"suite": "right"}, "trainer_args": {"optim": "adafactor"}}
    gate = {"min_pass_rate": 0.9, "on_fail": "stop"}
    (tmp_path / "test_it.py").write_text(
        "from runner import probe\n\n@probe(prompt='{{ prompt }}', max_new_tokens=512)\ndef test_it(reply): ...\n"
    )
    loaded = tiny(
        tmp_path, stages={"tune": stage}, report_to=["wandb", "tensorboard"],
        launch={"nodes": 4, "rendezvous": "first:29500", "deepspeed": "zero3"},
        probes={"right": {"file": "test_it.py", "cases": "rows", "gate": gate}},
    )  # fmt: skip
    suite = loaded.spec.probes["right"]
    assert suite.gate is not None
    assert suite.gate.on_fail == "continue"
    assert suite.gate.min_pass_rate == 0.9
    assert suite.decoding is not None
    assert suite.decoding.max_new_tokens == 64
    assert loaded.spec.launch.deepspeed is None
    assert loaded.spec.launch.processes == 1
    assert loaded.spec.report_to == ("tensorboard",)
    assert notes(loaded)[-2:] == (
        "replies of at most 64 tokens instead of: right 512",
        "left out: launch, on_fail, report_to wandb, stop_when, trainer_args.optim",
    )


def test_processes_of_the_command_line_stay_and_share_the_batch(tmp_path: Path) -> None:
    loaded = tiny(tmp_path, "launch.processes=3", launch={"deepspeed": "zero3"})
    assert (loaded.spec.launch.processes, loaded.spec.launch.deepspeed) == (3, None)
    assert loaded.spec.stages["tune"].global_batch_size == 6


# --- data ---


def test_files_that_are_here_are_cut_and_no_split_is_empty(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": str(number), "text": f"row {number}"}) + "\n" for number in range(5000))
    (tmp_path / "rows.jsonl").write_text(rows)
    split = {"by": "id", "train": 0.97, "few": 0.02, "one": 0.01}
    loaded = tiny(
        tmp_path, data={"rows": {"path": "*.jsonl", "split": split, "num_rows": 5000}},
        stages={"tune": {"kind": "pretrain", "data": "rows.train"}},
    )  # fmt: skip
    data = Prepared(loaded, tmp_path / "run").data
    assert [len(data.get(f"rows.{side}")) for side in ("train", "few", "one")] == [776, 16, 8]
    assert "rows: at most 800 rows of *.jsonl" in notes(loaded)


@pytest.mark.parametrize(
    ("kind", "block", "columns"),
    [
        ("sft", {"format": "alpaca"}, {"instruction", "output", "input"}),
        ("sft", {"format": "sharegpt"}, {"conversations"}),
        ("sft", {"format": "messages", "split": {"by": "topic", "rest": 1.0}}, {"messages", "topic"}),
        ("dpo", {"format": "preference"}, {"prompt", "chosen", "rejected"}),
        ("pretrain", {"format": "text"}, {"text"}),
        ("pretrain", {}, {"text"}),
        ("sft", {}, {"prompt", "completion"}),
        ("contrast", {}, {"prompt", "chosen", "rejected"}),
        ("sft", {"columns": {"prompt": "ask", "completion": "say"}}, {"ask", "say"}),
        ("sft", {"prompt": "{{ char }}?", "completion": "{{ radical }}"}, {"char", "radical"}),
        ("dpo", {"prompt": "{{ q }}", "completion": "{{ a }}", "rejected": "{{ other.b }} {{ completion }}"},
         {"q", "a", "b"}),
    ],
)  # fmt: skip
def test_rows_stand_in_with_the_columns_that_are_needed(
    tmp_path: Path, kind: str, block: dict[str, Any], columns: set[str]
) -> None:
    loaded = tiny(
        tmp_path, data={"rows": {"path": "no/such-*.jsonl.gz", "num_rows": 10**6, **block}},
        stages={"tune": {"kind": kind, "data": "rows"}},
    )  # fmt: skip
    rows = stand_ins(loaded)
    assert len(rows) == 48
    assert set(rows[0]) == columns
    prepared = Prepared(loaded, tmp_path / "run")
    assert prepared.arithmetic["tune"].total_steps == STEPS
    assert prepared.accounts[0].rows >= 48
    (note,) = [note for note in notes(loaded) if "stand-in" in note]
    assert note.startswith(
        "rows: 48 stand-in rows instead of no/such-*.jsonl.gz, which is not here (results/stand-ins/"
    )


def test_rows_that_are_written_twice_have_the_columns_that_every_template_and_probe_takes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from runner import probe\n\n@probe(prompt='{{ char }}{{ prompt }}')\n"
        "def test_it(case, reply):\n    assert case.pinyin\n"
    )
    data = {
        "rows": {"path": "owner/name", "subset": "zh", "split": {"by": "char", "train": 0.5, "rest": 0.5}},
        "asked": {"rows": "rows", "prompt": "{{ char }}", "completion": "{{ strokes }}"},
        "pairs": {"rows": "asked.train", "rejected": ["{{ other.completion }} {{ level }}"]},
    }
    loaded = tiny(
        tmp_path, data=data, stages={"tune": {"kind": "dpo", "data": "pairs"}},
        probes={"it": {"file": "test_it.py", "cases": "asked.rest"}},
    )  # fmt: skip
    assert set(stand_ins(loaded)[0]) == {"char", "strokes", "level", "pinyin"}
    assert loaded.spec.data["rows"].subset is None


def test_what_one_stage_learns_and_another_replays_has_the_columns_of_the_one_that_learns(tmp_path: Path) -> None:
    stages = {
        "base": {"kind": "pretrain", "data": "rows"},
        "tune": {"kind": "sft", "from": "base@last", "data": "asked", "replay": {"of": "base", "ratio": 0.5},
                 "num_train_epochs": 20, "save_strategy": "epoch"},
    }  # fmt: skip
    loaded = tiny(tmp_path, data={"rows": {"path": "a/b"}, "asked": {"path": "c/d"}}, stages=stages)
    assert set(stand_ins(loaded)[0]) == {"text"}
    assert set(stand_ins(loaded, "asked")[0]) == {"prompt", "completion"}
    assert any(note.endswith("10 checkpoints instead of 20") for note in notes(loaded))


def test_stand_in_rows_follow_from_the_seed_and_are_in_two_languages() -> None:
    def made(seed: int) -> list[dict[str, Any]]:
        return list(standins.rows({"q": "question", "a": "answer", "n": "number"}, 300, seed))

    rows = made(1)
    assert made(1) == rows != made(2)
    assert len({row["q"] for row in rows}) == 300
    assert [row["a"].isascii() for row in rows[:4]] == [False, True, False, True]


def test_stand_ins_say_where_they_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(Exception, match=r"stand-in rows cannot be written to .*: (Not a directory|File exists)"):
        tiny(tmp_path)


# --- the whole ---


def test_what_is_wrong_with_a_recipe_is_wrong_with_it_at_any_size(tmp_path: Path) -> None:
    wrong = {"tune": {**STAGE, "learning_rat": 1e-4, "lora": {"quantize": "3bit"}}}
    with pytest.raises(BadRecipe) as found:
        tiny(tmp_path, stages=wrong, launch={"nodes": 0})
    said = [problem.message for problem in found.value.problems]
    assert len(said) == 3
    assert "learning_rat" in said[0]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes and the probes of this project in a folder of their own, where stand-in rows may be written."""
    root = tmp_path_factory.mktemp("shipped")
    (root / "pyproject.toml").touch()
    for name in ("recipes", "probes"):
        shutil.copytree(RECIPES.parent / name, root / name)
    return root


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_can_be_cut_down(shipped: Path, name: str) -> None:
    file = shipped / "recipes" / f"{name}.yaml"
    whole = {one.variant: one.spec for one in load_variants(file)}
    for loaded in load_variants(file, scale="tiny"):
        full = whole[loaded.variant]
        assert list(loaded.spec.stages) == list(full.stages)
        assert list(loaded.spec.probes) == list(full.probes)
        for stage, before in zip(loaded.spec.stages.values(), full.stages.values(), strict=True):
            assert (stage.kind, stage.data, stage.learning_rate) == (before.kind, before.data, before.learning_rate)
            assert stage.lr_scheduler_type == before.lr_scheduler_type


def test_the_plan_says_what_is_otherwise_and_of_a_second_variant_only_what_is_new() -> None:
    first = replace(PLAN, rehearsal=("rows: 48 stand-in rows", "tune: 24 steps"))
    second = replace(PLAN, rehearsal=("rows: 48 stand-in rows", "tune: 24 steps, batch 8"))
    said = lines(plan_screen(first))
    assert said[said.index("a rehearsal (--scale): it judges no model, and is otherwise than the recipe:") :][:4] == [
        "a rehearsal (--scale): it judges no model, and is otherwise than the recipe:",
        "  rows: 48 stand-in rows",
        "  tune: 24 steps",
        "",
    ]
    again = lines(plan_screen(second, [first]))
    assert [line for line in again if line.startswith("  ") and ("rows:" in line or "tune:" in line)] == [
        "  tune: 24 steps, batch 8"
    ]
    assert not [line for line in lines(plan_screen(PLAN)) if "rehearsal" in line]


BROKEN = """

@probe(prompt="what is {{ word }}?", max_new_tokens=24)
def test_breaks(case, reply):
    assert reply.tokns
"""


def test_a_rehearsal_runs_whole_and_judges_no_model_but_says_what_broke(tmp_path: Path) -> None:
    file = write_project(tmp_path)
    leave_out_dpo(file)
    (tmp_path / "words.tsv").unlink()
    done = recipe(tmp_path, "run", "tiny.yaml", "--scale", "tiny", RECIPE_STORE="off")
    shown = done.screen.splitlines()
    assert done.code == 0, done.screen
    assert any(line.startswith("  words: 48 stand-in rows instead of words.tsv, which is not here") for line in shown)
    assert [line for line in shown if line.strip().startswith("✗ right")]  # its gate is red all the same
    assert shown[-3:] == [
        "a rehearsal (--scale): everything ran; it judges no model, so its gates have no say in the exit code",
        "",
        "green: exit code 0",
    ]
    assert recipe(tmp_path, "show", "tiny-tiny").screen.splitlines()[-3:] == shown[-3:]  # and it stays one
    assert "· rehearsal" in recipe(tmp_path, "list").screen
    run = tmp_path / "results" / "tiny-tiny"
    assert len(list((run / "qa").glob("ckpt-*"))) == 2  # an epoch each
    with (tmp_path / "probes" / "test_words.py").open("a", encoding="utf-8") as probes:
        probes.write(BROKEN)
    broken = "probes.breaks={file: 'probes/test_words.py::test_breaks', cases: questions.held_out, stages: [qa]}"
    again = recipe(tmp_path, "run", "tiny.yaml", "--scale", "tiny", "--set", broken, RECIPE_STORE="off")
    assert again.code == 1, again.screen
    said = [line for line in again.screen.splitlines() if line.startswith("a rehearsal")]
    first, second = sorted(int(path.name[5:]) for path in (run / "qa").glob("ckpt-*"))
    assert said == [
        "a rehearsal (--scale), and it broke: probes raised errors in "
        f"breaks at qa@{first}, breaks at qa@{second}"
    ]  # fmt: skip


def test_scale_is_an_option_of_every_command_that_reads_a_recipe(tmp_path: Path) -> None:
    for command in ("check", "plan", "preview", "run"):
        done = CliRunner().invoke(cli, [command, "x.yaml", "--scale", "huge"])
        assert done.exit_code == 2
        assert "Invalid value for '--scale': 'huge' is not 'tiny'." in done.output
