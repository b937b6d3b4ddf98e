"""The audits of `make check`: licences of what is installed, and vulnerabilities where somebody can be asked."""

from importlib.metadata import Distribution, distribution

import pytest

from tests.audit import licences, vulnerabilities
from tests.servers import Reply, free_port, scripted


def test_all_that_is_installed_at_run_time_may_be_used_as_it_is() -> None:
    packages = licences.installed(licences.PROJECT)
    assert {"torch", "transformers", "jinja2", "markupsafe"} <= packages.keys()
    assert list(licences.faults(packages)) == []


class Said(Distribution):
    """A package that says this of its licence."""

    def __init__(self, **about: str) -> None:
        self._text = "Metadata-Version: 2.4\nName: x\nVersion: 1\n" + "".join(
            f"{name.replace('_', '-')}: {value}\n" for name, value in about.items()
        )

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: object) -> None:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("about", "allowed"),
    [
        ({"License_Expression": "Apache-2.0 OR GPL-3.0-only"}, True),
        ({"License_Expression": "GPL-3.0-only"}, False),
        ({"License_Expression": "AGPL-3.0-or-later"}, False),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, True),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, False),
        ({"License": "BSD 3-Clause"}, True),
        ({"License": "CC-BY-NC-4.0"}, False),
        ({}, False),
        ({"License": "NVIDIA Proprietary Software"}, False),
    ],
)
def test_a_licence_is_allowed_where_it_is_known_to_be(about: dict[str, str], allowed: bool) -> None:
    assert (list(licences.faults({"x": Said(**about)})) == []) is allowed


def test_what_torch_for_cuda_brings_is_known() -> None:
    assert list(licences.faults({"nvidia-cublas": Said(License="NVIDIA Proprietary Software")})) == []


def test_pytest_itself_says_its_licence() -> None:
    assert licences.licence(distribution("pytest")) == "MIT"


def test_what_is_known_of_a_pinned_version_is_said_and_fails_the_strict_audit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def osv(asked: object) -> Reply:
        queries = asked.body["queries"]  # type: ignore[attr-defined]
        return Reply(
            {"results": [{"vulns": [{"id": "X-1"}]} if q["package"]["name"] == "torch" else {} for q in queries]}
        )

    with scripted(osv) as server:
        assert [vulnerabilities.main(["--address", server.url, *more]) for more in ([], ["--strict"])] == [0, 1]
    said = capsys.readouterr()
    assert said.err.startswith("torch ")
    assert said.err.count(": X-1\n") == 2


def test_an_audit_that_reaches_nobody_says_so_and_fails_only_where_it_is_strict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert [vulnerabilities.main(["--address", address, *more]) for more in ([], ["--strict"])] == [0, 1]
    assert "NOT CHECKED" in capsys.readouterr().err
