"""LoRA adapters of one base, asked in one session: one batch, and each says what it says alone."""

from pathlib import Path

import pytest

from runner import verdicts
from tests.probe_project import ask, probes, write
from tests.test_engine_adapters import make_adapter

pytest_plugins = ["pytester"]

ASKED = """
@probe(cases=ROWS, prompt="汉字`{{ char }}`", max_new_tokens=6)
def test_it(case, reply): assert reply
"""
TOGETHER = "*3 adapters of one base were asked in one batch*"


@pytest.fixture
def adapters(project: pytest.Pytester, tiny_checkpoint: Path) -> list[Path]:
    made = [make_adapter(tiny_checkpoint, project.path / f"adapter-{seed}", seed) for seed in range(3)]
    write(project, probes(ASKED))
    return made


def replies(project: pytest.Pytester, file: Path) -> list[tuple[str, str, float | None]]:
    rows = verdicts.read(file).verdicts
    return [(row.case_id, row.reply, None if row.margin is None else round(row.margin, 4)) for row in rows]


def test_adapters_of_one_base_are_asked_in_one_batch_and_say_what_each_says_alone(
    project: pytest.Pytester, adapters: list[Path]
) -> None:
    every = [part for folder in adapters for part in ("--ckpt", folder)]
    result = ask(project, "probes", *every, "--probe-verdicts", "together")
    result.stdout.fnmatch_lines([TOGETHER])
    said = set()
    for folder in adapters:
        ask(project, "probes", "--ckpt", folder, "--probe-verdicts", "alone.jsonl")
        alone = replies(project, project.path / "alone.jsonl")
        assert replies(project, project.path / "together" / f"{folder.name}.jsonl") == alone
        said.add(tuple(reply for _, reply, _ in alone))
    assert len(said) == 3  # they do differ


def test_an_adapter_that_cannot_be_loaded_costs_its_siblings_nothing(
    project: pytest.Pytester, adapters: list[Path]
) -> None:
    from safetensors.torch import load_file, save_file

    weights = adapters[1] / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, weights)
    every = [part for folder in adapters for part in ("--ckpt", folder)]
    result = ask(project, "probes", *every, "--probe-verdicts", "v")
    outcomes = {
        folder.name: {row.outcome for row in verdicts.read(project.path / "v" / f"{folder.name}.jsonl").verdicts}
        for folder in adapters
    }
    assert outcomes == {"adapter-0": {"pass"}, "adapter-1": {"error"}, "adapter-2": {"pass"}}
    result.stdout.fnmatch_lines(["*the adapter lacks*"])


def test_what_the_store_knows_of_an_adapter_is_not_asked_again(
    project: pytest.Pytester, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECIPE_STORE", str(project.path / "store"))
    every = [part for folder in adapters for part in ("--ckpt", folder)]
    ask(project, "probes", *every).stdout.fnmatch_lines([TOGETHER])
    again = ask(project, "probes", *every)
    again.stdout.no_fnmatch_line(TOGETHER)
    again.assert_outcomes(passed=9)
