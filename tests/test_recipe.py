"""Loading a recipe: layers, variables, references, and what comes out again."""

from __future__ import annotations

import contextlib
import copy
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import recipe, spec
from runner.check import load_checked
from runner.errors import BadRecipe
from runner.recipe.layers import read_layers
from runner.recipe.trainer_args import argument_types, expected_type

PROJECT = Path(__file__).parents[1]
RECIPE = """\
recipe: small
vars: {rate: 3.0e-3, side: train, twice: "{{ rate * 2 }}"}
model: {config: {model_type: qwen3}, tokenizer: {train: char, from_data: questions}}
data:
  chars: {path: chars.tsv, split: {by: char, train: 0.5, held_out: 0.5}}
  questions: {rows: chars, prompt: "{{ char }}?", completion: "{{ radical }}"}
  pairs: {rows: questions.train, rejected: "{{ other.radical }}"}
stages:
  base: {kind: pretrain, data: questions, learning_rate: "{{ rate }}"}
  qa: {kind: sft, from: base@last, data: "questions.{{ side }}", trainer_args: {optim: adamw_torch}}
  prefer: {kind: dpo, from: qa@best, data: [pairs], loss_type: sigmoid}
probes:
  known: {file: probes.py, cases: questions.held_out, gate: {min_pass_rate: 0.9, loops: {max_mean: 0.2}}}
best: known
result: {checkpoint: prefer@best, baseline: qa@best}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes files of a project; gives the path of the last one."""
    (tmp_path / ".git").mkdir()

    def write(**files: str) -> Path:
        path = tmp_path
        for name, text in files.items():
            path = tmp_path / f"{name}.yaml"
            path.write_text(text, "utf-8")
        return path

    (tmp_path / "chars.tsv").write_text("char\tradical\n一\t一\n丁\t一\n", "utf-8")
    (tmp_path / "probes.py").write_text("def test_it(case, reply): ...\n", "utf-8")
    return write


def test_variables_keep_their_type_and_row_templates_are_left_alone(write: Callable[..., Path]) -> None:
    loaded = recipe.load(write(small=RECIPE))
    assert loaded.spec.stages["base"].learning_rate == 3e-3
    assert loaded.spec.stages["qa"].data == ("questions.train",)
    assert loaded.spec.vars["twice"] == 6e-3
    assert loaded.spec.data["questions"].prompt == "{{ char }}?"


def test_a_resolved_recipe_loads_to_an_equal_spec(write: Callable[..., Path]) -> None:
    first = recipe.load(write(small=RECIPE), ["seed=7", "stages.qa.trainer_args.adam_epsilon=1e-7"])
    second = recipe.load(write(again=recipe.dump(first)))
    assert second.spec == first.spec
    assert recipe.dump(second) == recipe.dump(first)


@pytest.mark.parametrize("text", ["2e-5", "on", "0o7", "{{ x }}", "a: b", "", "~", "# no", "`一`", " x", "1_0", "007"])
def test_any_text_survives_dump_and_load(write: Callable[..., Path], text: str) -> None:
    odd = RECIPE.replace("kind: pretrain", f"kind: pretrain, trainer_args: {{run_name: {text_of(text)}}}")
    first = recipe.load(write(small=odd))
    assert first.spec.stages["base"].trainer_args["run_name"] == text
    assert recipe.load(write(again=recipe.dump(first))).spec == first.spec


def text_of(text: str) -> str:
    """`text` in YAML, and kept from being rendered."""
    return f'"{{% raw %}}{text}{{% endraw %}}"' if "{" in text else f'"{text}"'


def test_the_root_is_the_nearest_folder_with_a_project_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    assert recipe.project_root(tmp_path / "deep" / "er" / "a.yaml") == tmp_path.resolve()


def test_extends_merges_maps_replaces_lists_deletes_nulls_and_appends_stages(write: Callable[..., Path]) -> None:
    child = """\
extends: parent.yaml
recipe: child
stages:
  base: {learning_rate: 1e-4}
  prefer: null
  more: {kind: sft, from: qa@last, data: [questions.train]}
model: {tokenizer: {from_data: [questions, chars2]}}
data: {pairs: null, chars2: {rows: chars, text: "{{ char }}"}}
result: null
"""
    loaded = recipe.load(write(parent=RECIPE, child=child))
    assert list(loaded.spec.stages) == ["base", "qa", "more"]
    assert loaded.spec.stages["base"].learning_rate == 1e-4
    assert loaded.spec.stages["base"].kind == "pretrain"
    assert isinstance(loaded.spec.model.tokenizer, spec.Tokenizer)
    assert loaded.spec.model.tokenizer.from_data == ("questions", "chars2")
    assert loaded.spec.result is None
    assert "pairs" not in loaded.spec.data


