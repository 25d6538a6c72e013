"""Timing variants against each other: they alternate in one process; medians, and ratios of the same round.

What a variant needs (a compiler, a graph, memory) may fail or hang. So ours are timed first and by themselves, every
record is handed on as soon as it is known, and a variant that fails costs only itself.
"""

from __future__ import annotations

import functools
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
from sdfgan import _C

_SLOWEST_TOTAL = 90.0  # seconds that all rounds of a comparison may take, after the first three
_MIN_ROUNDS = 3
_GPU_SECONDS = 0.01  # that a timing takes at least: one run may be less than what it costs to launch it
# So begin names of what is compared with.
_THEIRS = ("torch", "peak", "generic", "trimesh", "libigl", "open3d", "pysdf", "scikit-image", "pymcubes")

Record = dict[str, Any]


@dataclass
class Comparison:
    """One thing done in several ways."""

    case: str
    config: dict[str, Any]  # what was done: sizes, counts
    variants: dict[str, Callable[[], Any]]  # whatever is costly to make is made by the first call: see `lazily`
    baselines: tuple[str, ...] = ()  # variants that the others are compared with
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # further numbers, by variant
    examine: Callable[[str, Any], dict[str, Any]] = lambda _name, _answer: {}  # and those given by its first answer
    scale: dict[str, float] = field(default_factory=dict)  # by which a variant's time is multiplied: 1 / its share
    most_rounds: int | None = None

    @property
    def title(self) -> str:
        """The case and its configuration, in a line."""
        return f"{self.case}: " + ", ".join(f"{key} {value}" for key, value in self.config.items())


class DeviceLost(RuntimeError):
    """A kernel has failed in a way after which nothing runs in this process."""


