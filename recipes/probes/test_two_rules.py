"""Two made-up rules, each stated in its prompt, and the same questions without them: what is right is computed, not
remembered. A suite names its own rows: `cases:`, written as its model was trained, with the column key.

Greedy: replies are not searched by beams here.
"""

from runner import answers, probe


@probe(prompt="{{ prompt }}", max_new_tokens=128)
def test_computes(case, reply):
    """The last numbers of the reply are those of the key."""
    assert answers.says(reply, case.key, r"(?<!\d)-?\d+(?:\.\d+)?")
