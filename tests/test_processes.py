"""Training with several processes on real tiny models: they learn what one learns, and stop and resume together."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from runner import checkpoints, jobs
from runner.check import load_checked
from runner.data.tokens import Tokens
from runner.events import Published, Started
from runner.preparation import Prepared, inputs_of, new_job, start_of
from runner.standings import Standings
from runner.train import batches, causal, contrast, launcher
from runner.train.packing import Layout, sequences
from runner.train.penalties import weight_of
from runner.train.preference import DealtEvenly
from runner.train.rows import Dealt
from tests import many_processes
from tests.in_process import begin, events, finished, losses, prepare, train
from tests.many_processes import Task, Trained
from tests.tiny_project import write_project

TOGETHER = 2

# --- which rows each process has ---

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
"""Rows of an epoch; rows of a micro-batch, micro-batches of a step, processes."""


def dealt(kind: type[Dealt], rows: int, at_once: int, many: int, of: int) -> list[list[Any]]:
    """The micro-batches of an epoch, for each process."""
    found = []
    for index in range(of):
        one = kind(range(rows), at_once * many * of, at_once)
        one._index, one._of = index, of  # what a process finds out where others have met it
        assert len(list(one)) == len(one)
        found.append(list(one))
    return found


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_a_step_has_the_same_rows_on_any_number_of_processes(sizes: tuple[int, int, int, int]) -> None:
    rows, at_once, many, of = sizes
    found = dealt(Dealt, rows, at_once, many, of)
    assert len({len(own) for own in found}) == 1  # all call the model as often
    for step in range(-(-rows // (at_once * many * of))):
        parts = [own[step * many : (step + 1) * many] for own in found]
        trained = sorted(row for own in parts for part in own for row in part)
        assert trained == list(range(rows))[step * at_once * many * of : (step + 1) * at_once * many * of]
        for part in zip(*parts, strict=True):
            assert max(map(len, part)) <= at_once
            assert max(map(len, part)) - min(map(len, part)) <= 1


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_processes_have_equally_many_pairs_and_each_pair_counts_once(sizes: tuple[int, int, int, int]) -> None:
    rows, at_once, many, of = sizes
    found = dealt(DealtEvenly, rows, at_once, many, of)
    for same in zip(*found, strict=True):
        assert len({tuple(len(part.pairs) for part in parts) for parts in same}) == 1
        assert all(len(part.pairs) <= at_once for parts in same for part in parts)
    counted = [pair for own in found for parts in own for part in parts for pair in part.pairs[: part.counted]]
    assert sorted(counted) == list(range(rows))


@pytest.mark.parametrize("layout", Layout)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), at_once=st.integers(1, 4), of=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_sequences_are_filled_for_all_processes_and_dealt_among_them(
    layout: Layout, lengths: list[int], at_once: int, of: int
) -> None:
    found = [list(sequences(lengths, layout, at_once, index, of)) for index in range(of)]
    assert len({len(own) for own in found}) == 1
    places = [place for own in found for lines in own for line in lines for place in line]
    assert sorted(place.row for place in places if place.row >= 0) == list(range(len(lengths)))


def test_a_process_without_rows_has_a_batch_that_teaches_nothing() -> None:
    padded, packed = batches.Collate(1, 0.5), batches.Pack(1, 0.5, Layout.GROUPED, 1, (0, 2))
    (alone,) = packed([Tokens([4, 5], ((0, 2),), 0)])[batches.PACKED]
    for batch in (padded([]), alone):
        assert batch["input_ids"].tolist() == [[1, 1]]
        assert batch["labels"].tolist() == [[batches.IGNORED, batches.IGNORED]]
        assert weight_of(batch) == 0
    assert contrast.Collate(1)([])["prompts"] == 0


# --- trained by one and by two ---

MANY_STEPS = (
    "data.words.take=33",  # 8 to a step, so that one is left, and a process has none
    "data.pairs.rows=questions",
    "stages.qa.data=questions",
    "stages.qa.from=base@last",
    *(f"stages.{name}.{key}" for name in ("base", "qa") for key in ("save_strategy=no", "max_steps=10")),
    *(f"stages.{name}.micro_batch_size=2" for name in ("base", "qa")),
)
STILL = "model.config.attention_dropout=0.0"
PAIRS = "stages.base.data=pairs"
TERMS = ("stages.qa.kl={weight: 0.5, data: facts, rows: 5}", "stages.qa.ewc={weight: 20, data: facts, rows: 7}")
CASES: dict[str, tuple[str, ...]] = {
    "pretrain": (),
    "prompts, kl and ewc": ("stages.qa.prompt_loss_weight=0.3", *TERMS),
    "packed, with kl": ("stages.qa.packing=true", "stages.qa.kl={weight: 0.5}"),
    "adapter": ("stages.base.kind=sft", "stages.base.data=questions", "stages.base.lora={r: 4, l2: 0.1}"),
    "dpo": ("stages.base.kind=dpo", PAIRS),
    "dpo, its reference read beforehand": (
        "stages.base.kind=dpo",
        PAIRS,
        "stages.base.trainer_args={precompute_ref_log_probs: true}",
    ),
    "contrast": ("stages.base.kind=contrast", PAIRS, "stages.base.unlikelihood_weight=0.5"),
}
DRAWS = ("stages.base.save_steps=[3]", "stages.base.save_strategy=steps")
"""And with the recipe's dropout."""


