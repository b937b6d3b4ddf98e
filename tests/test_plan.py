"""runner.plan: steps, batches and checkpoints; what makes a stage another one; what is probably not meant."""

import math
from importlib.metadata import version

import pytest

from runner import plan, spec
from runner.checkpoints import Parent

MODEL = {"path": "model"}
SFT = {"kind": "sft", "data": "questions"}


def sft(**written: object) -> spec.Sft:
    return spec.Sft.model_validate({**SFT, **written})


def recipe(**written: object) -> spec.Recipe:
    return spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": MODEL,
            "data": {"questions": {"path": "q.tsv"}},
            "stages": {"base": SFT, "qa": {**SFT, "from": "base@last"}},
            **written,
        }
    )


def suite(**written: object) -> dict[str, object]:
    return {"file": "probes/t.py", **written}


# --- steps and batches ---


def test_the_last_smaller_batch_of_an_epoch_is_a_step_too() -> None:
    numbers = plan.arithmetic(sft(num_train_epochs=3, global_batch_size=32), 500)
    assert (numbers.steps_per_epoch, numbers.total_steps) == (16, 48)


def test_max_steps_decides_instead_of_epochs() -> None:
    assert plan.arithmetic(sft(max_steps=12_640, global_batch_size=1152), 1_456_927).total_steps == 12_640
    assert plan.arithmetic(sft(num_train_epochs=10, global_batch_size=1152), 1_456_927).total_steps == 12_650


def test_a_part_of_an_epoch_rounds_up() -> None:
    assert plan.arithmetic(sft(num_train_epochs=0.5, global_batch_size=32), 500).total_steps == 8
    assert plan.arithmetic(sft(num_train_epochs=0.01, global_batch_size=32), 500).total_steps == 1


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"global_batch_size": 32}, (32, 1)),
        ({"global_batch_size": 32, "micro_batch_size": 8}, (8, 4)),
        ({"global_batch_size": 32, "micro_batch_size": 12}, (8, 4)),
        ({"global_batch_size": 32, "micro_batch_size": 64}, (32, 1)),
        ({"global_batch_size": 32, "micro_batch_size": 3}, (2, 16)),
        ({"global_batch_size": 7, "micro_batch_size": 6}, (1, 7)),
    ],
)
def test_the_global_batch_is_kept_exactly_whatever_fits_into_memory(
    written: dict[str, object], expected: tuple[int, int]
) -> None:
    numbers = plan.arithmetic(sft(**written), 1000)
    assert (numbers.per_device_batch_size, numbers.accumulation_steps) == expected
    assert math.prod(expected) == written["global_batch_size"]


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ({"save_steps": 5}, (5, 10, 12)),
        ({"save_steps": 4}, (4, 8, 12)),
        ({"save_steps": 500}, (12,)),
        ({"save_steps": [9, 2, 2, 12, 40]}, (2, 9, 12)),
        ({"save_strategy": "epoch"}, (4, 8, 12)),
        ({"save_strategy": "no"}, (12,)),
    ],
)
def test_the_last_step_is_always_published_and_once(written: dict[str, object], steps: tuple[int, ...]) -> None:
    assert plan.arithmetic(sft(num_train_epochs=3, global_batch_size=4, **written), 16).publish_steps == steps


def test_checkpoints_of_a_part_of_an_epoch_end_with_the_stage() -> None:
    stage = sft(num_train_epochs=1.5, global_batch_size=4, save_strategy="epoch")
    assert plan.arithmetic(stage, 16).publish_steps == (4, 6)


# --- what makes a stage another one ---


def inputs(
    made: spec.Recipe, name: str = "qa", digest: str = "d1", weights: str = "w1", key: str = "k1"
) -> dict[str, str]:
    start = Parent("base@4", "../base/ckpt-4", weights) if name == "qa" else None
    return plan.stage_inputs(
        made, name, data={"questions": digest}, start=start, start_key=key, tokenizer="t", weights=""
    )


