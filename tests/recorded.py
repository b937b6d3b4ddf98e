"""A project and the folder of its run, written without training: what is there to read is all that matters."""

from pathlib import Path

from runner import checkpoints, recipe, verdicts
from runner.checkpoints import Parent
from runner.recipe import Loaded
from runner.verdicts import Outcome, SuiteAsked, Verdict, VerdictFile

RECIPE = """\
recipe: recorded
seed: 3
model:
  config: {model_type: qwen3, hidden_size: 32, num_hidden_layers: 1}
  tokenizer: {train: char, from_data: [texts, questions]}
data:
  chars: {path: chars.tsv, split: {by: char, train: 0.5, held_out: 0.5}}
  texts: {rows: chars, text: "{{ char }} {{ radical }}"}
  questions: {rows: chars, prompt: "{{ char }}？", completion: "{{ radical }}部"}
stages:
  base: {kind: pretrain, data: texts, num_train_epochs: 2, global_batch_size: 4, save_strategy: "no"}
  qa: {kind: sft, from: base@last, data: questions.train, num_train_epochs: 2, global_batch_size: 4,
       save_strategy: epoch}
probes:
  select: {file: probes/test_chars.py, cases: questions.train, stages: qa}
  held_out: {file: probes/test_chars.py, cases: questions.held_out, stages: qa, gate: {min_pass_rate: 0.5}}
best: select
result: {checkpoint: qa@best}
"""

PROBE = """\
from runner import probe


@probe(prompt="{{ prompt }}")
def test_radical(case, reply):
    assert reply == case.completion
"""

CHARS = "心水木火土金日月山石田目口手足耳"


def project(root: Path, recipe_text: str = RECIPE) -> Loaded:
    """A project of 16 rows at `root`, and its recipe."""
    (root / "probes").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "recorded.yaml").write_text(recipe_text, encoding="utf-8")
    (root / "chars.tsv").write_text("char\tradical\n" + "".join(f"{c}\t{c}\n" for c in CHARS), encoding="utf-8")
    (root / "probes" / "test_chars.py").write_text(PROBE, encoding="utf-8")
    return recipe.load(root / "recorded.yaml")


def publish(run: Path, stage: str, step: int, *, epoch: float = 1.0, parent: Parent | None = None) -> Path:
    """A checkpoint of bytes that stand for weights."""
    source = run.parent / f"state of {run.name} {stage} {step}"
    source.mkdir(parents=True)
    (source / "model.safetensors").write_bytes(f"{stage} {step}".encode())
    target = run / stage / f"ckpt-{step}"
    checkpoints.publish(
        source,
        target,
        recipe="recorded",
        stage=stage,
        kind="sft",
        step=step,
        epoch=epoch,
        stage_key="k",
        parent=parent,
        tokens=10,
        versions={},
    )
    return target


def verdict_file(
    label: str, *, key: str = "k", own_gate: dict[str, object] | None = None, **suites: str
) -> VerdictFile:
    """Verdicts by suite, one per letter: p(ass), m(iss), e(rror), n(ot asked)."""
    names: dict[str, Outcome] = {"p": "pass", "m": "miss", "e": "error", "n": "not_asked"}
    rows = tuple(
        Verdict(
            suite, "probes/test_chars.py::test_radical", f"c{number}", names[letter], f"{letter} at {label}", ckpt=label
        )
        for suite, outcomes in suites.items()
        for number, letter in enumerate(outcomes)
    )
    asked = (SuiteAsked(suite, key, ("p",), own_gate, len(outcomes), 0.5) for suite, outcomes in suites.items())
    return VerdictFile(label, "ab", tuple(asked), rows)


def ask(checkpoint: Path, **suites: str) -> None:
    """Put verdicts of a checkpoint into its run."""
    label = f"{checkpoint.parent.name}@{checkpoint.name.removeprefix('ckpt-')}"
    verdicts.write(checkpoints.verdict_path(checkpoint), verdict_file(label, **suites))