@dataclass(frozen=True)
class Compared:
    """What one process and two have trained."""

    one: dict[str, Prepared]
    two: dict[str, Prepared]
    trained: Trained


def ready(prepared: Prepared, stage: str) -> Task:
    """A stage that waits for its processes."""
    start, key = start_of(prepared, Standings(prepared.recipe, prepared.run), stage)
    jobs.write(prepared.run / stage, new_job(prepared, stage, start, inputs_of(prepared, stage, start, key)))
    return Task(prepared.run, stage)


def on(processes: int, prepared: Prepared) -> Prepared:
    """The same run, planned for another number of processes."""
    sets = [*MANY_STEPS, *DRAWS, f"launch.processes={processes}"]
    return Prepared(load_checked(prepared.loaded.path, sets), prepared.run)


def stage_of(sets: Sequence[str]) -> str:
    return "qa" if any(one.startswith("stages.qa") for one in sets) else "base"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """All that two processes train in this file: they import torch once."""
    root = tmp_path_factory.mktemp("processes")
    recipe = write_project(root / "project")

    def made(name: str, processes: int, *sets: str) -> Prepared:
        return prepare(recipe, root / f"{name} on {processes}", *MANY_STEPS, *sets, f"launch.processes={processes}")

    one: dict[str, Prepared] = {}
    two: dict[str, Prepared] = {}
    tasks = []
    for name, sets in CASES.items():
        one[name], two[name] = (made(name, number, STILL, *sets) for number in (1, TOGETHER))
        if (stage := stage_of(sets)) == "qa":
            for prepared in (one[name], two[name]):
                (prepared.run / "base").symlink_to(one["pretrain"].run / "base")
        train(one[name], stage)
        tasks.append(ready(two[name], stage))

    names = ("undisturbed", "on two again", "on one then")
    two |= {name: made(name, TOGETHER, *DRAWS) for name in names}
    whole, again, then = (ready(two[name], "base") for name in names)
    tasks += [whole, Task(again.run, interrupted_at=7), again, Task(then.run, interrupted_at=7)]

    one["on two then"] = made("on two then", 1, *DRAWS)
    interrupt(one["on two then"], 7)
    tasks.append(ready(on(TOGETHER, one["on two then"]), "base"))
    return Compared(one, two, many_processes.train(tasks, TOGETHER))


def interrupt(prepared: Prepared, at: int) -> None:
    """Train a stage in this process until a signal comes."""

    class Interrupted(causal.CausalTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            if self.state.global_step == at - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal, "CausalTrainer", Interrupted)
        patch.setattr(jobs, "read_decision", lambda *_: True)
        assert begin(prepared, "base") == 130


