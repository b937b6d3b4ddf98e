"""Repetition: does the model loop, and does it end its replies? A gate bounds `word_seq_rep_4`; no end is a miss.

Greedy decoding shows a model's loops best. `test_repetition_penalised.py` asks the same with a repetition penalty: what
is well there and not here was mended in decoding, not in the model.
"""

from runner import probe, repetition


@probe(
    cases="data/repetition.jsonl",
    prompt="{{ prompt }}",
    max_new_tokens=256,
    gate={"word_seq_rep_4": {"max_mean": 0.2}},
    pooled={"pooled_seq_rep_4": repetition.pooled_seq_rep, "pooled_distinct_2": repetition.pooled_distinct},
)
def test_no_loop(reply, record):
    """Over characters, over words (Chinese has no spaces: a Han character is one), and over tokens."""
    record(**repetition.measures(reply, reply.tokens), never_stops=reply.stop_reason == "length")
    assert reply.stop_reason != "length", "it did not end its reply"
