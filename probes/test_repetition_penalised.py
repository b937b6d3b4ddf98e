"""Repetition once more, with a repetition penalty of 1.2 (Keskar et al. 2019, arXiv:1909.05858).

Beside `test_repetition.py`: a loop that only shows there was mended in decoding; the model still has it. What improves
in both was mended in the model.
"""

from runner import probe, repetition


@probe(
    cases="data/repetition.jsonl",
    prompt="{{ prompt }}",
    max_new_tokens=256,
    repetition_penalty=1.2,
    gate={"word_seq_rep_4": {"max_mean": 0.2}},
    pooled={"pooled_seq_rep_4": repetition.pooled_seq_rep, "pooled_distinct_2": repetition.pooled_distinct},
)
def test_no_loop_penalised(reply, record):
    """Over characters, over words (Chinese has no spaces: a Han character is one), and over tokens."""
    record(**repetition.measures(reply, reply.tokens), never_stops=reply.stop_reason == "length")
    assert reply.stop_reason != "length", "it did not end its reply"
