"""Does a model list the characters of a radical, each once? What says something twice is the beginning of a loop.

The suites of `recipes/repetition.yaml` differ in how often their prompts occurred in training, and in nothing else.
"""

from runner import probe, repetition


@probe(prompt="{{ prompt }}", max_new_tokens=96)
def test_says_nothing_twice(case, reply, record):
    """`right` is the share of the characters of the list that were named."""
    measures = repetition.measures(reply, reply.tokens)
    listed, right = set(str(reply).split("、")), set(case.characters.split("、"))
    record(**measures, never_stops=reply.stop_reason == "length", right=len(listed & right) / len(right))
    assert reply.stop_reason != "length", "it did not end its reply"
    assert measures["seq_rep_4"] == 0, "four characters of it come twice"
