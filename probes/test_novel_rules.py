"""Novel rules: made-up rules that no training data holds, stated in the prompt. Reciting does not help here.

Each has a control, the same task under a rule that everybody knows: where the model fails that, its failing the
made-up rule says nothing, and the case is not asked.
"""

import re

from runner import probe

CASES = "data/novel_rules.jsonl"


def ends_with(reply, key):
    """The last numbers and words of the reply are the answer; of several, in any order."""
    found = re.findall(r"[a-z]+|\d+", reply.lower())
    return sorted(found[-len(key) :]) == sorted(key)


@probe(cases=CASES, prompt="{{ control }}")
def test_control(case, reply):
    assert ends_with(reply, case.control_key)


@probe(cases=CASES, prompt="{{ rule }}{{ question }}", given=test_control)
def test_follows_rule(case, reply):
    assert ends_with(reply, case.key)
