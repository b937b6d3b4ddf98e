"""The rows that only terms against forgetting read, `kl: {data: …}` and `ewc: {data: …}`, as epochs of their own."""

from __future__ import annotations

from runner import spec
from runner.data.chat import ChatTemplate
from runner.data.datasets import Datasets
from runner.data.epochs import Epochs, encoding_of
from runner.data.token_store import Kept
from runner.data.tokenizer import Fast


def penalty_epochs(
    recipe: spec.Recipe, name: str, data: Datasets, tokenizer: Fast, chat: ChatTemplate | None, kept: Kept | None = None
) -> dict[str, Epochs]:
    """For each of the stage's `penalty_data`, its rows; they are written and masked as the stage's own would be, but
    neither mixed nor packed.

    Raises:
        BadData: a data set cannot be read.
    """
    stage = recipe.stages[name]
    if not isinstance(stage, spec.Causal):
        return {}
    how = encoding_of(stage, chat)
    return {
        penalty: Epochs([data.get(ref) for ref in refs], tokenizer, recipe.seed, how, kept=kept)
        for penalty, refs in stage.penalty_data.items()
    }
