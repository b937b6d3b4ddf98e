"""Replies that hang by a hair in bf16 are asked again alone in fp32 where they differ from the baseline's."""

from dataclasses import replace
from pathlib import Path

import pytest

from runner import verdicts
from runner.gate import tolerance
from runner.verdicts import VerdictFile
from tests.probe_project import ask, verdicts_of, write

pytest_plugins = ["pytester"]

PROBE = """
from runner import probe

ROWS = [{"id": f"c{n}", "q": "汉字的部首是什么心水木abcdefghijkl"[n:]} for n in range(20)]

@probe(cases=ROWS, prompt="{{ q }}", max_new_tokens=6)
def test_it(reply): pass
"""
BF16 = ("--probe-dtype", "bfloat16")


def said(file: VerdictFile) -> dict[str, str]:
    return {verdict.case_id: verdict.reply for verdict in file.verdicts}


def again(file: VerdictFile) -> set[str]:
    return {verdict.case_id for verdict in file.verdicts if verdict.generation.get("again")}


def hanging(file: VerdictFile) -> set[str]:
    return {one.case_id for one in file.verdicts if one.margin is not None and one.margin < tolerance("bfloat16")}


def compared(project: pytest.Pytester, checkpoint: Path, before: VerdictFile, *options: str) -> VerdictFile:
    verdicts.write(project.path / "before.jsonl", before)
    return verdicts_of(project, checkpoint, PROBE, "--probe-baseline", "before.jsonl", *options)


def changed(file: VerdictFile, **fields: str) -> VerdictFile:
    return replace(file, verdicts=tuple(replace(verdict, **fields) for verdict in file.verdicts))  # type: ignore[arg-type]


def test_a_change_that_hangs_by_a_hair_is_asked_again_alone_in_fp32(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    exact = verdicts_of(project, tiny_checkpoint, PROBE)
    rough = verdicts_of(project, tiny_checkpoint, PROBE, *BF16)
    assert again(rough) == again(exact) == set()  # nothing to compare with
    file = compared(project, tiny_checkpoint, changed(rough, reply="another"), *BF16)
    assert again(file) == hanging(rough)
    assert 0 < len(again(file)) < 20
    for case, reply in said(file).items():
        assert reply == (said(exact) if case in again(file) else said(rough))[case]


def test_what_the_baseline_said_too_or_was_not_asked_is_not_asked_again(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    rough = verdicts_of(project, tiny_checkpoint, PROBE, *BF16)
    assert again(compared(project, tiny_checkpoint, rough, *BF16)) == set()
    assert again(compared(project, tiny_checkpoint, changed(rough, reply="x", case_id="other"), *BF16)) == set()
    # another question is another case
    assert again(compared(project, tiny_checkpoint, changed(rough, reply="x", question="0123"), *BF16)) == set()


def test_in_fp32_nothing_is_asked_again(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    exact = verdicts_of(project, tiny_checkpoint, PROBE)
    assert again(compared(project, tiny_checkpoint, changed(exact, reply="x"))) == set()


def test_a_baseline_checkpoint_of_the_same_session_is_compared_with(
    project: pytest.Pytester, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from tests.tiny import make_checkpoint

    other = make_checkpoint(tmp_path / "checkpoint-5", seed=5)
    write(project, PROBE)
    # the baseline is named last, and generated first all the same
    arguments = ["--ckpt", tiny_checkpoint, "--ckpt", other, "--probe-baseline", other, "--probe-verdicts", "both"]
    ask(project, "probes", *arguments, *BF16)
    file, before = (verdicts.read(project.path / "both" / f"checkpoint-{step}.jsonl") for step in (10, 5))
    assert again(before) == set()
    rough = verdicts_of(project, tiny_checkpoint, PROBE, *BF16)
    differ = {case for case in said(rough) if said(rough)[case] != said(before)[case]}
    assert again(file) == hanging(rough) & differ != set()
