"""Known vulnerabilities of the pinned versions, asked of OSV (https://osv.dev) in one request by `make audit`.

Advisories appear without a commit. So `make check` says what is known, or that nobody could be asked, and stays green;
`make audit` (`--strict`) fails in both cases.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

ADDRESS = "https://api.osv.dev/v1/querybatch"
PINS = Path(__file__).parents[2] / "constraints.txt"
ACCEPTED: dict[str, str] = {}
"""Ids that do not touch how a package is used here, and why."""
_WAIT_S = 10.0
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)


def ask(pins: list[tuple[str, str]], address: str) -> dict[str, list[str]]:
    """The ids of what is known of each pinned version, of those of which something is.

    Raises:
        OSError: the address cannot be reached.
        ValueError: what it says is no answer.
    """
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in pins]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=_WAIT_S) as answer:
        results = json.loads(answer.read(2**24))["results"]
    if len(results) != len(pins):
        raise ValueError(f"{len(results)} answers to {len(pins)} questions")
    found = {}
    for (name, version), result in zip(pins, results, strict=True):
        if ids := [one["id"] for one in result.get("vulns", ()) if one["id"] not in ACCEPTED]:
            found[f"{name} {version}"] = ids
    return found


def main(arguments: list[str]) -> int:
    """Print what is known; the exit code is 0, strictly 1 where anything is or nobody can be asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where anything is known, or nobody can be asked")
    parser.add_argument("--address", default=ADDRESS)
    given = parser.parse_args(arguments)
    pins = _PIN.findall(PINS.read_text(encoding="utf-8"))
    try:
        found = ask(pins, given.address)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"vulnerabilities: NOT CHECKED, {given.address} gave no answer ({error})", file=sys.stderr)
        return int(given.strict)
    for package, ids in found.items():
        print(f"{package}: {', '.join(ids)}", file=sys.stderr)
    print(f"vulnerabilities: {len(pins)} pinned versions asked, {len(found)} of them with something known")
    return int(given.strict and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
