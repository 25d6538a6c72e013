"""Runs of `sdfgan train-sdf`: a mesh, or many of a folder, some of them together; what fails is listed."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from sdfgan.errors import UserError
from sdfgan.images import warn_if_no_video
from sdfgan.sdf.config import ResolvedSdfConfig, SdfConfig
from sdfgan.sdf.files import SAMPLE_SUFFIX, Case, find_inputs, open_case
from sdfgan.sdf.job import SdfJob, settings_of
from sdfgan.training.checkpoint import Saved, list_checkpoints, read_checkpoint, set_aside_after
from sdfgan.training.config import flag_of
from sdfgan.training.files import FolderLock, FullDisk, parse_json, read_json, write_json
from sdfgan.training.interrupt import resumable
from sdfgan.training.loop import run
from sdfgan.training.progress import announced, progress
from sdfgan.training.ranks import Ranks, process_group
from sdfgan.training.report import REPORT, write_report
from sdfgan.training.run import changed_on_resume, next_run_folder

_SUMMARY, _CONFIG = "summary.json", "config.json"
_CHANGEABLE = {"device", "resume", "output_dir", "together", "checkpoint_seconds"}  # when a run goes on
_PATIENCE = timedelta(days=7)  # of a process that has done its share of a folder


def train(config: SdfConfig) -> dict[str, Any]:
    """Fit what `config` names and return the summary, which is also in the run folder.

    Raises UserError for what cannot be used, and SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the run has
    been saved.
    """
    if config.resume is not None:
        config = _resumed(config, config.resume)
    if config.input is None:
        raise UserError("a mesh, a file of samples or a folder of them must be given (or --resume RUN)")
    source, root = config.input.absolute(), config.output_dir or next_run_folder(Path("runs"), "sdf")
    resolved = dataclasses.replace(config.resolved(), input=source, output_dir=root)
    paths, many = find_inputs(source, root)
    begun = resumable(root, lambda: (root / _CONFIG).exists())
    if resolved.show_vis and resolved.video_frames:
        warn_if_no_video(root / f"turntable.{resolved.video_format}")
    with process_group(torch.device(resolved.device), _PATIENCE) as ranks, begun:
        if many:
            with FolderLock(root) if ranks.first else nullcontext():
                return _train_folder(resolved, source, paths, root, ranks)
        if not ranks.first:
            return {}
        done = _read(root / _SUMMARY)
        if resolved.resume is not None and _is_finished(done):
            print(f"{root}: is finished")
            if not (root / REPORT).exists():  # it was stopped there
                write_report(root)
            return {**done, "folder": str(root)}  # which may have been moved since
        (summary,) = _Group(resolved, paths, [root]).run()
    if "error" in summary:
        raise UserError(summary["error"])
    return summary


class _Group:
    """Meshes that are trained in the same steps, each with its run folder; mostly it is one."""

    def __init__(
        self, config: ResolvedSdfConfig, paths: Sequence[Path], folders: Sequence[Path], catch: bool = False
    ) -> None:
        self.config, self.catch = config, catch
        self.paths, self.folders = list(paths), list(folders)
        self.failed: dict[Path, dict[str, Any]] = {}
        read = ((path, _read(folder / _SUMMARY)) for path, folder in zip(paths, folders, strict=True))
        self.finished = {path for path, summary in read if catch and _is_finished(summary)}
        self.began = time.monotonic()

    def run(self) -> list[dict[str, Any]]:
        """Train and evaluate; the summaries, which are written too. With `catch`, errors become summaries."""
        cases: list[Case] = []
        for path, folder in zip(self.paths, self.folders, strict=True):
            try:
                with announced(f"reading {path}", not self.catch):
                    cases.append(open_case(self.config, path, folder))
            except Exception as error:
                self._fail(path, folder, error)
        alike: dict[int, list[Case]] = {}  # networks of different sizes are not trained in one step
        for case in cases:
            alike.setdefault(settings_of(self.config, case).finest, []).append(case)
        return [summary for some in alike.values() for summary in self._fit(some)] + list(self.failed.values())

    def _fit(self, cases: list[Case]) -> list[dict[str, Any]]:
        """Train them; if that fails, each alone: one may have spoilt it for the others."""
        try:
            return self._train(cases)
        except FullDisk:  # which is nobody's fault: what is left is done when the command is given again
            raise
        except Exception as error:
            if len(cases) == 1:
                self._fail(cases[0].path, cases[0].folder, error)
                return []
        shutil.rmtree(cases[0].folder / "checkpoints", ignore_errors=True)
        return [summary for case in cases if case.path not in self.finished for summary in self._fit([case])]

    def _fail(self, path: Path, folder: Path, error: Exception) -> None:
        """Note it and go on, or raise it."""
        if not self.catch:
            raise error
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.failed[path] = {"kind": "sdf", "input": str(path), "error": " ".join(message.split())}
        write_json(folder / _SUMMARY, self.failed[path])

    def _train(self, cases: list[Case]) -> list[dict[str, Any]]:
        saved = self._saved(cases)
        if saved is None:  # then what is finished has nothing to do with the others
            cases = [case for case in cases if case.path not in self.finished]
        if not cases:
            return []
        job = SdfJob(self.config, cases, began=self.began, verbose=not self.catch)
        job.finished = self.finished
        summaries = run(job, saved)
        for case in cases:
            if case.path in job.failures:
                self._fail(case.path, case.folder, job.failures[case.path])
        return list(summaries.values())

    def _saved(self, cases: list[Case]) -> Saved | None:
        """The newest checkpoint of the same meshes, if there is one."""
        lead, meshes = cases[0].folder, [str(case.path) for case in cases]
        found = bool(list_checkpoints(lead))
        if self.config.resume is None and not self.catch and (found or "model" in _read(lead / _SUMMARY)):
            raise UserError(f"{lead}: holds a run already; continue it with --resume {lead}, or name another folder")
        if not found:
            return None
        saved = read_checkpoint(lead)
        if saved.state.get("meshes") == meshes:  # earlier versions did not count the time
            return saved._replace(state={"elapsed_seconds": 0.0, **saved.state})
        if not self.catch:
            raise UserError(f"{saved.folder}: is of {saved.state.get('meshes')}, not of {meshes}")
        # A folder, whose meshes were others then.
        print(f"{saved.folder}: is of other meshes; {len(meshes)} start over")
        set_aside_after(lead, 0)
        return None


# -------------------------------------------------------------------------------------------------------------- folders


def _resumed(given: SdfConfig, run: Path) -> ResolvedSdfConfig:
    """The settings of the run to continue; what else was given must agree with them, or be harmless."""
    saved = _settings_in(run)
    if saved is None:
        source = run / _CONFIG
        raise UserError(f"{source}: no such file; --resume takes a run folder of train-sdf")
    if given.input is not None and given.input.absolute() != saved.input:
        raise UserError(f"MESH {given.input} differs from the run's {saved.input} ({run})")
    wanted = dataclasses.replace(given, input=None).with_explicit(given.explicit)
    changed = changed_on_resume(wanted, saved, _CHANGEABLE, run, "; name another --output-dir for a new one")
    return dataclasses.replace(saved, **{**changed, "output_dir": run, "device": given.device})


def _settings_in(folder: Path) -> ResolvedSdfConfig | None:
    """The settings of a run; None where there is none."""
    source = folder / _CONFIG
    return SdfConfig.from_json(read_json(source), source) if source.exists() else None


def _train_folder(
    config: ResolvedSdfConfig, source: Path, paths: list[Path], root: Path, ranks: Ranks
) -> dict[str, Any]:
    """Every mesh that has no summary yet; this process takes its share of the groups."""
    folders = {path: root / path.relative_to(source).with_suffix("") for path in paths}
    if len(set(folders.values())) < len(paths):  # a.stl beside a.obj
        folders = {path: root / path.relative_to(source) for path in paths}
    before = _settings_in(root) or config
    for name in sorted(config.to_json().keys() - _CHANGEABLE):
        old, new = getattr(before, name), getattr(config, name)
        if old != new:
            flag = "MESH" if name == "input" else flag_of(name)
            raise UserError(f"{root}: holds a run with {flag} {old}, not {new}; name another --output-dir")
    left = {path for path in paths if not _is_finished(_read(folders[path] / _SUMMARY))}
    ranks.wait()  # all have chosen the same folder and know what is left before anything is written
    if ranks.first:
        write_json(root / _CONFIG, dataclasses.replace(config, resume=None).to_json())
        for mesh in left:  # what failed before is tried again
            (folders[mesh] / _SUMMARY).unlink(missing_ok=True)
    ranks.wait()
    meshes = [path for path in paths if path.suffix.lower() != SAMPLE_SUFFIX]
    samples = [path for path in paths if path.suffix.lower() == SAMPLE_SUFFIX]
    groups = [meshes[i : i + config.together] for i in range(0, len(meshes), config.together)] + [[p] for p in samples]
    groups = [rest for group in groups if (rest := _with_companions(group, left, folders))]
    begin = time.monotonic()
    done = len(paths) - len(left)
    with progress(len(paths), "meshes", done, shown=ranks.first) as bar:
        for group in groups[ranks.rank :: ranks.count]:
            _Group(config, group, [folders[path] for path in group], catch=True).run()
            finished = sum((folders[path] / _SUMMARY).exists() for path in paths)  # by all processes
            bar.advance(finished - bar.done, ", ".join(path.stem for path in group[:3]))
        ranks.wait()
        if bar.done < len(paths):
            bar.advance(len(paths) - bar.done)
    summaries = {str(path): _read(folders[path] / _SUMMARY) for path in paths}
    failures = {
        path: summary["error"] if summary else "not finished"
        for path, summary in summaries.items()
        if not summary or "error" in summary
    }
    result = {
        "kind": "sdf-folder",
        "meshes": len(paths),
        "failed": len(failures),
        "failures": failures,
        "wall_seconds": round(time.monotonic() - begin, 1),
        "processes": ranks.count,
    }
    if ranks.first:
        write_json(root / _SUMMARY, result)
        for path, error in failures.items():
            print(f"failed: {path}: {error.removeprefix(f'{path}: ')}")
        print(f"{len(paths) - len(failures)} of {len(paths)} meshes in {root}")
    if len(failures) == len(paths):
        raise UserError(f"{config.input}: none of its {len(paths)} meshes could be fitted; see {root / _SUMMARY}")
    return result


def _with_companions(group: list[Path], left: set[Path], folders: dict[Path, Path]) -> list[Path]:
    """The meshes of a group that are left, and those whose weights are in a checkpoint with those of one of them: what
    is trained in the same steps decides the last bits. One that failed is tried again without them."""
    wanted = left.intersection(group)
    for path in group if 0 < len(wanted) < len(group) else ():
        with suppress(UserError):  # of a damaged one, which `_saved` says
            state = read_checkpoint(folders[path]).state if list_checkpoints(folders[path]) else {}
            meshes, failures = state.get("meshes"), state.get("failures")
            if isinstance(meshes, list) and isinstance(failures, dict):
                along = {mesh for mesh in group if str(mesh) in meshes}
                if any(mesh in left and str(mesh) not in failures for mesh in along):
                    wanted |= along
    return [path for path in group if path in wanted]


def _is_finished(summary: dict[str, Any]) -> bool:
    """Whether nothing of a run is left to be done; it is written before its images are made, and again after them."""
    return "model" in summary and "finishing_seconds" in summary


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