def test_a_fault_in_an_extended_recipe_points_there(write: Callable[..., Path]) -> None:
    path = write(parent=RECIPE.replace("kind: sft", "kind: stf"), child="extends: parent.yaml\nrecipe: child\n")
    with pytest.raises(BadRecipe) as caught:
        recipe.load(path)
    (problem,) = caught.value.problems
    assert problem.where is not None
    assert problem.where.file.endswith("parent.yaml")
    assert problem.where.line == 10


def test_as_many_recipes_extend_each_other_as_may_and_no_more(write: Callable[..., Path]) -> None:
    chain = {f"r{n}": f"extends: r{n - 1}.yaml\nrecipe: r{n}\n" for n in range(1, 17)}
    assert recipe.load(write(r0=RECIPE, **chain).with_name("r15.yaml")).spec.recipe == "r15"
    with pytest.raises(BadRecipe, match="more than 16 recipes that extend each other") as caught:
        recipe.load(write(r0=RECIPE, **chain).with_name("r16.yaml"))
    assert caught.value.screen().splitlines()[1].endswith("| extends: r0.yaml")


def test_recipes_that_extend_each_other_in_a_circle_are_refused_wherever_it_begins(write: Callable[..., Path]) -> None:
    path = write(a="extends: c.yaml\n", b="extends: a.yaml\n", c="extends: b.yaml\n", d="extends: c.yaml\n")
    for name in "abcd":
        with pytest.raises(BadRecipe, match="recipes that extend each other in a circle"):
            recipe.load(path.with_name(f"{name}.yaml"))


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read_as_text(write: Callable[..., Path]) -> None:
    path = write(a=RECIPE)
    path.write_bytes(b"\xff" * 400_001)
    with pytest.raises(BadRecipe) as caught:
        recipe.load(path)
    assert caught.value.screen() == (
        f"{path}: the file has more than 400,000 bytes\n    expected: a recipe, of 100,000 characters at most"
    )


def test_recipes_that_extend_each_other_share_the_bytes_of_one(write: Callable[..., Path]) -> None:
    long = "# " + "汉" * 60_000 + "\n"
    path = write(a=long + RECIPE, b=long + "extends: a.yaml\nrecipe: b\n", c=long + "extends: b.yaml\nrecipe: c\n")
    assert recipe.load(path.with_name("b.yaml")).spec.recipe == "b"
    with pytest.raises(BadRecipe, match=r"b\.yaml:2:10: .* have more than 400,000 bytes together"):
        recipe.load(path.with_name("c.yaml"))


def test_a_long_recipe_on_top_of_a_long_one_takes_no_longer_than_both(write: Callable[..., Path]) -> None:
    below = "vars:\n" + "".join(f"  a{number}: {number}\n" for number in range(4_000))
    above = "extends: a.yaml\nvars:\n" + "".join(f"  b{number}: {number}\n" for number in range(4_000))
    path = write(a=below, b=above)
    began = time.process_time()
    layered = read_layers(path, path.parent)
    assert time.process_time() - began < 2
    assert len(layered.values["vars"]) == 8_000
    assert str(layered.marks["vars", "b3999"].at_key()).endswith("b.yaml:4002:3")


def test_a_recipe_can_extend_one_that_extends(write: Callable[..., Path]) -> None:
    path = write(a=RECIPE, b="extends: a.yaml\nrecipe: b\nseed: 5\n", c="extends: b.yaml\nrecipe: c\n")
    loaded = recipe.load(path)
    assert (loaded.spec.recipe, loaded.spec.seed) == ("c", 5)


def test_set_reaches_values_lists_new_keys_and_deletes_by_null(write: Callable[..., Path]) -> None:
    sets = [
        "stages.prefer.data.0=pairs",
        "stages.qa.save_steps=[1, 2]",
        "stages.base.trainer_args.adam_epsilon=1e-7",
        "vars.rate=1e-2",
        "result=null",
    ]
    loaded = recipe.load(write(small=RECIPE), sets)
    assert loaded.spec.stages["qa"].save_steps == (1, 2)
    assert loaded.spec.stages["base"].trainer_args == {"adam_epsilon": 1e-7}
    assert loaded.spec.stages["base"].learning_rate == 1e-2
    assert loaded.spec.result is None


