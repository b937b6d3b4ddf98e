"""Repetition: does the model loop? Gates bound `seq_rep_4`; a reply that never ends is a miss."""

from runner import probe, repetition


@probe(cases="data/watched.jsonl", prompt="{{ prompt }}", max_new_tokens=128, gate={"seq_rep_4": {"max_mean": 0.2}})
def test_no_loop(reply, record):
    """Characters, not words: Chinese has no spaces."""
    record(
        seq_rep_4=repetition.seq_rep(reply, n=4, unit="char"),
        distinct_2=repetition.distinct(reply, n=2, unit="char"),
        looping_tail=repetition.looping_tail(reply, unit="char"),
    )
    assert reply.stop_reason == "eos", "it did not end its reply"