def lazily(make: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
    """A variant that is made when it is first called."""
    made = functools.cache(make)
    return lambda: made()()


def is_ours(variant: str) -> bool:
    """Whether a variant is this package's, rather than one it is compared with."""
    return not variant.startswith(_THEIRS)


def recorded(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """`run` as a CUDA graph, which overwrites what it gave before; on a CPU, as it is."""
    if device.type == "cpu":
        return run
    run()
    torch.cuda.synchronize()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            result = run()
    finally:
        torch.cuda.set_stream(stream)  # which a capture that fails does not do

    def replay() -> Any:
        graph.replay()
        return result

    replay.inputs = run  # type: ignore[attr-defined] # the graph reads them where they are
    return replay


def precisions(device: torch.device) -> tuple[str, ...]:
    """Of the fused networks, the fastest first on a GPU."""
    if device.type == "cuda":
        return ("fp16", "fp32") if torch.cuda.get_device_capability() >= (8, 0) else ("fp32",)
    return ("fp32", "bf16") if _C.has_bf16() else ("fp32",)


def cpu_peak(precision: str) -> Callable[[], float]:
    """Multiply-adds of vectors in registers; returns how many FLOP that was."""
    return functools.partial(_C.multiply_adds, torch.get_num_threads(), precision == "bf16")


def gpu_peak(precision: str, device: torch.device, size: int = 8192) -> Callable[[], float]:
    """A large matrix product of torch's; returns how many FLOP that was."""
    generator = torch.Generator(device).manual_seed(0)  # the default one may be left unusable by a failed capture
    dtype = torch.float16 if precision == "fp16" else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype, generator=generator)

    def run() -> float:
        a @ a
        return 2.0 * size**3

    return run


def summary(error: Exception) -> str:
    """In a line: the first of its own, or two where the first only announces the second."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {' '.join(lines[: 2 if lines[0].endswith(':') else 1])}"


def measure(
    comparison: Comparison,
    rounds: int,
    device: str = "cpu",
    *,
    deadline: float = math.inf,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[list[Record]], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Record]:
    """Time every variant: alone, ours first, then once per round in turn with all others; a record for each.

    The record of a variant that fails has an `error` in place of times.

    Args:
        deadline: of `time.monotonic`. What has not begun by then is left out.
        keep: is given all records whenever there are new ones.
        clock: in seconds, of a CPU; `time.process_time` on a machine that is busy with other work.

    Raises DeviceLost once `keep` has been given what is known.
    """
    shared = environment(device) | ({"clock": "processor"} if clock is time.process_time else {})
    timing = _Timing(comparison, device, shared, clock)
    for name in sorted(comparison.variants, key=is_ours, reverse=True):  # stable: else in their order
        if time.monotonic() > deadline:
            return timing.records()
        say(f"{comparison.title}: {name}")
        timing.alone(name)
        keep(timing.records())
        timing.check_device()
    begin = time.monotonic()
    for number in range(min(rounds, comparison.most_rounds or rounds)):
        now = time.monotonic()
        if now > deadline or (number >= _MIN_ROUNDS and now - begin > _SLOWEST_TOTAL):
            break
        say(f"{comparison.title}: round {number + 1} of {rounds}")
        timing.round()
        keep(timing.records())
        timing.check_device()
    return timing.records()


class _Timing:
    """What is known so far of a comparison."""

    def __init__(self, comparison: Comparison, device: str, shared: Record, clock: Callable[[], float]) -> None:
        self.comparison, self.device, self.shared, self.clock = comparison, device, shared, clock
        self.runs: dict[str, int] = {}  # that a timing takes, of the variants that live
        self.first: dict[str, list[float]] = {}  # timed alone
        self.rounds: dict[str, list[float]] = {}
        self.facts: dict[str, Record] = {}
        self.errors: dict[str, str] = {}

    def alone(self, name: str) -> None:
        """Make a variant, look at its answer, and time it."""
        variant = self.comparison.variants[name]

        def run() -> None:
            answer = variant()
            _wait(self.device)
            self.facts[name] = self.comparison.facts.get(name, {}) | self.comparison.examine(name, answer)
            del answer
            runs = _enough_runs(variant, self.device)
            timings = _MIN_ROUNDS if is_ours(name) and self.device != "cpu" else 1
            self.first[name] = [self._time(variant, name, runs) for _ in range(timings)]
            self.runs[name] = runs

        self._guarded(name, run)

    def round(self) -> None:
        """Time each variant that lives once more; ratios are those of whole rounds."""
        times: dict[str, float] = {}
        for name, runs in list(self.runs.items()):

            def run(name: str = name, runs: int = runs) -> None:
                times[name] = self._time(self.comparison.variants[name], name, runs)

            self._guarded(name, run)
        for name in self.runs:
            self.rounds.setdefault(name, []).append(times[name])

    def _time(self, variant: Callable[[], Any], name: str, runs: int) -> float:
        return _time(variant, runs, self.device, self.clock) * self.comparison.scale.get(name, 1.0)

    def _guarded(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:
            self.errors[name] = summary(error)
            self.runs.pop(name, None)
        if name in self.errors and self.device != "cpu" and not self._lost():
            torch.cuda.empty_cache()  # what it held must not be missed by the others

    def check_device(self) -> None:
        """Raise DeviceLost if a variant has taken the device with it."""
        if self.errors and self._lost():
            raise DeviceLost(self.errors[list(self.errors)[-1]])

    def _lost(self) -> bool:
        try:
            _wait(self.device)
        except RuntimeError:
            return True
        return False

    def records(self) -> list[Record]:
        """In the order of the variants."""
        return [self._record(name) for name in self.comparison.variants if name in self.first or name in self.errors]

    def _record(self, name: str) -> Record:
        of = {"case": self.comparison.case, "config": self.comparison.config, "variant": name}
        if name in self.errors:
            return {**of, "error": self.errors[name], "times_faster_than": {}, **self.shared}
        times = self.rounds.get(name, self.first[name])
        peers = [peer for peer in self.comparison.baselines if peer in self.rounds and peer != name]
        faster = {
            peer: round(statistics.median(b / a for a, b in zip(times, self.rounds[peer], strict=True)), 3)
            for peer in peers
            if peer not in self.errors and name in self.rounds
        }
        quarter, ordered = len(times) // 4, sorted(times)
        return {
            **of,
            "median_s": statistics.median(times),
            "spread": (ordered[-1 - quarter] - ordered[quarter]) / statistics.median(times),
            "rounds": len(times),
            "times_faster_than": faster,
            **self.facts[name],
            **self.shared,
        }


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _enough_runs(variant: Callable[[], Any], device: str) -> int:
    """In a row, for a timing; that is 1 on a CPU. The first timing runs warm."""
    runs = 1
    while device != "cpu" and (seconds := _time(variant, runs, device)) * runs < _GPU_SECONDS:
        runs = math.ceil(1.2 * max(_GPU_SECONDS / seconds, runs))
    return runs


def _time(variant: Callable[[], Any], runs: int, device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a run, the mean of some in a row: by a GPU's own clock, or by `clock`."""
    if device == "cpu":
        start = clock()
        for _ in range(runs):
            variant()
        return (clock() - start) / runs
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(runs):
        variant()
    end.record()
    end.synchronize()
    return max(begin.elapsed_time(end), 1e-3) / 1e3 / runs  # milliseconds, of which its clock may see none


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a number depends on beside the code that was timed."""
    return {
        "device": _processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "simd": sdfgan.build_info()["simd"],
        "torch_simd": torch.backends.cpu.get_cpu_capability(),
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