def test_every_process_says_how_it_ended(compared: Compared) -> None:
    assert compared.trained.codes == [
        *([[0] * TOGETHER] * (len(CASES) + 1)), [130] * TOGETHER, [0] * TOGETHER, [130] * TOGETHER, [0] * TOGETHER
    ], compared.trained.screen  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(compared: Compared, name: str) -> None:
    stage = stage_of(CASES[name])
    one, two = (losses(of[name], stage) for of in (compared.one, compared.two))
    assert len(one) == 10
    for alone, together in zip(one, two, strict=True):
        assert together.loss == pytest.approx(alone.loss, abs=1e-4)
        assert together.grad_norm == pytest.approx(alone.grad_norm, abs=1e-4)
        assert together.tokens == alone.tokens
        for term in {"kl", "ewc", "l2", "cross_entropy", "contrast", "unlikelihood", "accuracy"} & alone.more.keys():
            assert together.more[term] == pytest.approx(alone.more[term], abs=1e-4)
    assert one[-1].loss < one[0].loss - 1e-3 or name.startswith("dpo")
    before, after = (weights(of[name], stage) for of in (compared.one, compared.two))
    assert before.keys() == after.keys()
    assert max((before[key] - after[key]).abs().max().item() for key in before) < 1e-3


def weights(prepared: Prepared, stage: str) -> dict[str, torch.Tensor]:
    (path,) = (prepared.run / stage).glob("ckpt-10/*model.safetensors")
    return load_file(path)


def test_the_first_process_alone_writes(compared: Compared) -> None:
    prepared = compared.two["undisturbed"]
    written = events(prepared, "base")
    assert [event.step for event in losses(prepared, "base")] == list(range(1, 11))
    (started,) = (event for event in written if isinstance(event, Started))
    assert started.device == f"{TOGETHER} x cpu"
    assert [event.step for event in written if isinstance(event, Published)] == [3, 10]
    assert finished(prepared, "base").tokens == prepared.counts("base").tokens
    assert [path.name for path in (prepared.run / "base" / "state").glob("checkpoint-*")] == ["checkpoint-10"]


def test_a_signal_to_one_of_them_stops_all_and_what_resumes_ends_where_the_undisturbed_does(compared: Compared) -> None:
    digests = [
        checkpoints.weights_sha256(compared.two[name].run / "base" / "ckpt-10")
        for name in ("undisturbed", "on two again")
    ]
    assert digests[0] == digests[1]
    steps = [event.step for event in events(compared.two["on two again"], "base") if isinstance(event, Started)]
    assert steps == [0, 7]


def test_each_process_draws_its_own_dropout(compared: Compared) -> None:
    state = compared.two["undisturbed"].run / "base" / "state" / "checkpoint-10"
    drawn = [torch.load(state / f"rng_state_{rank}.pth", weights_only=False)["cpu"] for rank in range(TOGETHER)]
    assert not torch.equal(*drawn)


def test_what_two_processes_began_one_can_end_and_the_reverse(compared: Compared) -> None:
    begun = on(1, compared.two["on one then"])
    assert begin(begun, "base") == 0
    for prepared in (begun, compared.one["on two then"]):
        starts = [event for event in events(prepared, "base") if isinstance(event, Started)]
        assert [(event.step, event.device) for event in starts] in (
            [(0, "2 x cpu"), (7, "cpu")], [(0, "cpu"), (7, "2 x cpu")]
        )  # fmt: skip
        assert checkpoints.read_manifest(prepared.run / "base" / "ckpt-10").step == 10


def test_a_stage_that_is_planned_for_others_is_not_trained_alone(
    compared: Compared, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.train import worker

    assert worker.main([str(compared.two["pretrain"].run), "base"]) == 2
    assert capsys.readouterr().err == (
        "stage base is planned for 2 processes, and 1 came to train it\n"
        "    hint: recipe run --processes N plans it for N, and starts them\n"
    )


# --- what starts them ---


def test_a_signal_before_there_are_trainers_ends_each_of_them_as_it_begins(tmp_path: Path) -> None:
    group = launcher.Group(tmp_path, "base", 2, 1, 0, "127.0.0.1:29500", "attempt")
    watch = launcher._Watch(group)
    watch._pass_on(signal.SIGTERM, None)  # the launcher heard it, and has nobody to tell yet
    if (trainer := os.fork()) == 0:
        launcher._trainer(str(tmp_path), "base", os.open(os.devnull, os.O_WRONLY))
        os._exit(70)  # not reached
    assert os.waitstatus_to_exitcode(os.waitpid(trainer, 0)[1]) == -signal.SIGTERM

    launcher._Watch(group)  # of the next stage: what the last one heard is not its own
    assert launcher._LEAVE[0][0] == 0
