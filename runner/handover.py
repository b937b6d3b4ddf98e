"""What a stage makes of the adapter it starts from, and which parameters it trains: in words, for the plan."""

from __future__ import annotations

from pathlib import Path

from runner import loadable, spec


def words(recipe: spec.Recipe, stage: str, root: Path) -> tuple[str, ...]:
    """A line about the adapters of a stage, and one about what it freezes; none where it trains all its weights.

    Args:
        recipe: the whole recipe.
        stage: a name in it.
        root: where relative paths start.
    """
    block = recipe.stages[stage]
    return tuple(line for line in (_adapter(recipe, stage, root), _parameters(block)) if line)


def _adapter(recipe: spec.Recipe, stage: str, root: Path) -> str:
    block = recipe.stages[stage]
    handed = recipe.handover(stage, lambda place: loadable.is_adapter(root / place))
    start = block.from_ or recipe.model.path or "a new model"
    if handed == "continue":
        return f"from {start}, adapter continued"
    merged = f"from {start}, adapter merged" if handed == "merge" else ""
    if block.lora is None:
        return merged
    return f"{merged or f'from {start}'}; a new adapter, {_shape(block.lora)}"


def _shape(lora: spec.Lora) -> str:
    said = [f"r {lora.r}", f"alpha {lora.alpha:g}", f"on {', '.join(lora.targets)}"]
    said += [word for word, is_so in (("rsLoRA", lora.use_rslora), ("DoRA", lora.use_dora)) if is_so]
    said += [f"a base in {lora.quantize}"] if lora.quantize else []
    return ", ".join(said)


def _parameters(block: spec.Stage) -> str:
    if block.freeze:
        return f"not trained: {', '.join(block.freeze)}"
    return f"trained alone: {', '.join(block.train_only)}" if block.train_only else ""
