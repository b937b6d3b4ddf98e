"""A recipe file → the checked `spec.Recipe` it says, with the position of everything in it."""

from runner.recipe.json_schema import schema
from runner.recipe.layers import project_root
from runner.recipe.loading import Draft, Loaded, drafts, dump, load, loaded
from runner.recipe.variants import merged

__all__ = ["Draft", "Loaded", "drafts", "dump", "load", "loaded", "merged", "project_root", "schema"]
