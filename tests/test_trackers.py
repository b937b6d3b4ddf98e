"""runner.trackers: the names that transformers has, and what is installed."""

import pytest

from runner import trackers


def test_the_names_are_those_of_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert sorted(trackers.TRACKERS) == sorted(set(INTEGRATION_TO_CALLBACK) - {"kubeflow"})


def test_what_is_installed_lacks_nothing() -> None:
    assert trackers.missing("tensorboard") is None


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("tensorboard", "pip install 'recipe-runner[trackers]'"),
        ("dagshub", "pip install dagshub mlflow"),
        ("azure_ml", "pip install azureml-core"),
        ("comet_ml", "pip install comet-ml"),
    ],
)
def test_what_is_not_installed_is_answered_with_the_line_that_installs_it(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    assert trackers.missing(name) == line
