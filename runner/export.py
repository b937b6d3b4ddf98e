"""`recipe export`: a checkpoint as whole weights that load anywhere, asked once more before it is given away.

Of a checkpoint of a run, `README.md` beside them is a model card (`runner.model_card`)."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from runner import checkpoints, comparing, launch, loadable, model_card, tables, underway, verdicts
from runner.atomic import publish_text
from runner.checkpoints import MANIFEST, Parent
from runner.children import EXIT_LATE, Child, Host, late_path
from runner.comparing import Compared
from runner.comparing.sides import Side
from runner.data import chat
from runner.errors import EXIT_USER_ERROR, BadCheckpoint, FolderTaken, TrainingFailed, UserError, printable
from runner.folder import check_inside
from runner.gate import Decision
from runner.hosting import Hosting
from runner.preparation import visible_gpus
from runner.prober import innermost
from runner.probing.targets import Run, Target, find
from runner.refused import gave_out
from runner.standings import Checkpoint

EXPORTS = "exports"
"""In the folder of a run: where its checkpoints are exported to, where nothing else is said."""
VERDICTS = "probes.jsonl"
"""In an exported folder: what it was asked."""
_LOOK_EVERY_S = 0.05
_PROBING = "probing the exported weights"


@dataclass(frozen=True)
class Exported:
    """What was written, and what it answers."""

    folder: Path
    of: str
    """The checkpoint, as the user gave it or as its run calls it."""
    merged: bool
    """Whether it was an adapter."""
    size_bytes: int
    decisions: tuple[Decision, ...]
    """Of the suites that its run asks there; none where it belongs to no run, or that asks nothing there."""
    compared: Compared | None
    """The exported weights against the checkpoint itself; None where that was not asked."""

    @property
    def is_red(self) -> bool:
        """Whether a gate is red."""
        return any(decision.green is False for decision in self.decisions)


def export(given: str, out: Path | None, where: Path) -> Exported:
    """Write the checkpoint that `given` means, an adapter merged into its base, and ask it what its run asks there.

    Args:
        given: a checkpoint's folder, as for `--ckpt`.
        out: the folder to make; `RUN/exports/STAGE-N` where there is a run, else the checkpoint's with `-exported`.
        where: the working folder.

    Raises:
        UserError: it is no checkpoint, a file of it is a link that leads elsewhere, or `out` is there already.
        TrainingFailed: it could not be merged or asked; nothing is left behind.
    """
    target = _only(given, where)
    _check_links(target.path)
    if out is None and target.run is not None:
        check_inside(target.run.folder)
    folder = (where / out if out is not None else _default(target)).resolve()
    if folder.exists():
        raise FolderTaken(
            f"{os.path.relpath(folder, where)} is there already, and is not overwritten",
            hint="give another folder with --out, or remove this one",
        )
    with (
        _workplace(folder) as work,
        Hosting(where, work / "host.log", preferences=False, gpus=visible_gpus()) as hosting,
    ):
        merged = loadable.is_adapter(target.path)
        staged = work / "whole"
        if merged:
            host = hosting.start(launch.EXPORTER)
            argv = [str(target.path), str(staged)]
            _wait(host, host.start("export", argv, work / "export.log"), "merging", (0,))
        else:
            checkpoints.check(target.path)
            _copy(target.path, staged)
        decisions: tuple[Decision, ...] = ()
        compared: Compared | None = None
        if target.run is not None and target.at is not None:
            staged = _as_in_run(target, target.run, target.at, staged, work, folder)
            if suites := target.run.recipe.asked_at(target.at.stage):
                file = _asked(hosting.start(launch.PROBER), target.run, staged, suites, work)
                decisions, compared = _judged(target.run, target.at, file)
                verdicts.write(staged / VERDICTS, file)
            about = _subject(target.run, target.path, staged, merged, decisions, compared)
            publish_text(staged / model_card.FILE, model_card.card(about))
        size = sum(file.stat().st_size for file in staged.iterdir())
        staged.replace(folder)
    return Exported(folder, target.name, merged, size, decisions, compared)


def _only(given: str, where: Path) -> Target:
    found = find([given], where, where)
    if len(found) != 1:
        names = ", ".join(os.path.relpath(target.path, where) for target in found[:4])
        raise UserError(f"{given} holds {len(found)} checkpoints", expected="one of them", hint=f"for example {names}")
    problem = found[0].problem or _base_problem(found[0].path)
    if problem:
        raise BadCheckpoint(f"{given}: {problem}")
    return found[0]


def _base_problem(path: Path) -> str:
    """What is wrong with the base that an adapter names, as far as that shows without loading it."""
    base = loadable.base_of(path) if loadable.is_adapter(path) else path
    if isinstance(base, Path) or (base and not base.startswith((".", "/")) and base.count("/") < 2):
        return ""
    return f"its base {base} is not there" if base else f"{loadable.ADAPTER} does not say what its base is"


def _check_links(path: Path) -> None:
    """Refuse to give away what lies outside of the checkpoint, or of the base that is merged into it: who made a
    checkpoint may have left a link to a file of whoever exports it. In a hub's cache every file is a link, to `blobs/`.

    Raises:
        BadCheckpoint: a file that would be read is such a link.
    """
    base = loadable.base_of(path) if loadable.is_adapter(path) else None
    for folder in (path, base) if isinstance(base, Path) else (path,):
        whole = folder.resolve()
        own = [whole, *([whole.parents[1] / "blobs"] if whole.parent.name == "snapshots" else [])]
        for file in loadable.files(folder):
            if file.is_symlink() and not any(file.resolve().is_relative_to(place) for place in own):
                raise BadCheckpoint(
                    f"{file} is a link to {file.resolve()}, outside of the checkpoint",
                    expected="files of its own: an export is made to be given away",
                    hint="where that file belongs to it, put a copy in the place of the link",
                )


def _default(target: Target) -> Path:
    if target.run is not None and target.at is not None:
        return target.run.folder / EXPORTS / f"{target.at.stage}-{target.at.step}"
    return target.path.with_name(f"{target.path.name}-exported")


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder beside the one that is made, which is gone at the end, whatever happens."""
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
    except OSError as error:
        if gave_out(error):
            raise
        raise FolderTaken(f"{folder} cannot be made: {error.strerror}", hint="give another one with --out") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """The files that loading reads."""
    target.mkdir()
    for file in loadable.files(source):
        if file.name not in (MANIFEST, loadable.TRAINER_STATE):
            shutil.copy2(file, target / file.name)