def with_qa(**written: object) -> spec.Recipe:
    return recipe(stages={"base": SFT, "qa": {**SFT, "from": "base@last", **written}})


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (inputs(with_qa(learning_rate=0.001)), "learning_rate 5e-05 -> 0.001"),
        (inputs(recipe(seed=7)), "seed 42 -> 7"),
        (inputs(recipe(), digest="d2"), "data questions d1 -> d2"),
        (inputs(recipe(), weights="w2"), "from base@4 w1 k1 -> base@4 w2 k1"),
        (inputs(recipe(), key="k2"), "from base@4 w1 k1 -> base@4 w1 k2"),
        (inputs(recipe(model={"path": "model", "dtype": "bfloat16"})), "attention auto auto -> auto bfloat16"),
        (inputs(with_qa(trainer_args={"a": 1}, max_steps=9)), 'max_steps null -> 9, trainer_args {} -> {"a": 1}'),
    ],
)
def test_whatever_weights_depend_on_makes_another_stage_and_is_named(now: dict[str, str], words: str) -> None:
    before = inputs(recipe())
    assert plan.key(now) != plan.key(before)
    assert plan.changed(before, now) == words


def test_the_order_of_data_sets_and_a_repeated_name_make_another_stage() -> None:
    digests = {"questions": "d1", "more": "d2"}
    orders = (["questions", "more"], ["more", "questions"], ["questions", "more", "more"])
    data = {"questions": {"path": "q.jsonl"}, "more": {"path": "m.jsonl"}}
    made = [recipe(data=data, stages={"base": {**SFT, "data": order}}) for order in orders]
    keys = {
        plan.key(plan.stage_inputs(one, "base", data=digests, start=None, start_key="", tokenizer="t", weights=""))
        for one in made
    }
    assert len(keys) == 3


def test_what_no_weight_depends_on_makes_no_other_stage() -> None:
    before = plan.key(inputs(recipe()))
    other = recipe(
        probes={"held_out": suite()}, stages={"base": SFT, "qa": {**SFT, "from": "base@4", "logging_steps": 1}}
    )
    assert plan.key(inputs(other)) == before


def test_the_first_stage_depends_on_the_model_and_its_tokenizer() -> None:
    before = inputs(recipe(), "base")
    assert plan.changed(before, inputs(recipe(model={"path": "other"}), "base")) == 'model.path "model" -> "other"'
    now = plan.stage_inputs(
        recipe(), "base", data={"questions": "d1"}, start=None, start_key="", tokenizer="t2", weights=""
    )
    assert plan.changed(before, now) == "tokenizer t -> t2"
    now = plan.stage_inputs(
        recipe(), "base", data={"questions": "d1"}, start=None, start_key="", tokenizer="t", weights="w"
    )
    assert plan.changed(before, now) == "weights  -> w"


def test_only_a_preference_stage_depends_on_the_version_of_trl() -> None:
    dpo = recipe(stages={"base": SFT, "qa": {"kind": "dpo", "data": "questions", "from": "base@last"}})
    assert "version of trl" in inputs(dpo)
    assert "version of trl" not in inputs(recipe())


def test_long_values_are_named_and_not_shown() -> None:
    assert plan.changed({"a": "x" * 40, "b": "1"}, {"a": "y" * 40, "b": "1", "c": "new"}) == "a, c"


LORA = {"r": 8, "alpha": 16.0, "targets": ["q_proj", "v_proj"]}


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"lora": LORA}, {"lora": {**LORA, "r": 16}}, "lora.r 8 -> 16"),
        ({"lora": LORA}, {"lora": {**LORA, "targets": ["all-linear"]}}, "lora.targets"),
        ({}, {"lora": LORA}, "lora, version of peft"),
        ({"kl": {"weight": 1.0}}, {"kl": {"weight": 0.5}}, "kl.weight 1.0 -> 0.5"),
        ({"replay": {"of": "questions", "ratio": 0.5}}, {"replay": {"of": "questions", "ratio": 0.25}},
         "replay.ratio 0.5 -> 0.25"),
        ({"freeze": ["model.embed_tokens.*"]}, {"freeze": ["model.embed_tokens.*", "lm_head"]}, "freeze"),
        ({"packing": False}, {"packing": True}, "packing false -> true"),
        ({"truncation": "drop"}, {"truncation": "keep_end"}, 'truncation "drop" -> "keep_end"'),
        ({"dropout": 0.1}, {"dropout": 0.2}, "dropout 0.1 -> 0.2"),
    ],
)  # fmt: skip
def test_a_change_inside_a_block_is_named_by_its_key(
    before: dict[str, object], now: dict[str, object], words: str
) -> None:
    assert plan.changed(inputs(with_qa(**before)), inputs(with_qa(**now))) == words


