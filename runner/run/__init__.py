"""A run: for each stage train, probe every checkpoint, judge its gates, hand over; then the result.

Everything that happened is in the run folder, and everything here is decided from it: a stage that is done is skipped,
one that was interrupted resumes, one whose inputs changed is moved to `superseded/` and trained again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from runner import launch, locked, recipe, spec
from runner.folder import Superseded, check_inside, check_owner, writing
from runner.hosting import Hosting
from runner.joining import join
from runner.nodes import ALONE, Node
from runner.preparation import Prepared, check_here, run_record, visible_gpus
from runner.prober import Prober, held
from runner.progress import Screen
from runner.recipe import Loaded
from runner.run.session import Session
from runner.standings import Checkpoint, Standings


def run(loaded: Loaded, out: Path, screen: Screen, *, only_as_locked: bool = False, node: Node = ALONE) -> int:
    """Run a recipe into `out`; the exit code is that of its result's gates.

    Args:
        only_as_locked: refuse where data, versions or the recipe differ from those of the run in `out`.
        node: which machine of how many this is; the first one.

    Raises:
        UserError: what was asked for cannot be done; raised before anything trains.
        TrainingFailed: a child died; what was won is kept.
        Interrupted: state is saved, the same call resumes.
    """
    prepared = Prepared(loaded, out)
    check_free(prepared)

    def check() -> None:
        check_here(prepared)
        if only_as_locked:
            check_locked(prepared)

    if node.count == 1:
        with screen.waiting():
            check()  # else once the other nodes hear of it: they would wait for one that has left
    with hosting_of([loaded], out / "events" / "host.log", node) as hosting:
        later = check if node.count > 1 else None
        return run_prepared(prepared, screen, hosting, out, digest_of([loaded]), later)


def run_prepared(
    prepared: Prepared,
    screen: Screen,
    hosting: Hosting,
    folder: Path,
    digest: str,
    check: Callable[[], None] | None = None,
) -> int:
    """The same, with a host that may serve several recipes, into a folder that is free.

    Args:
        prepared: the recipe, its data and its folder.
        screen: shows what happens.
        hosting: forks trainers and probers.
        folder: of the command's results, in which other nodes look.
        digest: of all that the command runs.
        check: what is left to check once other nodes hear of this one.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(writing(prepared.run))
        if prepared.recipe.launch.probing != "elsewhere":
            stack.enter_context(held(prepared.run))
        hosting.lead(folder, digest)
        if check is not None:
            check()
        return Session(prepared, stack.enter_context(screen), stack, hosting, began).run()


def check_free(prepared: Prepared) -> None:
    """Whether the folder is this recipe's, or nobody's.

    Raises:
        FolderTaken: it is another one's.
    """
    loaded = prepared.loaded
    check_owner(prepared.run, loaded.spec.recipe, os.path.relpath(loaded.path, loaded.root), loaded.variant)


def unasked(prepared: Prepared) -> list[Checkpoint]:
    """The checkpoints of a finished run that others have still to ask (`launch.probing: elsewhere`)."""
    loaded, run = prepared.loaded, prepared.run
    if loaded.spec.launch.probing != "elsewhere":
        return []
    return Prober(loaded.spec, loaded.root, run, Standings(loaded.spec, run), Superseded(run)).unasked()


def check_locked(prepared: Prepared) -> None:
    """Whether the recipe, the data and what is installed are those of the run that `run.json` records.

    Raises:
        UserError: they are not, and which.
    """
    locked.check(prepared.run, run_record(prepared, looks=0), prepared.loaded.values)


def hosting_of(recipes: Sequence[Loaded], log: Path, node: Node = ALONE) -> Hosting:
    """The host for the stages of these recipes, which is not started yet."""
    gpus = visible_gpus()
    preferences = any(isinstance(stage, spec.Dpo) for one in recipes for stage in one.spec.stages.values())
    several = any(launch.processes(one.spec.launch, gpus) > 1 for one in recipes)
    return Hosting(recipes[0].root, log, preferences=preferences, gpus=gpus, several=several, node=node)


def join_run(recipes: Sequence[Loaded], out: Path, node: Node, tell: Callable[[str], None]) -> int:
    """The same command on a node that does not lead: see `joining.join`."""
    check_inside(out)
    log = out / "nodes" / f"host-{node.rank}.log"
    return join(out, node, hosting_of(recipes, log, node), digest_of(recipes), tell)


def digest_of(recipes: Sequence[Loaded]) -> str:
    """Of what a command runs, by which nodes that join late know a run that is finished."""
    return hashlib.sha256("\n".join(recipe.dump(one) for one in recipes).encode()).hexdigest()
