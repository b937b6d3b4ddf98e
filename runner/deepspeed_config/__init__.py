"""The DeepSpeed configuration of a stage: written from the recipe, or a file's, which must say what the recipe says.

What is learned is the recipe's to say: batch sizes, clipping, precision, optimizer and schedule. DeepSpeed's own is how
weights, gradients and optimizer states are divided among processes (ZeRO, Rajbhandari et al. 2020, arXiv:1910.02054).
"""

from runner.deepspeed_config.agreement import problems
from runner.deepspeed_config.limits import refused
from runner.deepspeed_config.making import FILE, check_installed, check_resumes, configuration, kept, write

__all__ = ["FILE", "check_installed", "check_resumes", "configuration", "kept", "problems", "refused", "write"]