def test_a_library_of_another_version_makes_another_stage_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs(recipe())
    versions = {"torch": "9.9.0"}
    monkeypatch.setattr(plan, "version", lambda name: versions.get(name) or version(name))
    now = inputs(recipe())
    assert plan.key(now) != plan.key(before)
    assert plan.changed(before, now) == f"version of torch {version('torch')} -> 9.9.0"


def test_a_start_or_data_that_changed_is_told_without_its_digests() -> None:
    sha = "0123456789abcdef" * 4
    for new, words in (
        (f"base@8 {sha} {sha}", "from base@4 -> base@8"),
        (f"base@4 {sha[::-1]} {sha}", "from base@4 (other weights)"),
        (f"base@4 {sha} {sha[::-1]}", "from base@4 (its stage changed)"),
    ):
        assert plan.changed({"from": f"base@4 {sha} {sha}"}, {"from": new}) == words
    assert plan.changed({"data qa": sha}, {"data qa": sha[::-1]}) == "data qa (rows, or how they are written)"


def test_where_probes_end_a_stage_makes_no_other_stage() -> None:
    ended = with_qa(stop_when={"suite": "held_out"})
    assert plan.key(inputs(ended)) == plan.key(inputs(recipe()))


# --- what may end a stage early ---


def test_the_plan_says_what_may_end_a_stage_and_where_that_cannot_be() -> None:
    gate = {"min_pass_rate": 0.5, "on_fail": "rollback"}
    made = recipe(
        stages={"base": SFT, "qa": {**SFT, "from": "base@last", "stop_when": {"suite": "held_out", "worse_for": 2}}},
        probes={"held_out": suite(gate=gate), "loops": suite(stages="qa", gate={**gate, "on_fail": "stop"})},
    )
    assert plan.ends(made, "base") == ("ends where held_out is red, and goes back to the checkpoint before",)
    assert plan.ends(made, "qa") == (
        "ends where held_out is below its best 2 checkpoints in a row",
        "ends where held_out is red, and goes back to the checkpoint before",
        "ends the run where loops is red",
    )
    assert list(plan.idle_ends(made, {"base": (4,), "qa": (2, 4, 6)})) == [
        "probes.held_out: on_fail: rollback has nothing to go back to at base, which publishes one checkpoint: it "
        "would stop the run",
        "stages.qa.stop_when cannot end it early: it publishes 3 checkpoints, and the earliest end is after the 3rd; "
        "give save_steps or save_strategy: epoch",
    ]
    assert list(plan.idle_ends(made, {"base": (2, 4), "qa": (2, 4, 6, 8)})) == []


# --- what is probably not meant ---

GATED = suite(cases="questions", gate={"max_regression": "significant"})


def test_looks_are_counted_where_a_gate_compares_with_a_baseline() -> None:
    made = recipe(
        probes={"held_out": GATED, "qa_only": {**GATED, "stages": "qa"}, "rate": suite(gate={"min_pass_rate": 0.5})}
    )
    # at the first stage there is nothing to compare with, and suites judged at one checkpoint are one look
    assert plan.looks(made, {"base": (5, 10), "qa": (3, 6, 9)}) == 3


def test_a_checkpoint_is_a_look_whichever_suite_is_tested_there() -> None:
    stages = {"base": SFT, "qa": {**SFT, "from": "base@last"}, "more": {**SFT, "from": "qa@last"}}
    made = recipe(stages=stages, probes={"a": {**GATED, "stages": "qa"}, "b": {**GATED, "stages": "more"}})
    assert plan.looks(made, {"base": (5,), "qa": (3, 6), "more": (2, 4, 6)}) == 5


