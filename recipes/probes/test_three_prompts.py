"""Three prompts to watch from checkpoint to checkpoint: a fact, a word alone, and who is speaking.

Greedy, with room to loop. What repeats itself is measured over characters, which Chinese and English share; what is
known, by two years that nobody gets right by chance.
"""

import re

from runner import probe, repetition

WATCHED = [
    {"id": "li-bai", "prompt": "李白是谁？"},
    {"id": "bean-cake", "prompt": "绿豆糕"},
    {"id": "who", "prompt": "who are you?"},
]
LIVES = [{"id": "li-bai", "prompt": "李白是谁？", "born": "701", "died": "762"}]


@probe(cases=WATCHED, prompt="{{ prompt }}", max_new_tokens=512)
def test_reply_ends(reply, record):
    """It ends by itself. Recorded: seq-rep-n, distinct-n, and the share that is one loop."""
    seq_rep = {f"seq_rep_{n}": repetition.seq_rep(reply, n) for n in (2, 3, 4)}
    distinct = {f"distinct_{n}": repetition.distinct(reply, n) for n in (1, 2)}
    loop = repetition.looping_tail(reply) / max(len(repetition.units(reply)), 1)
    record(**seq_rep, **distinct, looping_share=loop)
    assert reply.stop_reason != "length", "it did not end its reply"


def years(reply):
    """The years that a reply names, in their order."""
    return re.findall(r"(?<!\d)\d{3,4}(?!\d)", reply)


@probe(cases=LIVES, prompt="{{ prompt }}", max_new_tokens=512)
def test_year_of_birth(case, reply):
    """The first year that is named."""
    assert years(reply)[:1] == [case.born]


@probe(cases=LIVES, prompt="{{ prompt }}", max_new_tokens=512)
def test_year_of_death(case, reply):
    """The second."""
    assert years(reply)[1:2] == [case.died]
