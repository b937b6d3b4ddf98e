"""A recipe file → the checked `spec.Recipe` it says, with the position of everything in it."""

from runner.recipe.layers import project_root
from runner.recipe.loading import Draft, Loaded, draft, dump, load, schema

__all__ = ["Draft", "Loaded", "draft", "dump", "load", "project_root", "schema"]
