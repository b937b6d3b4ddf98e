"""Novel rules: made-up rules that no training data holds, stated in the prompt. Reciting does not help here.

Each has a control, the same task under a rule that everybody knows: where the model fails that, its failing the
made-up rule says nothing, and the case is not asked.

These are the open cases: read the replies, develop on them, and draw new ones when they are worn out, with
`python probes/data/make_novel_rules.py --seed N`. What you claim in the end is asked by `locked_novel_rules.py`.
"""

from runner import answers, probe

CASES = "data/novel_rules.jsonl"


@probe(cases=CASES, prompt="{{ control }}", gate={"max_regression": "significant"})
def test_control(case, reply):
    """The rule that everybody knows; the last numbers, names or words of the reply are its answer."""
    assert answers.says(reply, case.control_key, case.control_pattern)


@probe(
    cases=CASES,
    prompt="{{ rule }}{{ question }}",
    given=test_control,
    gate={"max_regression": "significant"},
)
def test_follows_rule(case, reply):
    """The made-up rule."""
    assert answers.says(reply, case.key, case.pattern)
