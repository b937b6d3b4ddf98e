"""`{sample: …}`: a checkpoint's own wrong replies become negatives, in a run of processes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner import jobs
from runner.data import samples
from runner.errors import BadData
from runner.probing import sampling
from tests.tiny_project import Done, events, recipe, write_project


@dataclass(frozen=True)
class Ran:
    root: Path
    plan: Done
    done: Done

    @property
    def run(self) -> Path:
        return self.root / "results" / "tiny"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("sampling")
    file = write_project(root)
    text = file.read_text("utf-8")
    text = text.replace(
        '    rejected: " {{ word }} is {{ other.colour }}"\n',
        "    rejected:\n      - {sample: qa@last, samples: 3, max_new_tokens: 12}\n",
    )
    text = text.replace("kind: dpo", "kind: contrast").replace("num_train_epochs: 24", "num_train_epochs: 6")
    file.write_text(text, "utf-8")
    return Ran(root, recipe(root, "plan", "tiny.yaml"), recipe(root, "run", "tiny.yaml"))


def replies(run: Path) -> list[dict[str, object]]:
    (file,) = (run / "data" / "samples").glob("pairs-*.jsonl")
    head, *rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert head == {"format_version": 1, "checkpoint": "qa@6"}
    return rows


def test_the_plan_says_how_many_pairs_there_can_be(ran: Ran) -> None:
    assert ran.plan.code == 0, ran.plan.screen
    assert "≤20" in ran.plan.screen
    assert "pairs: up to 60 of its pairs are known when the checkpoint has been asked" in " ".join(
        ran.plan.screen.split()
    )


def test_the_checkpoint_is_asked_once_before_the_stage_and_its_wrong_replies_are_trained_on(ran: Ran) -> None:
    assert ran.done.code == 1, ran.done.screen  # the project's gate is always red
    rows = replies(ran.run)
    assert len(rows) == 20
    assert all(len(row["replies"]) == 3 for row in rows)  # type: ignore[arg-type]
    right = {line.split("\t")[0]: line.split("\t")[1] for line in (ran.root / "words.tsv").read_text().splitlines()[1:]}
    wrong = {
        row["prompt"]
        for row in rows
        for reply in row["replies"]  # type: ignore[attr-defined]
        if reply.strip() and (word := str(row["prompt"])[8:-1]) and reply.strip() != f"{word} is {right[word]}"
    }
    job = jobs.read(ran.run / "prefer")
    assert job is not None
    assert job.total_steps == -(-len(wrong) // 8)
    assert job.inputs["sample data.pairs.rejected[0]"].startswith("qa@6 ")
    (state,) = [event for event in events(ran.run, "run") if event.get("state") == "sampling"]
    assert (state["stage"], state["why"]) == ("prefer", "qa@6 is asked for negatives")


def test_the_same_checkpoint_says_the_same_again(ran: Ran, tmp_path: Path) -> None:
    (file,) = (ran.run / "data" / "samples").glob("pairs-*.jsonl")
    arguments = [str(ran.run), "pairs", "0", "qa@6", str(ran.run / "qa" / "ckpt-6"), str(tmp_path / "again.jsonl")]
    assert sampling.main(arguments) == 0
    assert (tmp_path / "again.jsonl").read_text("utf-8") == file.read_text("utf-8")


def test_a_damaged_file_of_replies_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"format_version": 1}\n{"row": 3}\n')
    with pytest.raises(BadData) as caught:
        samples.replies(tmp_path / "x.jsonl")
    assert caught.value.screen() == (
        f"{tmp_path}/x.jsonl is damaged (KeyError: 'replies')\n"
        "    hint: move it away: the checkpoint is then asked again"
    )


def test_a_run_that_is_done_asks_nobody(ran: Ran) -> None:
    (file,) = (ran.run / "data" / "samples").glob("pairs-*.jsonl")
    file.unlink()
    assert recipe(ran.root, "run", "tiny.yaml").code == 1
    assert not file.exists()
