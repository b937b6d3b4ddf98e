"""Watched prompts: a handful whose replies you read at every checkpoint, some with an answer that is pinned.

The verdict files hold the transcripts. A pinned answer that was right at the baseline may not be lost. Make the list
your own: `data/watched.jsonl` has a prompt, and under `says` what must occur in the reply (nothing, where you only want
to read along). What you pin stands in the gate, by id.
"""

from runner import probe

PINNED = ["li-bai", "li-bai-years", "capital-zh", "capital-en", "sum-zh", "sum-en", "days", "translate"]


@probe(cases="data/watched.jsonl", prompt="{{ prompt }}", max_new_tokens=256, gate={"pinned": PINNED})
def test_watched(case, reply):
    """Every piece of the answer occurs in the reply, in capitals or not."""
    missing = [text for text in case.says if text.lower() not in reply.lower()]
    assert not missing
