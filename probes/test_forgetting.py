"""Forgetting, answers: is what the model knew when a stage began still known when it ends?

Closed questions that everybody can answer, continued as they are written and never through a chat template, so that a
base model and the chat model made from it are asked the same. Nothing is generated: it is quick enough for every
checkpoint. `test_forgetting_texts.py` asks the same of plain texts, by their perplexity.
"""

from runner import probe


@probe(
    cases="data/forgetting.jsonl",
    prompt="{{ prompt }}",
    raw=True,
    choices="{{ choices }}",
    answer="{{ answer }}",
    gate={"max_regression": "significant"},
)
def test_knows(case, reply):
    """In Chinese and English; a guess is right in one of four cases."""
    assert reply == case.answer
