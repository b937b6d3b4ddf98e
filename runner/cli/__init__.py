"""The command `recipe`: arguments in, exit code out. Each command imports what it needs when it is called."""

from runner.cli import asking, beginning, looking, training
from runner.cli.root import cli, main

__all__ = ["asking", "beginning", "cli", "looking", "main", "training"]
