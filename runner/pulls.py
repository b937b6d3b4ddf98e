"""What pulls a stage back to where it starts, in words, for the plan."""

from __future__ import annotations

from collections.abc import Mapping

from runner import spec


def words(stage: spec.Stage, total_steps: int, rows: Mapping[str, int]) -> tuple[str, ...]:
    """A line for each term against forgetting; none where there is none.

    Args:
        stage: its block.
        total_steps: that it takes.
        rows: of the data sets that each of `stage.penalty_data` names, how many there are.
    """
    if not isinstance(stage, spec.Causal):
        return ()
    said = []
    if (kl := stage.kl) is not None and kl.data is None:
        said.append(f"kl {kl.weight:g}: compared with the start on the tokens that are learned")
    elif kl is not None and kl.data is not None:
        each = kl.rows or stage.global_batch_size
        passes = each * total_steps / max(rows["kl"], 1)
        said.append(
            f"kl {kl.weight:g}: compared with the start on {each:,} rows a step of {', '.join(kl.data)}, "
            f"{passes:.1f} passes over {rows['kl']:,}"
        )
    if (ewc := stage.ewc) is not None:
        measured = min(ewc.rows, rows["ewc"])
        said.append(
            f"ewc {ewc.weight:g}: what matters is measured on {measured:,} of {rows['ewc']:,} rows of "
            f"{', '.join(ewc.data)}"
        )
    return tuple(said)
