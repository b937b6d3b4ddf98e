"""Makes a source checkout behave like an installed one: `pytest probes --ckpt …` works without `pip install`."""

import pytest


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the plugin, where its entry point did not; pytest then calls its own `pytest_addoption`."""
    if not pluginmanager.has_plugin("recipe"):
        from runner.probing import plugin

        pluginmanager.register(plugin, "recipe")