def test_a_folder_of_a_run_loads_its_recipe_without_the_files_it_names(write: Callable[..., Path]) -> None:
    path = write(small=RECIPE)
    (path.parent / "chars.tsv").unlink()
    (path.parent / "probes.py").unlink()
    assert recipe.load(path).spec.recipe == "small"
    with pytest.raises(BadRecipe) as caught:
        load_checked(path)
    assert [problem.where.line for problem in caught.value.problems if problem.where] == [5, 13]


def test_a_draft_holds_what_is_right_beside_what_is_wrong(write: Callable[..., Path]) -> None:
    (found,) = recipe.drafts(write(small=RECIPE.replace('"{{ char }}?"', "5").replace("seed", "sede")))
    assert found.spec is None
    assert sorted(found.data) == ["chars", "pairs"]
    assert len(found.problems) == 1


def test_a_missing_file_is_answered_with_the_nearest_name(write: Callable[..., Path]) -> None:
    path = write(small=RECIPE)
    with pytest.raises(BadRecipe, match=r"did you mean .*small\.yaml"):
        recipe.load(path.with_name("smal.yaml"))


def test_argument_names_and_types_are_those_of_the_installed_libraries() -> None:
    assert argument_types("sft")["optim"] == "OptimizerNames | str"
    assert "beta" not in argument_types("sft")
    assert {"precompute_ref_log_probs", "optim", "logging_steps"} <= set(argument_types("dpo"))
    assert expected_type("bool | None", "no") == "true or false"
    assert expected_type("int | None", None) is None
    assert expected_type("float", 1) is None
    assert expected_type("SchedulerType | str", 5) is None


def test_the_schema_names_every_key_and_documents_it() -> None:
    made = recipe.schema()
    assert made["$schema"].startswith("https://json-schema.org/")
    stage = made["$defs"]["Sft"]["properties"]
    assert {"from", "kind", "learning_rate"} <= set(stage)
    fields = [(name, field) for block in made["$defs"].values() for name, field in block.get("properties", {}).items()]
    assert [name for name, field in fields if not field.get("description", "").endswith((".", ":"))] == []


def test_checking_is_quick_and_imports_no_torch(write: Callable[..., Path]) -> None:
    code = (
        "import sys; from runner.check import load_checked; load_checked(sys.argv[1]);"
        "assert not {'torch', 'transformers', 'trl', 'pyarrow', 'tokenizers'} & set(sys.modules)"
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, write(small=RECIPE)], check=True, cwd=PROJECT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # its own time: how long it waits for a busy machine is not its doing
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.0  # half a second where no other process wants the core


@pytest.mark.parametrize("path", sorted((PROJECT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_right(path: Path) -> None:
    assert load_checked(path).spec.recipe == path.stem


WRONG: tuple[object, ...] = (
    None, 5, -1, 0.5, True, "", "a", "qa@best", "base@epoch=0", "base@0", "questions.train", "a.b",
    "{{ x }}", "{{", "@", ".", [], {}, [1, "x"], [None], [[]], {"kind": "sft"}, {"a": 1}, {"rows": "a"},
    {"path": "chars.tsv"}, ["pairs", {"a": []}],
)  # fmt: skip


def places(tree: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value of a tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_no_wrong_value_anywhere_is_a_crash(write: Callable[..., Path], data: st.DataObject) -> None:
    tree = yaml.safe_load(RECIPE)
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(places(tree)[1:]))
        block = tree
        for part in above:
            block = block[part]
        block[last] = copy.deepcopy(data.draw(st.sampled_from(WRONG)))
        if isinstance(block, dict) and data.draw(st.booleans()):
            block[data.draw(st.sampled_from(("x", "from", "data", "rows", "rejected", "pick", "split")))] = block.pop(
                last
            )
    with contextlib.suppress(BadRecipe):
        loaded = load_checked(write(broken=yaml.safe_dump(tree, sort_keys=False)))
        assert recipe.load(write(again=recipe.dump(loaded))).spec == loaded.spec
