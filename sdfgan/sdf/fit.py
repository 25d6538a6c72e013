"""`sdfgan train-sdf`: from mesh files to run folders, one at a time or many together; what fails is listed."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sdfgan.errors import UserError
from sdfgan.images import say_if_no_video, video_if_possible
from sdfgan.meshes import export_mesh, marching_cubes
from sdfgan.meshes.read import read_mesh
from sdfgan.meshes.sheets import sheet_mesh
from sdfgan.sdf import evaluation
from sdfgan.sdf.config import MAX_CELLS, ResolvedSdfConfig, SdfConfig
from sdfgan.sdf.files import SAMPLE_SUFFIX, Case, find_inputs, open_case
from sdfgan.sdf.model import MESH, MODEL, MeshSDF, make_field, save_model
from sdfgan.sdf.report import save_slices, save_turntable
from sdfgan.sdf.trainer import Trainer, parameter_count
from sdfgan.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from sdfgan.training.files import parse_json, read_json, write_json
from sdfgan.training.interrupt import StopSignals, resumable
from sdfgan.training.progress import announced, progress
from sdfgan.training.ranks import Ranks, process_group
from sdfgan.training.run import RunFolder, changed_on_resume, next_run_folder

_SUMMARY, _CONFIG = "summary.json", "config.json"
_CHANGEABLE = {"device", "resume", "output_dir", "together", "checkpoint_seconds"}  # when a run goes on
_SCALER_SAMPLES = 100_000
_WORTH_SAVING = 10.0  # seconds of training
_STEPS_PER_LINE = 50  # of metrics.jsonl
_SLOPE_POINTS = 20_000
_PATIENCE = timedelta(days=7)  # of a process that has done its share of a folder


def train(config: SdfConfig) -> dict[str, Any]:
    """Fit what `config` names and return the summary, which is also in the run folder.

    Raises UserError for what cannot be used, and SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the run has
    been saved.
    """
    if config.resume is not None:
        config = _resumed(config)
    if config.input is None:
        raise UserError("a mesh, a file of samples or a folder of them must be given (or --resume RUN)")
    config = dataclasses.replace(config.resolved(), input=config.input.absolute())
    assert config.input is not None
    root = config.output_dir or next_run_folder(Path("runs"), "sdf")
    paths, many = find_inputs(config.input, root)
    config = dataclasses.replace(config, output_dir=root)
    begun = resumable(root, lambda: (root / _CONFIG).exists())
    if config.show_vis:
        say_if_no_video(root / f"turntable.{config.video_format}")
    with process_group(torch.device(config.device), _PATIENCE) as ranks, begun:
        if many:
            return _train_folder(config, paths, root, ranks)
        if not ranks.first:
            return {}
        done = _read(root / _SUMMARY)
        if config.resume is not None and _is_finished(done):
            print(f"{root}: is finished")
            return done
        (summary,) = _Group(config, paths, [root]).run()
    if "error" in summary:
        raise UserError(summary["error"])
    return summary


def _resumed(given: SdfConfig) -> ResolvedSdfConfig:
    """The settings of the run to continue; what else was given must agree with them, or be harmless."""
    assert given.resume is not None
    saved = _saved(given.resume)
    if saved is None:
        source = given.resume / _CONFIG
        raise UserError(f"{source}: no such file; --resume takes a run folder of train-sdf")
    if given.input is not None and given.input.absolute() != saved.input:
        raise UserError(f"MESH {given.input} differs from the run's {saved.input} ({given.resume})")
    asked = dataclasses.replace(given, input=None)
    changed = changed_on_resume(asked, saved, _CHANGEABLE, given.resume, "; name another --output-dir for a new one")
    return dataclasses.replace(saved, **{**changed, "output_dir": given.resume, "device": given.device})


def _saved(folder: Path) -> ResolvedSdfConfig | None:
    """The settings of a run; None where there is none."""
    source = folder / _CONFIG
    return SdfConfig.from_json(read_json(source), source) if source.exists() else None


# -------------------------------------------------------------------------------------------------------------- folders


def _train_folder(config: ResolvedSdfConfig, paths: list[Path], root: Path, ranks: Ranks) -> dict[str, Any]:
    """Every mesh that has no summary yet; this process takes its share of the groups."""
    assert config.input is not None and config.together is not None
    folders = {path: root / path.relative_to(config.input).with_suffix("") for path in paths}
    if len(set(folders.values())) < len(paths):  # a.stl beside a.obj
        folders = {path: root / path.relative_to(config.input) for path in paths}
    before = _saved(root) or config
    for name in sorted(config.to_json().keys() - _CHANGEABLE):
        old, new = getattr(before, name), getattr(config, name)
        if old != new:
            flag = "MESH" if name == "input" else f"--{name.replace('_', '-')}"
            raise UserError(f"{root}: holds a run with {flag} {old}, not {new}; name another --output-dir")
    left = {path for path in paths if not _is_finished(_read(folders[path] / _SUMMARY))}
    ranks.wait()  # all have chosen the same folder and know what is left before anything is written
    if ranks.first:
        write_json(root / _CONFIG, config.to_json())
        for mesh in left:  # what failed before is tried again
            (folders[mesh] / _SUMMARY).unlink(missing_ok=True)
    ranks.wait()
    meshes = [path for path in paths if path.suffix.lower() != SAMPLE_SUFFIX]
    samples = [path for path in paths if path.suffix.lower() == SAMPLE_SUFFIX]
    groups = [meshes[i : i + config.together] for i in range(0, len(meshes), config.together)] + [[p] for p in samples]
    groups = [rest for group in groups if (rest := [path for path in group if path in left])]
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


def _is_finished(summary: dict[str, Any]) -> bool:
    """Whether nothing of a run is left to be done; it is written before its pictures are made, and again after them."""
    return "model" in summary and "finishing_seconds" in summary


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


# ---------------------------------------------------------------------------------------------- meshes trained together


class _Group:
    """Meshes that are trained in the same steps, each with its run folder; mostly it is one."""

    def __init__(
        self, config: ResolvedSdfConfig, paths: Sequence[Path], folders: Sequence[Path], catch: bool = False
    ) -> None:
        self.config, self.catch = config, catch
        self.paths, self.folders = list(paths), list(folders)
        self.failed: dict[Path, dict[str, Any]] = {}
        self.began = time.monotonic()

    def run(self) -> list[dict[str, Any]]:
        """Train and judge; the summaries, which are written too. With `catch`, errors become summaries."""
        cases: list[Case] = []
        for path, folder in zip(self.paths, self.folders, strict=True):
            try:
                with announced(f"reading {path}", not self.catch):
                    cases.append(open_case(self.config, path, folder))
            except Exception as error:
                self._fail(path, folder, error)
        return (self._fit(cases) if cases else []) + list(self.failed.values())

    def _fit(self, cases: list[Case]) -> list[dict[str, Any]]:
        """Train them; if that fails, each alone: one may have spoilt it for the others."""
        try:
            return self._train(cases)
        except Exception as error:
            if len(cases) == 1:
                self._fail(cases[0].path, cases[0].folder, error)
                return []
        shutil.rmtree(cases[0].folder / "checkpoints", ignore_errors=True)
        return [summary for case in cases for summary in self._fit([case])]

    def _fail(self, path: Path, folder: Path, error: Exception) -> None:
        """Note it and go on, or raise it."""
        if not self.catch:
            raise error
        words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.failed[path] = {"kind": "sdf", "input": str(path), "error": " ".join(words.split())}
        write_json(folder / _SUMMARY, self.failed[path])

    def _train(self, cases: list[Case]) -> list[dict[str, Any]]:
        config, lead = self.config, cases[0].folder
        opened = time.monotonic()
        trainer = Trainer([self._field(case) for case in cases], [case.stream for case in cases], config)
        state = {"kind": "sdf", "meshes": [str(case.path) for case in cases]}
        self._restore(trainer, lead, state)
        if not self.catch:
            chosen = f"; an unsigned field: {cases[0].why_unsigned}" if cases[0].unsigned else ""
            samples = f"{len(cases[0].stream):,} samples"
            print(f"{cases[0].path}: {cases[0].report or 'samples'}; {samples}{chosen}", flush=True)
            if trainer.step:
                print(f"{lead}: continuing at step {trainer.step} of {trainer.steps}")
        began = saved = time.monotonic()
        with (
            ExitStack() as closing,
            StopSignals() as stop,
            progress(trainer.steps, "training", trainer.step, shown=not self.catch) as bar,
        ):
            logs = []
            for case in cases:
                logs.append(RunFolder(case.folder, self._settings(case).to_json(), trainer.step))
                closing.callback(logs[-1].close)
            for loss in trainer.run():
                bar.advance(1, f"loss {loss:.5f}")
                if trainer.step % _STEPS_PER_LINE == 0:
                    for log in logs:
                        log.log(trainer.step, {"loss": loss})
                if config.validation_resolution and trainer.step % trainer.steps_per_epoch == 0:
                    self._validate(cases, trainer, logs)
                if stop.received or time.monotonic() - saved > config.checkpoint_seconds:
                    save_checkpoint(lead, trainer.step, trainer.state(), state)
                    saved = time.monotonic()
                if stop.received:
                    where = f"step {trainer.step} of {trainer.steps}"
                    print(f"\nstopped at {where} and saved; continue with --resume {config.output_dir}")
                    raise SystemExit(128 + stop.received)
            if time.monotonic() - saved > _WORTH_SAVING:  # before anything that can fail, or be interrupted
                save_checkpoint(lead, trainer.step, trainer.state(), state)
        times = {
            "truth_seconds": round(opened - self.began, 2),
            "sampling_seconds": round(began - opened, 2),
            "training_seconds": round(time.monotonic() - began, 2),
        }
        summaries = []
        for case, field in zip(cases, trainer.finish(), strict=True):
            try:
                summaries.append(self._finish(case, field, times))
            except Exception as error:
                self._fail(case.path, case.folder, error)
        return summaries

    def _settings(self, case: Case) -> ResolvedSdfConfig:
        """Those of its own run; samples from a file may lie anywhere in the cube, and so may their surface."""
        kind: Literal["unsigned", "signed"] = "unsigned" if case.unsigned else "signed"
        config = dataclasses.replace(self.config, input=case.path, field=kind)
        return config if case.truth is not None else dataclasses.replace(config, normalise="box")

    def _field(self, case: Case) -> MeshSDF:
        """A fresh one, its scalers fitted to the first samples of the stream."""
        first = next(case.stream.epoch(0, min(_SCALER_SAMPLES, len(case.stream))))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return make_field(self._settings(case), (first.points.cpu(), first.distances.cpu()), case.placement)

    def _restore(self, trainer: Trainer, lead: Path, state: dict[str, Any]) -> None:
        """Go on from the newest checkpoint of the same meshes, if there is one."""
        found = list_checkpoints(lead)
        if self.config.resume is None and not self.catch and (found or "model" in _read(lead / _SUMMARY)):
            raise UserError(f"{lead}: holds a run already; continue it with --resume {lead}, or name another folder")
        if found:
            tensors, saved = load_checkpoint(found[-1])
            if saved.get("meshes") == state["meshes"]:
                trainer.restore(tensors, saved, found[-1])
            elif not self.catch:
                raise UserError(f"{found[-1]}: is of {saved.get('meshes')}, not of {state['meshes']}")
            else:  # of a folder, whose meshes were others then
                print(f"{found[-1]}: is of other meshes; {len(state['meshes'])} start over")

    def _validate(self, cases: list[Case], trainer: Trainer, logs: list[RunFolder]) -> None:
        points = evaluation.grid_points(self.config.validation_resolution, trainer.device)
        for case, field, log in zip(cases, trainer.finish(), logs, strict=True):
            if case.truth is not None:
                error = (evaluation.evaluate(field, points) - case.truth.signed_distance(points)).abs().mean().item()
                log.log(trainer.step, {"validation_error": error})

    def _cells(self, case: Case) -> int:
        """Of the grid that the mesh is made with: as asked, or finer where that shows more of a thin solid."""
        cells = self.config.mesh_resolution
        assert cells is not None
        if case.unsigned or case.thinness is None or not case.thinness.has_holes:
            return cells
        if not self.config.refine_thin or cells < case.thinness.cells:  # or a coarse mesh is what was asked for
            return cells
        return max(cells, min(case.thinness.resolved_at or 2 * cells, 2 * cells, MAX_CELLS))

    def _finish(self, case: Case, field: MeshSDF, times: dict[str, float]) -> dict[str, Any]:
        """Everything that is made from a trained field; its summary."""
        config, folder = self.config, case.folder
        field.requires_grad_(False)
        near = next(case.stream.epoch(0, min(_SLOPE_POINTS, len(case.stream)))).points
        field.measure_slope(near)
        save_model(folder / MODEL, field, self._settings(case))
        summary: dict[str, Any] = {
            "kind": "sdf",
            "input": str(case.path),
            "folder": str(folder),
            "network": config.network,
            "field": "unsigned" if case.unsigned else "signed",
            "parameters": parameter_count(field),
            "samples": len(case.stream),
            "device": str(config.device),
            "threads": torch.get_num_threads(),
            **times,
            "repair": str(case.report) if case.report is not None else None,
            "thinness": case.thinness and dataclasses.asdict(case.thinness),
            "placement": case.placement._asdict(),
            "model": MODEL,
            "mesh": None,
        }
        begin = time.monotonic()
        if case.truth is not None and config.metrics:
            summary["metrics"] = evaluation.field_metrics(field, case.truth)
        assert config.mesh_resolution is not None
        if config.mesh_resolution:
            try:
                cells = self._cells(case)
                summary["reconstruction_res"] = cells
                mesh = (sheet_mesh if case.unsigned else marching_cubes)(field, field.condition(None), cells)
                name = f"{MESH}.{config.mesh_format}"
                export_mesh(evaluation.to_original(mesh, case.placement), folder / name)
                summary["mesh"] = name
                if case.truth is not None and config.metrics:  # of what the file holds after its rounding
                    written = evaluation.to_normalised(read_mesh(folder / name), case.placement)
                    summary["metrics"] |= evaluation.mesh_metrics(written, case.truth)
            except UserError as error:
                summary["error"] = f"{case.path}: {error}"
        if case.thinness is not None and not case.unsigned:
            summary["note"] = case.thinness.as_solid()
        if config.show_vis:
            write_json(folder / _SUMMARY, summary)  # now, so that no picture can take the numbers with it
            summary["pictures"] = [path.name for path in save_slices(folder, field, case.truth)]
            shown = field.shell() if case.unsigned else field
            turntable = video_if_possible(
                folder / f"turntable.{config.video_format}", lambda file: save_turntable(file, shown)
            )
            summary["turntable"] = turntable and turntable.name
        summary["finishing_seconds"] = round(time.monotonic() - begin, 2)
        summary["wall_seconds"] = round(time.monotonic() - self.began, 2)
        write_json(folder / _SUMMARY, summary)
        return summary


def describe(summary: dict[str, Any]) -> list[str]:
    """A summary in lines to print."""
    lines = [summary["note"]] if summary.get("note") else []
    for name, value in summary.get("metrics", {}).items():
        lines.append(f"{name}: {np.format_float_positional(value, 4, fractional=False)}")
    if "training_seconds" in summary:
        lines.append(f"{summary['parameters']:,} parameters, trained in {summary['training_seconds']} s")
        lines.append(f"wrote {summary['folder']}")
    return lines
