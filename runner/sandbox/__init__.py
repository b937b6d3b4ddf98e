"""Jinja for templates of strangers: it reaches nothing but its values, and none can run away with time or memory.

jinja2's own sandbox keeps a template from the internals of Python. It does not keep it from `'a' * 10**9`, from loops
in loops, or from a text that doubles itself forty times. Here every rendering has a budget of steps, and each loop,
call, filter and text is charged before it is done. No clock is asked: a template ends at the same place on every
machine.
"""

from runner.sandbox.rendering import COMPILING, FAILURES, MAX_SOURCE, MAX_STEPS, RanAway, Sandbox, reason

__all__ = ["COMPILING", "FAILURES", "MAX_SOURCE", "MAX_STEPS", "RanAway", "Sandbox", "reason"]
