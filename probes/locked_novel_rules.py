"""The locked split of the novel rules: other rules than the open cases, for the last word about a model.

Its name does not begin with `test_`, so that `pytest probes` does not ask it. Ask it by name, when all choices are
made: `pytest probes/locked_novel_rules.py --ckpt CHECKPOINT`. Any choice that is made after a look at it (of a prompt,
a learning rate, a checkpoint) makes it an open split; then lock a new one, with
`python probes/data/make_novel_rules.py --locked --seed N`.
"""

import hashlib
import json
from pathlib import Path

from runner import answers, probe
from runner.errors import BadProbe

CASES = "data/novel_rules_locked.jsonl"
DATA = Path(__file__).parent / "data"
LOCK = json.loads((DATA / "novel_rules_locked.lock").read_text(encoding="utf-8"))

if hashlib.sha256((DATA / LOCK["file"]).read_bytes()).hexdigest() != LOCK["sha256"]:
    raise BadProbe(
        f"{CASES} is not what novel_rules_locked.lock locks",
        hint="bring the file back, or lock a new split: python probes/data/make_novel_rules.py --locked --seed N",
    )


@probe(cases=CASES, prompt="{{ control }}", gate={"max_regression": "significant"})
def test_locked_control(case, reply):
    """The rule that everybody knows."""
    assert answers.says(reply, case.control_key, case.control_pattern)


@probe(
    cases=CASES,
    prompt="{{ rule }}{{ question }}",
    given=test_locked_control,
    gate={"max_regression": "significant"},
)
def test_follows_locked_rule(case, reply):
    """The made-up rule."""
    assert answers.says(reply, case.key, case.pattern)
