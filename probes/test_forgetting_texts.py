"""Forgetting, texts: does the model still predict plain texts as well as when the stage began?

Each text is the single choice of a closed question: its log probability is what is asked for, and nothing is generated.
In a recipe, give it cases of your own, from any data set with prompt and completion: what the first stage learned, say.
"""

import math

from runner import probe


@probe(
    cases="data/forgetting_texts.jsonl",
    prompt="{{ prompt }}",
    raw=True,
    choices=["{{ completion }}"],
    gate={"nll_per_token": {"max_mean_rise": 0.1}},
)
def test_predicts(reply, record):
    """A rise of 0.1 nats per token is a perplexity about 10 % higher.

    Perplexity is exp(nll_per_token), and comparable within one tokenizer; bits_per_char is so across tokenizers.
    """
    record(
        nll_per_token=-reply.logprob / len(reply.tokens),
        bits_per_char=-reply.logprob / math.log(2) / len(reply),
    )
