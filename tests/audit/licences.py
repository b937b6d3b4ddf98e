"""The licences of everything that is installed with this project: each is one of those that let it be used as it is.

Run by `make check`. What a package says of itself counts: `License-Expression`, else its classifiers, else `License`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "recipe-runner"
ALLOWED = re.compile(
    r"\b(?:mit|mit-0|bsd|0bsd|apache|isc|psf|python|mpl-?2|mozilla public license 2|unlicense|zlib|cnri|"
    r"historical permission|hpnd|cc0|public domain)",
    re.IGNORECASE,
)  # fmt: skip
"""Free to use, change and pass on. MPL 2.0 asks for changes of its own files alone."""
REFUSED = re.compile(
    r"\b(?:a?gpl|gnu (?:affero )?general|sspl|busl|proprietary|commercial|non-?commercial)", re.IGNORECASE
)
KNOWN: Mapping[str, str] = {}
"""Packages that say nothing of themselves, or that say it in words of their own, and what their files say."""


def installed(root: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """What a package needs here, itself left out; what is not installed is not asked for on this machine."""
    found: dict[str, Distribution] = {}
    waiting = [(root, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found[canonicalize_name(name)] = made = distribution(name)
        except PackageNotFoundError:
            continue
        for line in made.requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                waiting.append((need.name, frozenset(need.extras)))
    found.pop(canonicalize_name(root), None)
    return found


def licence(package: Distribution) -> str:
    """What a package says of its licence, on one line; empty where it says nothing."""
    about = package.metadata
    if expressions := about.get_all("License-Expression"):
        return str(expressions[0])
    classifiers = [str(text) for text in about.get_all("Classifier", []) if str(text).startswith("License")]
    named = [name for text in classifiers if (name := text.rpartition("::")[2].strip()) != "OSI Approved"]
    own = about.get_all("License", [""])[0]
    return ", ".join(named) or str(own).strip().split("\n")[0][:100]


def faults(packages: Mapping[str, Distribution]) -> Iterator[str]:
    """One line for each package that may not be used as it is, or that does not say so."""
    for name, package in sorted(packages.items()):
        if name.startswith("nvidia-"):
            continue  # proprietary, and what PyPI's torch for CUDA brings; who has such a device takes it from NVIDIA
        said = KNOWN.get(name) or licence(package)
        # of several, joined by OR, one may be chosen
        choices = re.split(r"\s+OR\s+", said)
        if not any(ALLOWED.search(one) and not REFUSED.search(one) for one in choices):
            yield f"{name} {package.version}: {said or 'says nothing of its licence'}"


def main() -> int:
    """Print what is wrong; the exit code is 1 where anything is."""
    packages = installed(PROJECT)
    wrong = list(faults(packages))
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"licences: {len(packages)} packages at run time, {len(wrong)} to be looked at")
    return 1 if wrong or not packages else 0


if __name__ == "__main__":
    sys.exit(main())
