"""Fields of one or several meshes, trained in the same steps."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from sdfgan.errors import UserError
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.sdf import evaluation
from sdfgan.sdf.config import ResolvedSdfConfig
from sdfgan.sdf.files import Case
from sdfgan.sdf.model import MeshSDF, make_field
from sdfgan.sdf.objective import DistanceLoss, distance_loss
from sdfgan.sdf.report import finish_case
from sdfgan.sdf.sampling import Samples
from sdfgan.training.checkpoint import Saved, pack_optimizer, unpack_optimizer
from sdfgan.training.files import FullDisk
from sdfgan.training.job import Intervals, Job
from sdfgan.training.optim import GridAdam
from sdfgan.training.ranks import Ranks
from sdfgan.training.run import Summary
from sdfgan.training.steps import Numbers, step_rows

_SCALER_SAMPLES = 100_000
_WORTH_SAVING = 10.0  # seconds of training
_STEPS_PER_LINE = 50  # of metrics.jsonl
_TABLE_RATE = 5.0  # a hash grid's table learns that much faster than the network behind it
_MIN_RATE = 0.02  # of the learning rate, at the end
_MAX_SKIPPED = 20  # steps in a row


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
        verbose: bool = True,
    ) -> None:
        """`config` is resolved; `fields` are fresh ones if not given; `began`: when the cases' files were opened."""
        opened = time.monotonic()
        if len({len(case.stream) for case in cases}) != 1:
            raise ValueError("SdfJob: fields that are trained together need equally many samples")
        self.config, self.cases, self.verbose = config, list(cases), verbose
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
        losses = [DistanceLoss(field.to(self.device), config) for field in self.fields]
        self.modules = [losses[0]]
        self.parameters: dict[str, Tensor] = dict(losses[0].named_parameters())
        if len(cases) > 1:
            self.parameters, self._buffers = stack_module_state(losses)
            self._skeleton = copy.deepcopy(losses[0]).to("meta")
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
            return distance_loss(self.fields[0], parts[0], self.config)[None]

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
                    own = dict(DistanceLoss(field, self.config).named_parameters())
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
        self.failures = {Path(path): UserError(str(message)) for path, message in failures.items()}
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
            values = {**summary, "command": self.command(case.folder)}
            own = Summary(summary.started - sum(self.seconds.values()), values)
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
