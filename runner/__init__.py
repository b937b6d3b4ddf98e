"""recipe-runner: declared training of language models, with tests for checkpoints.

What a probe file needs is here: ``from runner import probe, repetition``. Nothing heavy is imported.
"""

from runner import repetition
from runner.asking import Case, Reply, probe

__version__ = "0.1.0"
__all__ = ["Case", "Reply", "__version__", "probe", "repetition"]