def _wait(host: Host, child: Child, what: str, fine: Sequence[int]) -> None:
    try:
        with underway.work(what), child.relay() as relay:
            while child.exit_code is None:
                host.poll(_LOOK_EVERY_S)
                relay.look()
    except BaseException:
        host.signal(child, signal.SIGKILL)
        raise
    if child.exit_code == EXIT_USER_ERROR:
        raise UserError(child.log_tail())
    if child.exit_code not in fine:
        raise TrainingFailed(f"{what} {child.how_it_ended()}; the end of its log:\n{child.log_tail()}")


def _as_in_run(target: Target, run: Run, at: Checkpoint, staged: Path, work: Path, folder: Path) -> Path:
    """The same files where a run would have them, so that its suites, with its cases, can be asked of them.

    The manifest that comes with them names the checkpoint as their parent, from `folder`, where they will lie.
    """
    manifest = checkpoints.read_manifest(target.path)
    for name in ("run.json", "recipe.yaml"):
        shutil.copy2(run.folder / name, work / name)
    (work / "data").symlink_to(run.folder / "data", target_is_directory=True)
    about = asdict(manifest)
    for name in ("files", "weights_sha256", "base"):
        del about[name]
    about["parent"] = Parent(manifest.label, os.path.relpath(target.path, folder), manifest.weights_sha256)
    place = work / at.stage / at.path.name
    checkpoints.publish(staged, place, **about)
    return place


