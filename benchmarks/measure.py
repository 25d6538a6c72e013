"""Timing variants against each other: they alternate in one process, medians and ratios of the same round are told."""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch

import sdfgan

_SLOWEST_TOTAL = 90.0  # seconds that all rounds of a comparison may take, after the first three
_LEAST_ROUNDS = 3
_GPU_SECONDS = 0.01  # that a timing takes at least: one run may be less than what it costs to launch it


@dataclass
class Comparison:
    """One thing done in several ways."""

    case: str
    config: dict[str, Any]  # what was done: sizes, counts
    variants: dict[str, Callable[[], Any]]
    baselines: tuple[str, ...] = ()  # variants that the others are compared with
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # further numbers, by variant
    scale: dict[str, float] = field(default_factory=dict)  # by which a variant's time is multiplied: 1 / its share
    warm: bool = False  # each variant has run already

    @property
    def title(self) -> str:
        """The case and its configuration, in a line."""
        return f"{self.case}: " + ", ".join(f"{key} {value}" for key, value in self.config.items())


def measure(
    comparison: Comparison, rounds: int, say: Callable[[str], None] = lambda _: None, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Time every variant once per round, in turn, once all have run; a record for each."""
    times: dict[str, list[float]] = {name: [] for name in comparison.variants}
    begin = time.perf_counter()
    for number in range(0 if comparison.warm else -1, rounds):
        if number >= _LEAST_ROUNDS and time.perf_counter() - begin > _SLOWEST_TOTAL:
            break
        for name, variant in comparison.variants.items():
            say(f"{comparison.title}: {name}, round {number + 1} of {rounds}")
            seconds = _time(variant, device)
            if number >= 0:
                times[name].append(seconds * comparison.scale.get(name, 1.0))
    shared = environment(device)
    records = []
    for name, values in times.items():
        faster = {
            baseline: round(statistics.median(b / a for a, b in zip(values, times[baseline], strict=True)), 3)
            for baseline in comparison.baselines
            if baseline in times and baseline != name
        }
        quarter = len(values) // 4
        ordered = sorted(values)
        records.append(
            {
                "case": comparison.case,
                "config": comparison.config,
                "variant": name,
                "median_s": statistics.median(values),
                "spread": (ordered[-1 - quarter] - ordered[quarter]) / statistics.median(values),
                "rounds": len(values),
                "times_faster_than": faster,
                **comparison.facts.get(name, {}),
                **shared,
            }
        )
    return records


def _time(variant: Callable[[], Any], device: str) -> float:
    """Seconds. On a GPU the mean of as many runs in a row as make some ten milliseconds."""
    start = time.perf_counter()
    if device == "cpu":
        variant()
        return time.perf_counter() - start
    variant()
    torch.cuda.synchronize()
    runs = math.ceil(_GPU_SECONDS / (time.perf_counter() - start))
    start = time.perf_counter()
    for _ in range(runs):
        variant()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / runs


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a number depends on beside the code that was timed."""
    return {
        "device": _processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "simd": sdfgan.build_info()["simd"],
        "commit": commit(),
        "versions": {
            "sdfgan": sdfgan.__version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The commit, with a plus sign if files differ from it."""
    folder = Path(__file__).parent
    try:
        name = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip()
