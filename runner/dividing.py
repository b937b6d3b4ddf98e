"""How a global batch is divided among processes, and which values can be."""

from __future__ import annotations


def divides(batch: int, processes: int) -> bool:
    """Whether each of the processes gets as many rows of a global batch as the others."""
    return batch % processes == 0


def batches(batch: int, processes: int) -> tuple[int, ...]:
    """The nearest global batch sizes, below and above, that so many processes can share."""
    below = batch // processes * processes
    return tuple(size for size in (below, below + processes) if size > 0)


def process_counts(batch: int, processes: int) -> tuple[int, ...]:
    """The numbers of processes nearest to this one, below and above, that can share a global batch."""
    fitting = [count for count in range(1, batch + 1) if batch % count == 0]
    below = [count for count in fitting if count <= processes]
    return (*below[-2:], *[count for count in fitting if count > processes][:2])


def most_sharing(batch: int, processes: int) -> int:
    """How many of the processes can share a global batch, at most."""
    return max(count for count in range(1, min(batch, processes) + 1) if batch % count == 0)


def which_can(batch: int, processes: int) -> str:
    """`1150 or 1155, which 5 processes can share; or 3, 4, 6 or 8 processes`."""
    counts = process_counts(batch, processes)
    sizes = " or ".join(map(str, batches(batch, processes)))
    said = f"{', '.join(map(str, counts[:-1]))} or {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{sizes}, which {processes} processes can share; or {said} process{'es' if counts[-1] > 1 else ''}"
