"""A recipe on one process, on two, and on two with DeepSpeed: the same losses, the same skill, checkpoints that load.

    python tests/bench/processes.py                                     # the demo, whole: hours on two cores
    python tests/bench/processes.py --ways 1 2 zero2 zero3 offload --out results/processes
    python tests/bench/processes.py --stages base --suites strokes --set stages.base.max_steps=60    # minutes

Each way is a `recipe run` into a folder of its own; what is there is not run again. Every loss is recorded. Bar: over
the first 30 steps of the first stage no way's losses differ from one process by more than 1e-4, the pass rates at the
end lie in each other's Wilson intervals, and every published checkpoint loads with plain transformers. What follows a
first stage starts from weights that rounding has moved apart: its losses are shown and not judged.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from runner import checkpoints, recipe, spec, verdicts
from runner.gate.chance import wilson

ROOT = Path(__file__).parents[2]
BAR, STEPS = 1e-4, 30
WAYS: dict[str, list[str]] = {"1": [], "2": ["--processes", "2"]}
WAYS |= {name: ["--processes", "2", "--deepspeed", name] for name in spec.DEEPSPEED}
SAID = {"1": "1 process", "2": "2, data parallel"} | {name: f"2, {name}" for name in spec.DEEPSPEED}
LOADS = """
import sys, torch, transformers
for path in sys.argv[1:]:
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters()), path
"""


@dataclass(frozen=True)
class Found:
    """What one way came to."""

    losses: dict[str, dict[int, float]]
    """By stage and step."""
    rates: dict[str, tuple[int, int]]
    """By suite: passed and asked at the last checkpoint of the last stage that asks it."""
    loads: int
    """Checkpoints that plain transformers loads."""
    published: int
    wall_s: float


def main() -> int:
    options = _options()
    ways = [way for way in options.ways if way in ("1", "2") or importlib.util.find_spec("deepspeed")]
    for way in set(options.ways) - set(ways):
        print(f"{SAID[way]}: left out, deepspeed is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.out or temporary).resolve()
        path = _cut(options, folder)
        found = {way: _run(way, path, folder / way) for way in ways}
    return _print_table(found)


def _cut(options: argparse.Namespace, folder: Path) -> Path:
    """The recipe with every loss recorded, and only the stages that were asked for: a file of its own, read by all."""
    loaded = recipe.load(ROOT / options.recipe, options.set, ROOT)
    values = dict(yaml.safe_load(recipe.dump(loaded)))
    kept = options.stages or list(values["stages"])
    values["stages"] = {name: {**values["stages"][name], "logging_steps": 1} for name in kept}
    if options.suites:
        values["probes"] = {name: values["probes"][name] for name in options.suites}
        values.pop("best" if values.get("best") not in options.suites else "", None)
    for suite in values.get("probes", {}).values():
        asked = suite.get("stages", kept)
        suite["stages"] = [name for name in ([asked] if isinstance(asked, str) else asked) if name in kept] or kept[-1:]
    if options.stages or options.suites:
        values.pop("result", None)
    folder.mkdir(parents=True, exist_ok=True)
    written = ROOT / "results" / f"{loaded.spec.recipe}.processes.yaml"
    written.parent.mkdir(exist_ok=True)
    written.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return written


def _run(way: str, path: Path, out: Path) -> Found:
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("recipe")), "run", str(path), "--out", str(out), *WAYS[way]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{SAID[way]} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    wall_s = time.monotonic() - began
    stages = list(recipe.load(out / "recipe.yaml", root=ROOT).spec.stages)
    folders = [found for stage in stages for _, found in checkpoints.published(out / stage)]
    loaded = subprocess.run([sys.executable, "-c", LOADS, *folders], capture_output=True, text=True, check=False)
    if loaded.returncode:
        print(f"{SAID[way]}: {loaded.stderr.splitlines()[-1]}")
    loads = 0 if loaded.returncode else len(folders)
    return Found({stage: _losses(out, stage) for stage in stages}, _rates(out, stages), loads, len(folders), wall_s)


def _losses(run: Path, stage: str) -> dict[int, float]:
    lines = (run / "events" / f"train-{stage}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def _rates(run: Path, stages: list[str]) -> dict[str, tuple[int, int]]:
    rates: dict[str, tuple[int, int]] = {}
    for stage in stages:
        *_, (_, last) = checkpoints.published(run / stage)
        path = checkpoints.verdict_path(last)
        file = verdicts.read(path) if path.is_file() else None
        for suite in file.suites if file else ():
            asked = [row for row in file.of(suite.suite) if row.outcome != "not_asked"] if file else []
            rates[suite.suite] = sum(row.outcome == "pass" for row in asked), len(asked)
    return rates


def _apart(one: dict[int, float], other: dict[int, float]) -> float:
    """The largest difference over the first steps that both took."""
    return max(abs(one[step] - other[step]) for step in sorted(one.keys() & other.keys())[:STEPS])


def _print_table(found: dict[str, Found]) -> int:
    first, alone = next(iter(found.values())), next(iter(found))
    stages = list(first.losses)
    head = "".join(f"{stage:>12}" for stage in stages)
    print(f"\nlargest difference of the losses from {SAID[alone]}, over the first {STEPS} steps of each stage")
    print(f"{'':20}{head}{'loads':>10}{'seconds':>10}")
    met = True
    for way, one in found.items():
        apart = [_apart(first.losses[stage], one.losses[stage]) for stage in stages]
        cells = "".join(f"{value:12.1e}" for value in apart)
        print(f"{SAID[way]:20}{cells}{f'{one.loads} of {one.published}':>10}{one.wall_s:10.0f}")
        met = met and apart[0] <= BAR and one.loads == one.published
    print("\npass rates at the last checkpoint that a suite is asked at, with Wilson intervals")
    tells = any(passed for passed, _ in first.rates.values())
    for suite in first.rates:
        for way, one in found.items():
            low, high = wilson(*one.rates[suite])
            inside = low <= first.rates[suite][0] / max(first.rates[suite][1], 1) <= high
            met = met and inside
            rate = one.rates[suite][0] / max(one.rates[suite][1], 1)
            print(f"{suite:20}{SAID[way]:20}{rate:8.1%}  [{low:.1%}-{high:.1%}]{'' if inside else '  apart'}")
    if not tells:
        print("no case passed anywhere: the rates tell nothing; train longer")
    met = met and tells
    print("\nbar met" if met else "\nbar missed")
    return 0 if met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="recipes/zhdict_dpo.yaml")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["1", "2", "zero2", "zero3"])
    parser.add_argument("--stages", nargs="+", help="only these, which need no others; default: all")
    parser.add_argument("--suites", nargs="+", help="only these; default: all")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="as `recipe run` takes it")
    parser.add_argument("--out", help="where the runs are kept; default: nowhere")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