def _asked(host: Host, run: Run, staged: Path, suites: Sequence[str], work: Path) -> verdicts.VerdictFile:
    files = list(dict.fromkeys(str(run.root / run.recipe.probes[name].file) for name in suites))
    fresh = work / "verdicts.jsonl"
    argv = launch.probe_argv(staged, files, suites, fresh, run.root)
    limit_s = sum(run.recipe.probes[name].timeout_s for name in suites)
    child = host.start("probe", argv, work / "probe.log", limit_s=limit_s)
    _wait(host, child, _PROBING, (0, 1, 5, EXIT_LATE))
    if child.exit_code == EXIT_LATE:
        raise TrainingFailed(_too_late(run, child, late_path(fresh)))
    if not fresh.is_file():
        raise TrainingFailed(f"{_PROBING} gave no verdicts; the end of its log:\n{child.log_tail()}")
    return verdicts.read(fresh)


def _too_late(run: Run, child: Child, late: Path) -> str:
    """Which suite did not end within its `timeout_s`, as far as its prober could say."""
    suite = late.read_text(encoding="utf-8") if late.is_file() else ""
    how = child.how_it_ended()
    if suite in run.recipe.probes:
        how = f"did not end within the timeout_s of suite {suite}, {run.recipe.probes[suite].timeout_s:,g} s"
    frames = innermost(child)  # its log is gone in a moment
    return f"{_PROBING} {how}; " + (f"where it was:\n{frames}" if frames else f"its log:\n{child.log_tail()}")


def _judged(run: Run, at: Checkpoint, file: verdicts.VerdictFile) -> tuple[tuple[Decision, ...], Compared | None]:
    """What the run's gates say of it, as if it were the checkpoint itself; and what it answers otherwise than that."""
    own = run.standings.verdicts(at)
    decisions = run.standings.judge(at, file)
    common = own is not None and any(own.asked(asked.suite) for asked in file.suites)
    if own is None or not common:
        return decisions, None
    return decisions, comparing.compare(Side(at.label, own), Side("exported", file))


def _subject(
    run: Run, checkpoint: Path, staged: Path, merged: bool, decisions: Sequence[Decision], compared: Compared | None
) -> model_card.Subject:
    pairs = [suite.comparison for suite in compared.suites] if compared is not None else []
    changed = sum(len(pair.lost) + len(pair.gained) for pair in pairs)
    return model_card.Subject(
        run.folder, run.root, run.recipe, run.record, checkpoints.read_manifest(checkpoint), merged,
        chat.own(staged) is not None, decisions, None if compared is None else changed,
    )  # fmt: skip


def screen(exported: Exported, where: Path) -> RenderableType:
    """What was written, what its gates say, and every case that it answers otherwise than the checkpoint does."""
    done = "merged and exported" if exported.merged else "exported"
    size = f"{exported.size_bytes / 2**20:,.1f} MiB"
    place = os.path.relpath(exported.folder, where)
    parts: list[RenderableType] = [Text(printable(f"{exported.of}: {done} to {place}, {size}"), style=tables.MARK)]
    if not exported.decisions:
        parts.append(Text("it was asked nothing: it belongs to no run that asks there", style=tables.DIM))
        parts.append(Text(f"ask it: pytest probes --ckpt {place}", style=tables.DIM))
    for decision in exported.decisions:
        parts += tables.decision_lines(decision)
    if exported.compared is not None:
        parts.append(_flips(exported.compared, exported.of))
    return Group(*parts)


def _flips(compared: Compared, of: str) -> RenderableType:
    lost = [(suite.suite, flip) for suite in compared.suites for flip in suite.comparison.lost]
    gained = sum(len(suite.comparison.gained) for suite in compared.suites)
    if not lost and not gained:
        return Text(f"every verdict is the one of {of}", style=tables.GOOD)
    head = Text(f"against {of}: {len(lost)} lost, {gained} gained", style=tables.BAD)
    lines = [line for suite, flip in lost for line in tables.flip_lines(suite, [flip], 1)]
    return Group(head, *lines)
