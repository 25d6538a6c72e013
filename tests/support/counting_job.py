"""A training job that counts its steps and what is called of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdfgan.training.checkpoint import Saved
from sdfgan.training.config import Config
from sdfgan.training.job import Intervals, Job
from sdfgan.training.ranks import Ranks
from sdfgan.training.run import Summary
from sdfgan.training.steps import Numbers


@dataclass(frozen=True)
class Steps(Config):
    steps: int = 3


class Counting(Job):
    """Adds its number of steps to a sum."""

    kind = "counting"
    device, ranks, modules = torch.device("cpu"), Ranks(), ()

    def __init__(self, root: Path, steps: int = 6, stop_at: int = 0, **every: Any) -> None:
        self.root, self.runs = root, {root: Steps(steps)}
        self.steps, self.steps_done, self.stop_at = steps, 0, stop_at
        self.every = Intervals(**{"log": 2, **every})
        self.sum, self.called = torch.zeros(()), list[str]()

    def step(self) -> Numbers:
        self.steps_done += 1
        self.sum += self.steps_done
        if self.steps_done == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": float(self.steps_done), "odd": float("inf") if self.steps_done % 2 else 0.0}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"sum": self.sum}, {"said": "something"}

    def load_state(self, saved: Saved) -> None:
        self.sum, self.steps_done = saved.tensors["sum"], saved.state["step"]
        assert saved.state["said"] == "something"

    def begin(self) -> None:
        self.called.append("begin")

    def evaluate(self) -> Sequence[Numbers]:
        self.called.append(f"evaluate {self.steps_done}")
        return [{"score": 1.0}]

    def samples(self, file: Path) -> Tensor:
        self.called.append(f"{file.parent.name}/{file.name}")
        return torch.zeros(3, 4, 4)

    def finish(self, summary: Summary) -> dict[str, Any]:
        self.called.append("finish")
        summary["sum"] = self.sum.item()
        summary.write(self.root)
        return summary
