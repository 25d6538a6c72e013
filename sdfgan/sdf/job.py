"""Runs of `sdfgan train-sdf`: a mesh, or many of a folder, some of them together; what fails is listed."""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from sdfgan.errors import UserError
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.images import say_if_no_video
from sdfgan.sdf import evaluation
from sdfgan.sdf.config import ResolvedSdfConfig, SdfConfig
from sdfgan.sdf.files import SAMPLE_SUFFIX, Case, find_inputs, open_case
from sdfgan.sdf.model import MeshSDF, make_field
from sdfgan.sdf.objective import Objective
from sdfgan.sdf.report import finish_case
from sdfgan.sdf.sampling import Samples
from sdfgan.training.checkpoint import (
    Saved,
    list_checkpoints,
    pack_optimizer,
    read_checkpoint,
    set_aside_after,
    unpack_optimizer,
)
from sdfgan.training.config import flag_of
from sdfgan.training.files import Claim, FullDisk, parse_json, read_json, write_json
from sdfgan.training.interrupt import resumable
from sdfgan.training.job import Intervals, Job, Numbers
from sdfgan.training.loop import run
from sdfgan.training.optim import GridAdam
from sdfgan.training.progress import announced, progress
from sdfgan.training.ranks import Ranks, process_group
from sdfgan.training.report import REPORT, write_report
from sdfgan.training.run import Summary, changed_on_resume, next_run_folder
from sdfgan.training.steps import step_rows

_SUMMARY, _CONFIG = "summary.json", "config.json"
_CHANGEABLE = {"device", "resume", "output_dir", "together", "checkpoint_seconds"}  # when a run goes on
_SCALER_SAMPLES = 100_000
_WORTH_SAVING = 10.0  # seconds of training
_STEPS_PER_LINE = 50  # of metrics.jsonl
_PATIENCE = timedelta(days=7)  # of a process that has done its share of a folder
_TABLE_RATE = 5.0  # a hash grid's table learns that much faster than the network behind it
_MIN_RATE = 0.02  # of the learning rate, at the end
_MAX_SKIPPED = 20  # steps in a row


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
        say_if_no_video(root / f"turntable.{resolved.video_format}")
    with process_group(torch.device(resolved.device), _PATIENCE) as ranks, begun:
        if many:
            with Claim(root) if ranks.first else nullcontext():
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


# -------------------------------------------------------------------------------------------- fields trained together


