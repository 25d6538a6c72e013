"""What a training run does besides what all runs do, which is `loop.run`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdfgan.training.checkpoint import Saved
from sdfgan.training.config import Config, command_line
from sdfgan.training.health import Health
from sdfgan.training.ranks import Ranks
from sdfgan.training.run import Summary
from sdfgan.training.steps import ChunkThreads, Numbers


class Intervals(NamedTuple):
    """How often what is done besides steps; 0: never."""

    log: int = 10  # steps, whose means are logged
    sample: int = 0
    evaluate: int = 0
    checkpoint: int = 0
    checkpoint_seconds: float = math.inf  # in jobs of one process: several would not agree on the time
    worth_saving: float = 0.0  # likewise; seconds of training at the end, of which fewer are not saved


class Job(ABC):
    """A training run without its loop, whose calls are, in this order:

    `load_state`, or `begin` where the run is new; `evaluate`, if it is; `step` until `done` is `total`, and at their
    intervals `samples`, `evaluate` and `state`; `evaluate`; `finish`. `samples`, `state` and `finish` are called in the
    first process alone. The attributes are set by whoever makes one.
    """

    kind: str  # in checkpoints and summary.json
    root: Path  # what --resume takes
    runs: dict[Path, Config]  # run folders and their settings; checkpoints are the first one's
    saves = True  # checkpoints, from which it goes on; else Ctrl-C ends it at once
    device: torch.device
    ranks: Ranks
    modules: Sequence[nn.Module]  # which are alike in all processes
    steps: int
    steps_done: int
    every: Intervals
    threads: ChunkThreads | None = None
    health: Health | None = None
    dry_run = False
    verbose = True
    label = "training"  # beside the bar

    @property
    def done(self) -> int:
        """How much is done of `total`."""
        return self.steps_done

    @property
    def total(self) -> int:
        """When training is over."""
        return self.steps

    def command(self, run: Path) -> str:
        """The command that repeats one of the runs."""
        return command_line(f"train-{self.kind}", self.runs[run])

    @abstractmethod
    def step(self) -> Numbers:
        """One update; `steps_done` is one more. Returns numbers for the log."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `load_state` continues exactly. Jobs that do not save need none."""
        raise NotImplementedError(type(self).__name__)

    def load_state(self, saved: Saved) -> None:
        """Undo `state`. Raises UserError, naming the checkpoint, where something is missing or does not fit."""
        raise NotImplementedError(type(self).__name__)

    @abstractmethod
    def finish(self, summary: Summary) -> dict[str, Any]:
        """Make what a run ends with, write `summary` with what is known besides, and return it."""

    def begin(self) -> None:  # noqa: B027
        """What is done before the first step of a new run, once no dry run is asked for."""

    def describe(self) -> None:  # noqa: B027
        """Say what will be done."""

    def status(self, numbers: Numbers) -> str:
        """What is said beside the bar, of smoothed numbers."""
        return f"loss {numbers['loss']:.5f}"

    def evaluate(self) -> Sequence[Numbers]:
        """Numbers for the log of each of the run folders; none where there is nothing to measure."""
        return ()

    def samples(self, file: Path) -> Tensor | None:
        """Write an image [C, H, W] of what is learnt by now, and return it; None where there is none."""
        return None

    def close(self) -> None:
        """Give back what was taken, such as threads."""
        if self.threads is not None:
            self.threads.close()
