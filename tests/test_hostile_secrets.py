"""Secrets come from the environment and go nowhere else: planted ones are looked for in all that is written."""

from pathlib import Path

import pytest

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner import report
from tests import in_process, recorded_run, tiny_project
from tests.servers import Asked, Reply, chat, models, scripted

pytest_plugins = ["pytester"]

PLANTED = {
    "OPENAI_API_KEY": "sk-planted-openai-0123456789",
    "HF_TOKEN": "hf_plantedhubtoken0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_plantedoldtoken0123456789",
    "WANDB_API_KEY": "planted0wandb0key0123456789012345678901",
    "COMET_API_KEY": "plantedcometkey0123456789",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret/0123456789",
}
PROBE = """
from runner import probe

@probe(cases=[{"id": n} for n in "abc"], prompt="{{ id }}", gate={"min_pass_rate": 0.9})
def test_said(reply):
    print(reply)
    assert reply == "x", reply
"""


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in PLANTED.items():
        monkeypatch.setenv(name, secret)


def assert_nothing_holds_a_secret(folder: Path, *shown: str) -> None:
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts |= {f"screen {number}": text.encode() for number, text in enumerate(shown)}
    assert len(texts) > 3
    found = [
        (name, place) for name, secret in PLANTED.items() for place, text in texts.items() if secret.encode() in text
    ]
    assert found == []


def test_the_folder_of_a_run_holds_no_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "p"
    written = tiny_project.write_project(root)
    prepared = in_process.prepare(
        written, root / "results" / "run", "stages.base.max_steps=2", "stages.base.save_strategy='no'"
    )
    in_process.train(prepared, "base")
    assert_nothing_holds_a_secret(root, *capfd.readouterr())


def test_a_report_holds_no_secret(tmp_path: Path) -> None:
    run = recorded_run.write_run_folder(tmp_path / "p", 2, 5)
    report.write([run])
    assert_nothing_holds_a_secret(run)


def test_a_server_that_says_the_key_again_gets_it_into_nothing(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(asked: Asked) -> Reply:
        if asked.path.endswith("/models"):
            return models("m")
        heard = asked.headers["authorization"]
        return (
            Reply({"error": f"not {heard}"}, 400) if "b" in str(asked.body["messages"]) else chat(f"you sent {heard}")
        )

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path / "summary.md"))
    (project.path / "probes" / "test_p.py").write_text(PROBE, encoding="utf-8")
    with scripted(echo) as server:
        options = ["--probe-endpoint", server.url, "--probe-verdicts", "v.jsonl", "--junitxml", "j.xml", "-rA", "-vv"]
        done = project.runpytest_inprocess("probes", *options, "--log-level", "DEBUG", "-o", "junit_logging=all")
    assert server.asked[-1].headers["authorization"] == f"Bearer {PLANTED['OPENAI_API_KEY']}"
    assert "you sent Bearer ***" in (project.path / "v.jsonl").read_text(encoding="utf-8")
    assert_nothing_holds_a_secret(project.path, done.stdout.str(), done.stderr.str())