class SdfJob(Job):
    """Fits fields, alike but for their weights, each to its own stream of equally many samples.

    Several are stacked and take each step as one (`torch.func.vmap`); each then moves as it would alone, for Adam works
    on every number by itself. One whose loss or gradient is not finite stays as it is while the others learn; after
    twenty such steps in a row it is among the `failures`.
    """

    kind = "sdf"

    def __init__(
        self,
        config: ResolvedSdfConfig,
        cases: Sequence[Case],
        fields: Sequence[MeshSDF] | None = None,
        began: float | None = None,
        talks: bool = True,
    ) -> None:
        """`config` is resolved; `fields` are fresh ones if not given; `began`: when the cases' files were opened."""
        opened = time.monotonic()
        if len({len(case.stream) for case in cases}) != 1:
            raise ValueError("SdfJob: fields that are trained together need equally many samples")
        self.config, self.cases, self.talks = config, list(cases), talks
        self.fields = [fresh_field(config, case) for case in cases] if fields is None else list(fields)
        self.root = config.output_dir or Path()
        self.runs = {case.folder: settings_of(config, case) for case in cases}
        self.device, self.ranks = torch.device(config.device), Ranks()
        self.steps_per_epoch = math.ceil(len(cases[0].stream) / config.batch_size)
        self.steps, self.steps_done = config.epochs * self.steps_per_epoch, 0
        self.every = Intervals(
            log=_STEPS_PER_LINE,
            evaluate=self.steps_per_epoch if config.validation_resolution else 0,
            checkpoint_seconds=config.checkpoint_seconds,
            # What is trained together must go on together, to the same bits, while the first of it are finished.
            worth_saving=_WORTH_SAVING if len(cases) == 1 else 0.0,
        )
        objectives = [Objective(field.to(self.device), config) for field in self.fields]
        self.objective = objectives[0]
        self.modules = [self.objective]
        self.parameters: dict[str, Tensor] = dict(self.objective.named_parameters())
        if len(cases) > 1:
            self.parameters, self._buffers = stack_module_state(objectives)
            self._skeleton = copy.deepcopy(self.objective).to("meta")
        tables = [tensor for name, tensor in self.parameters.items() if name.endswith("encoding.table")]
        other = [tensor for name, tensor in self.parameters.items() if not name.endswith("encoding.table")]
        groups = [{"params": group, "scale": scale} for group, scale in ((other, 1.0), (tables, _TABLE_RATE)) if group]
        self.optimizer = torch.optim.Adam(groups, config.learning_rate, betas=(0.9, 0.99), eps=1e-15, fused=True)
        if tables:
            grid, spares = self.fields[0].encoding, None
            if isinstance(grid, HashGrid) and grid.table is tables[0]:  # and not a stack of several
                spares = grid.spares = []
            self.optimizer = GridAdam(groups, config.learning_rate, tables[0], spares)
        self.skipped = [0] * len(cases)  # steps in a row, of each field
        self.failures: dict[Path, Exception] = {}
        self.finished: Set[Path] = frozenset()  # cases that need nothing any more
        self.seconds = {"truth": opened - (began or opened), "sampling": time.monotonic() - opened}
        self._left = self._batches()

    def _batches(self) -> Iterator[tuple[Samples, ...]]:
        """What is left of the samples of all fields, from `steps_done` on."""
        while self.steps_done < self.steps:
            number, done = divmod(self.steps_done, self.steps_per_epoch)
            streams = (case.stream.epoch(number, self.config.batch_size) for case in self.cases)
            for index, parts in enumerate(zip(*streams, strict=True)):
                if index >= done:
                    yield parts

    def step(self) -> Numbers:
        """One update of all fields. Raises UserError where none of them can learn."""
        config = self.config
        losses = self._losses(next(self._left))
        self.steps_done += 1
        rate = config.learning_rate * _decay(config.schedule, self.steps_done / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        losses.sum().backward()
        found = self._update(losses.detach())
        return {"loss": sum(found) / len(found) if found else math.nan}

    def _losses(self, parts: Sequence[Samples]) -> Tensor:
        """Of each field [M]."""
        if len(parts) == 1:
            return self.objective(*parts[0])[None]

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], samples: tuple[Tensor, ...]) -> Tensor:
            return functional_call(self._skeleton, (parameters, buffers), samples)

        return vmap(one)(
            self.parameters, self._buffers, tuple(torch.stack(column) for column in zip(*parts, strict=True))
        )

    def _update(self, losses: Tensor) -> list[float]:
        """Step on the gradients of the fields whose loss [M] and gradient are finite; gives these losses."""
        parameters, count = list(self.parameters.values()), len(self.cases)
        norms = [torch.linalg.vector_norm(p.grad.reshape(count, -1), dim=1) for p in parameters if p.grad is not None]
        numbers = torch.stack([losses, torch.stack(norms).norm(dim=0)]).tolist()
        good = [math.isfinite(loss) and math.isfinite(norm) for loss, norm in zip(*numbers, strict=True)]
        step_rows(self.optimizer, parameters, good)
        for index, (case, loss) in enumerate(zip(self.cases, numbers[0], strict=True)):
            self.skipped[index] = 0 if good[index] else self.skipped[index] + 1
            if self.skipped[index] == _MAX_SKIPPED:
                what = "gradient" if math.isfinite(loss) else "loss"
                self.failures[case.path] = UserError(
                    f"the {what} was not finite for {_MAX_SKIPPED} steps; try a smaller --learning-rate"
                )
                if len(self.failures) == count:
                    raise self.failures[case.path]
        return [loss for loss, is_good in zip(numbers[0], good, strict=True) if is_good]

    def learnt(self) -> list[MeshSDF]:
        """The fields with what they have learnt."""
        if len(self.fields) > 1:
            with torch.no_grad():
                for index, field in enumerate(self.fields):
                    own = dict(Objective(field, self.config).named_parameters())
                    for name, tensor in self.parameters.items():
                        own[name].copy_(tensor[index])
        return self.fields

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Job.state`."""
        tensors = {f"net.{name}": tensor for name, tensor in self.parameters.items()}
        meshes = [str(case.path) for case in self.cases]
        failures = {str(path): str(error) for path, error in self.failures.items()}
        return tensors | pack_optimizer(self.optimizer, "adam"), {"meshes": meshes, "failures": failures}

    def load_state(self, saved: Saved) -> None:
        """See `Job.load_state`."""
        source, tensors, state = saved
        if state["step"] > self.steps:
            raise UserError(f"{source}: step must be 0 to {self.steps}, got {state['step']!r}")
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                own = tensors.get(f"net.{name}")
                if own is None or own.shape != tensor.shape:
                    got = "none" if own is None else list(own.shape)
                    raise UserError(f"{source}: tensor net.{name} must be {list(tensor.shape)}, got {got}")
                tensor.copy_(own)
        unpack_optimizer(self.optimizer, tensors, "adam", source)
        failures = state.get("failures", {})  # earlier versions kept none
        if not isinstance(failures, dict):
            raise UserError(f"{source}: failures must be messages by mesh, got {failures!r:.50}")
        self.failures = {Path(path): UserError(str(words)) for path, words in failures.items()}
        self.steps_done = state["step"]

    def describe(self) -> None:
        """What is learnt from what."""
        case = self.cases[0]
        chosen = f"; an unsigned field: {case.why_unsigned}" if case.unsigned else ""
        print(f"{case.path}: {case.report or 'samples'}; {len(case.stream):,} samples{chosen}", flush=True)

    def evaluate(self) -> Sequence[Numbers]:
        """The mean error of each field's distances, where the truth is known."""
        if not self.config.validation_resolution or self.steps_done == 0:
            return ()
        points = evaluation.grid_points(self.config.validation_resolution, self.device)
        found: list[Numbers] = []
        for case, field in zip(self.cases, self.learnt(), strict=True):
            found.append({})
            if case.truth is not None:
                difference = evaluation.evaluate(field, points) - case.truth.signed_distance(points)
                found[-1]["validation_error"] = difference.abs().mean().item()
        return found

    def finish(self, summary: Summary) -> dict[str, Any]:
        """Make everything of each field; their summaries by path, of those that have not failed."""
        summary |= {f"{name}_seconds": round(seconds, 2) for name, seconds in self.seconds.items()}
        summaries = {}
        for case, field in zip(self.cases, self.learnt(), strict=True):
            if case.path in self.failures or case.path in self.finished:
                continue
            told = {**summary, "command": self.command(case.folder)}
            own = Summary(summary.started - sum(self.seconds.values()), told)
            try:
                finish_case(self.config, settings_of(self.config, case), case, field, own)
                summaries[str(case.path)] = dict(own)
            except FullDisk:
                raise
            except Exception as error:
                self.failures[case.path] = error
        return summaries


def settings_of(config: ResolvedSdfConfig, case: Case) -> ResolvedSdfConfig:
    """Those of a case's own run. Samples from a file may lie anywhere in the cube, and so may their surface; of many
    sheets nearer to each other than a cell, a finer hash grid keeps more apart."""
    kind: Literal["unsigned", "signed"] = "unsigned" if case.unsigned else "signed"
    finest = config.finer if case.unsigned and case.thinness is not None and case.thinness.has_holes else config.finest
    config = dataclasses.replace(config, input=case.path, field=kind, finest=finest, resume=None)
    return config if case.truth is not None else dataclasses.replace(config, normalise="box")


def fresh_field(config: ResolvedSdfConfig, case: Case) -> MeshSDF:
    """One that has learnt nothing, its scalers fitted to the first samples of the stream."""
    first = next(case.stream.epoch(0, min(_SCALER_SAMPLES, len(case.stream))))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return make_field(settings_of(config, case), (first.points.cpu(), first.distances.cpu()), case.placement)


def _decay(schedule: str, done: float) -> float:
    """What is left of the learning rate when a share of the run is done."""
    if schedule == "cosine":
        return _MIN_RATE + (1 - _MIN_RATE) * (1 + math.cos(math.pi * done)) / 2
    if schedule == "linear":
        return 1 - (1 - _MIN_RATE) * done
    if schedule == "step":
        return 1.0 if done < 0.6 else 0.1 if done < 0.85 else 0.01
    return 1.0


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
        words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.failed[path] = {"kind": "sdf", "input": str(path), "error": " ".join(words.split())}
        write_json(folder / _SUMMARY, self.failed[path])

    def _train(self, cases: list[Case]) -> list[dict[str, Any]]:
        saved = self._saved(cases)
        if saved is None:  # then what is finished has nothing to do with the others
            cases = [case for case in cases if case.path not in self.finished]
        if not cases:
            return []
        job = SdfJob(self.config, cases, began=self.began, talks=not self.catch)
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
    wanted = dataclasses.replace(given, input=None).with_told(given.told)
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