def test_a_gate_that_names_its_baseline_looks_from_that_stage_on() -> None:
    gate = {"max_regression": "significant", "baseline": "base@5"}
    made = recipe(probes={"held_out": suite(cases="questions", gate=gate)})
    assert plan.looks(made, {"base": (5, 10), "qa": (3, 6, 9)}) == 5


def test_a_gate_that_may_stand_in_the_probe_file_is_counted() -> None:
    made = recipe(probes={"own": suite(), "rate": suite(gate={"min_pass_rate": 0.5})})
    assert plan.looks(made, {"base": (5,), "qa": (3, 6)}, {"own", "rate"}) == 2
    assert plan.significant(made, "qa", {"own", "rate"}) == ("own",)  # the recipe's gate replaces the probe file's


def test_a_result_with_a_baseline_of_its_own_is_one_look_more() -> None:
    result = {"checkpoint": "qa@last", "baseline": "qa@3"}
    assert plan.looks(recipe(probes={"held_out": GATED}, result=result), {"base": (5,), "qa": (3, 6)}) == 3
    assert plan.looks(recipe(result=result), {"base": (5,), "qa": (3, 6)}) == 0


def test_a_gate_that_cannot_fire_is_named_with_what_it_would_take() -> None:
    made = recipe(probes={"held_out": GATED})
    (warning,) = plan.warnings(made, 4, {"held_out": 6}, ())
    assert warning == (
        "probes.held_out: its gate cannot fire: of 6 cases not even all lost is beyond chance (p < 0.013 takes 7); "
        "pin them, or give a number: max_regression: 0"
    )
    assert plan.warnings(made, 4, {"held_out": 7}, ()) == ()


def test_a_gate_shares_the_level_with_the_suites_of_its_checkpoints() -> None:
    made = recipe(probes={"a": GATED, "b": GATED, "own": suite()})
    cases = {"a": 6, "b": 7}
    (warning,) = plan.warnings(made, 2, cases, (), {"own"})  # 5 % over 2 looks and 3 suites
    assert (
        "probes.a: its gate cannot fire: of 6 cases not even all lost is beyond chance (p < 0.0083 takes 7)" in warning
    )
    assert plan.warnings(made, 1, cases, ()) == ()


def test_choosing_by_the_suite_that_gates_is_named() -> None:
    made = recipe(probes={"held_out": GATED}, best="held_out")
    assert plan.warnings(made, 0, {}, ()) == (
        "probes.held_out both chooses @best and gates: choosing by it flatters its own result",
    )


def test_a_result_that_nothing_gates_is_named() -> None:
    gated = {**suite(cases="questions"), "gate": {"min_pass_rate": 0.5}, "stages": "base"}
    made = recipe(probes={"held_out": gated, "free": suite(cases="questions")})
    assert plan.warnings(made, 0, {}, ()) == (
        "result: no suite gates the checkpoints of qa, so the exit code will be 0 whatever happens",
    )
    assert plan.warnings(recipe(probes={"own": suite()}), 0, {}, {"own"}) == ()  # the probe file may hold its gate


def test_a_gate_that_only_compares_where_nothing_came_before_is_named() -> None:
    def warned(gate: dict[str, object], stages: str) -> bool:
        made = recipe(probes={"held_out": {**suite(cases="questions"), "gate": gate, "stages": stages}})
        found = plan.warnings(made, 0, {}, ())
        return any("it only compares, and nothing is asked before base" in one for one in found)

    assert warned({"max_regression": 0}, "base")
    assert not warned({"max_regression": 0}, "qa")
    assert not warned({"max_regression": 0, "min_pass_rate": 0.5}, "base")
    assert not warned({"loops": {"max_mean": 0.2}}, "base")


def test_the_version_of_a_library_is_known_without_importing_it() -> None:
    assert plan.library_version("pytest") == pytest.__version__
    assert plan.library_version("no-such-library") == "not installed"
