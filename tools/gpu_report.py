#!/usr/bin/env python3
"""Check, measure and train on this machine's GPU, within six minutes: what is right first, then how fast it is.

    python tools/gpu_report.py --scene lego/ --mesh fandisk.obj
    python tools/gpu_report.py --stages smoke,trace --no-build
    python tools/gpu_report.py --sanitize 10000 --minutes 60

Each stage is a process of its own with its own limit, so that one that hangs or crashes costs only itself. After each
the table so far is printed and report.txt is written again; records are appended to a .jsonl file by the stages
themselves. The package is built in place, for this GPU alone; build it again for others with `pip install -e .`.
Needs a GPU that torch can use and, without --no-build, nvcc; what else is missing costs the stages that use it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stage_process import last_lines, run_limited

ROOT = Path(__file__).resolve().parents[1]
_MINUTES = 6.0  # that the limits below are made for
_HEARTBEAT = 10  # seconds
_LINES_SHOWN = 40  # of a stage's output when it has ended; the log has more
_LINES_KEPT = 15  # of it in report.txt, if it has failed
_TESTS = """tests/gpu tests/ops tests/fields tests/raycast tests/volume
    tests/gan/test_methods.py tests/sdf/test_truth.py"""
_QUICK_TESTS = "tests/ops/test_rays.py"  # where there is no GPU
_DEVICE_QUESTION = """
import json, torch
assert torch.cuda.is_available(), f"torch {torch.__version__} sees no GPU (torch.cuda.is_available())"
print(json.dumps([torch.cuda.get_device_name(), *torch.cuda.get_device_capability(), torch.__version__]))
"""


@dataclass(frozen=True)
class Stage:
    """A command and how many seconds it may take."""

    name: str
    command: list[str]
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    required: bool = False  # nothing else makes sense if it fails


def main() -> int:
    """Every stage in turn; 1 if one has failed."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and what runs is ended
    if arguments.device == "cuda":
        found = _gpu()
        if isinstance(found, str):
            print(f"gpu_report.py: {found}", file=sys.stderr)
            return 2
        device, major, minor, torch_version = found
        title = f"{device}, sm_{major}{minor}, torch {torch_version}"
        environment = {"SDFGAN_CUDA": "ON", "SDFGAN_CUDA_ARCHS": f"{major}{minor}"}
        if not arguments.no_build:
            nvcc = _nvcc()
            if nvcc is None:
                print(
                    "gpu_report.py: no nvcc on PATH, by CUDACXX, CUDA_HOME or in /usr/local/cuda; "
                    "install the CUDA toolkit, or use --no-build",
                    file=sys.stderr,
                )
                return 2
            environment["CUDACXX"] = str(nvcc)
    else:
        device, title, environment = "cpu", "a rehearsal without a GPU: tiny sizes, and no number counts", {}
    folder = arguments.output.resolve()
    records = folder / (re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".jsonl")
    with tempfile.TemporaryDirectory(prefix="gpu-report-", ignore_cleanup_errors=True) as scratch:
        stages = make_stages(arguments, folder, records, Path(scratch), environment)
        unknown = set(arguments.stages) - {stage.name for stage in stages}
        if unknown:
            known = ", ".join(stage.name for stage in stages)
            print(f"gpu_report.py: --stages must be of {known}, got {', '.join(sorted(unknown))}", file=sys.stderr)
            return 2
        chosen = [stage for stage in stages if not arguments.stages or stage.name in arguments.stages]
        if not arguments.stages and arguments.scene is None:
            print("no nerf stage: --scene is not given")
        folder.mkdir(parents=True, exist_ok=True)
        passed = run_stages(chosen, folder, records, arguments.minutes, title)
    return 0 if passed else 1


def run_stages(stages: list[Stage], folder: Path, records: Path, minutes: float, title: str) -> bool:
    """Run stages one after the other, within so many minutes; whether all have passed."""
    deadline = time.monotonic() + 60 * minutes
    scale = minutes / _MINUTES
    known = len(_read_records(records))
    outcomes: dict[str, tuple[str, float]] = {}
    failures: dict[str, list[str]] = {}
    log, running = folder / "report.log", folder / "running.log"
    log.write_text(f"{title}\n\n")
    print(title, flush=True)
    for stage in stages:
        left = deadline - time.monotonic()
        if left < 5:
            outcomes[stage.name] = "no time left", 0.0
            continue
        limit = min(stage.limit * scale, left)
        print(f"\n== {stage.name}: {' '.join(stage.command)} (at most {limit:.0f} of {left:.0f} s)", flush=True)
        running.write_text(f"== {stage.name}: {' '.join(stage.command)}\n")
        heard = Heartbeat(stage.name, limit, running)
        ended = run_limited(stage.command, limit, running, {**_environment(), **stage.environment}, ROOT, heard)
        outcomes[stage.name] = ended
        shown = last_lines(running, _LINES_SHOWN + 1)
        print("\n".join(line for line in shown if not line.startswith("== ")))
        if ended.outcome != "passed":
            failures[stage.name] = shown[-_LINES_KEPT:]
        _append(log, running, ended.outcome)
        _end_line(records)
        measured = _read_records(records)[known:]
        report = table(title, [stage.name for stage in stages], outcomes, measured)
        print("\n" + report, flush=True)
        _replace(folder / "report.txt", report + _tails(failures))
        if stage.required and ended.outcome != "passed":
            break
    print(f"\ndone: {len(_read_records(records)) - known} records in {records}; {folder / 'report.txt'}, {log}")
    return len(outcomes) == len(stages) and all(outcome == "passed" for outcome, _ in outcomes.values())


class Heartbeat:
    """Says now and then that a stage still runs, and the last line that it has printed."""

    def __init__(self, name: str, limit: float, output: Path) -> None:
        self.name, self.limit, self.output, self.said = name, limit, output, 0.0

    def __call__(self, seconds: float) -> None:
        """To be called often."""
        if seconds - self.said >= _HEARTBEAT:
            self.said = seconds
            said = [line for line in last_lines(self.output, 1, 100) if not line.startswith("== ")]
            print(f"   {self.name}: {seconds:.0f} of {self.limit:.0f} s: {' '.join(said)}", flush=True)


def make_stages(
    arguments: argparse.Namespace, folder: Path, records: Path, scratch: Path, environment: dict[str, str]
) -> list[Stage]:
    """All stages, in their order, with limits that fit into six minutes when most stay below theirs."""
    python, gpu = sys.executable, arguments.device == "cuda"
    common = ["--device", arguments.device, "--json", str(records)]
    quick = [] if gpu else ["--quick"]

    def script(path: str, *rest: str) -> list[str]:
        return [python, path, *rest, *common]

    def bench(limit: float, *cases: str) -> list[str]:
        within = max(5.0, (limit - 10) * arguments.minutes / _MINUTES)
        return script("benchmarks/bench.py", *cases, *quick, "--seconds", f"{within:.0f}")

    pictures = ["--pictures", str(folder), "--scratch", str(scratch)]
    stages = []
    if gpu and not arguments.no_build:
        build = [python, "setup.py", "build_ext", "--inplace"]
        stages.append(Stage("build", build, 240, environment, required=True))
    stages += [
        Stage("preflight", script("benchmarks/gpu_preflight.py"), 15 if gpu else 60),
        Stage("smoke", script("benchmarks/gpu_smoke.py"), 60),
        Stage("tests", _pytest(python, gpu), 90, {"SDFGAN_TEST_RECORDS": str(records)}),
    ]
    if gpu:
        stages.append(Stage("knobs", bench(40, "knobs"), 40))
    stages.append(Stage("gan", script("benchmarks/gpu_training.py", "gan", *quick), 40))
    if arguments.scene is not None:
        within = ["--seconds", str(35 * arguments.minutes / _MINUTES)]
        nerf = ["nerf", "--scene", str(arguments.scene.resolve()), *within, *quick, *pictures]
        stages.append(Stage("nerf", script("benchmarks/gpu_training.py", *nerf), 60))
    mesh = ["--mesh", str(arguments.mesh.resolve())] if arguments.mesh is not None else []
    stages += [
        Stage("sdf", script("benchmarks/gpu_training.py", "sdf", *mesh, *quick, *pictures), 60),
        Stage("ops", bench(50, "ops"), 50),
        Stage("evaluate", bench(25, "evaluate"), 25),
        Stage("trace", bench(40, "trace"), 40),
        Stage("step", bench(25, "step", "field"), 25),
    ]
    asked, sanitizer = arguments.sanitize is not None, _sanitizer()
    if gpu and not asked and sanitizer is None:
        print("no memcheck stage: compute-sanitizer is neither on PATH nor beside nvcc")
    launches = arguments.sanitize if asked else 200 if sanitizer else 0
    # Every tensor with bounds of its own.
    watched = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for tool in ("memcheck", "racecheck", "synccheck") if asked else ("memcheck",):
        run = [python, "tests/gpu/random_launches.py", str(launches)]
        command = [sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *run]
        if gpu and launches:
            stages.append(Stage(tool, command, 60, watched))
    return stages


def table(title: str, names: list[str], outcomes: dict[str, tuple[str, float]], records: list[dict[str, Any]]) -> str:
    """What became of each stage, then the numbers."""
    lines = [title]
    for name in names:
        outcome, seconds = outcomes.get(name, ("not yet", 0.0))
        lines.append(f"  {name:10s} {outcome:24s} {seconds:6.1f} s")
    checks = [record for record in records if record["case"] == "smoke"]
    if checks:
        good = sum(record["numbers"]["passed"] for record in checks)
        lines.append(f"smoke: {good} of {len(checks)} checks passed")
    return "\n".join([*lines, *filter(None, map(_line, records))]) + "\n"


def _line(record: dict[str, Any]) -> str:
    """A record in a line; nothing for a check that has passed and for a baseline."""
    numbers = dict(record.get("numbers", {}))
    if record["case"] == "smoke" and numbers.pop("passed") and "ms" not in numbers:
        return ""
    what = " ".join(str(value) for value in record["config"].values())
    title = f"{record['case']:9s} {what:32s} {record['variant']:26s}"
    if "median_s" not in record:
        if "error" in record:
            numbers["error"] = record["error"]
        shown = ((name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in numbers.items())
        return f"{title} {', '.join(f'{name} {value}' for name, value in shown)}"
    faster = record["times_faster_than"]
    if record["variant"].startswith(("torch", "peak", "generic")):
        return ""
    accuracy = f" IoU {record['iou']:.5f}" if "iou" in record else ""
    ratios = ", ".join(f"{ratio:.1f}x {name}" for name, ratio in faster.items())
    return f"{title} {1e3 * record['median_s']:9.3f} ms{accuracy}  {ratios}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=_MINUTES, help="for all; limits scale with it (default: %(default)s)")
    add("--stages", type=lambda text: text.split(","), default=[], metavar="A,B", help="these alone")
    add(
        "--sanitize",
        type=int,
        metavar="N",
        help="N random launches each under memcheck, racecheck and synccheck",
    )
    add("--no-build", action="store_true", help="measure what is built already")
    add("--scene", type=Path, metavar="FOLDER", help="scene in Blender's format to train a radiance field on")
    add("--mesh", type=Path, metavar="FILE", help="mesh to learn the distance to (default: a made one)")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal of what a CPU can do")
    add("--output", type=Path, default=ROOT / "benchmarks/results", help="folder (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.scene is not None and not (arguments.scene / "transforms_train.json").is_file():
        parser.error(f"--scene {arguments.scene}: no transforms_train.json in it")
    if arguments.mesh is not None and not arguments.mesh.is_file():
        parser.error(f"--mesh {arguments.mesh}: no such file")
    return arguments


def _environment() -> dict[str, str]:
    """Of all stages: the package is that of this tree, installed or not."""
    paths = [str(ROOT), str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _gpu() -> tuple[str, int, int, str] | str:
    """Name, capability and torch's version; or why there is none. Asked by a process that can be ended."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        answer.touch()
        ended = run_limited([sys.executable, "-c", _DEVICE_QUESTION], 60, answer, _environment(), ROOT)
        lines = last_lines(answer, 5, 2000) or [ended.outcome]
    if ended.outcome != "passed":
        return lines[-1].removeprefix("AssertionError: ")
    name, major, minor, torch_version = json.loads(lines[-1])
    return name, major, minor, torch_version


def _nvcc() -> Path | None:
    """Where CMake finds it, too."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [os.environ.get("CUDACXX"), shutil.which("nvcc"), home and f"{home}/bin/nvcc"]
    candidates.append("/usr/local/cuda/bin/nvcc")
    return next((Path(found) for found in map(shutil.which, filter(None, candidates)) if found), None)


def _sanitizer() -> str | None:
    nvcc = _nvcc()
    beside = str(nvcc.resolve().parent / "compute-sanitizer") if nvcc else None
    return shutil.which("compute-sanitizer") or (beside and shutil.which(beside))


def _pytest(python: str, gpu: bool) -> list[str]:
    command = [python, "-m", "pytest", "-q", "--tb=short", "-rfE", "-p", "no:cacheprovider", "-p", "instant_failures"]
    if importlib.util.find_spec("pytest_timeout"):
        command += ["--timeout", "40", "--timeout-method", "thread"]
    if not gpu:
        return [*command, "-m", "not slow", _QUICK_TESTS]
    if importlib.util.find_spec("xdist"):
        command += ["-n", "8"]
    return [*command, "-m", "gpu", "--continue-on-collection-errors", "--durations=5", *_TESTS.split()]


def _read_records(path: Path) -> list[dict[str, Any]]:
    """Those that are whole: the last line of a process that was killed may not be."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"not a record: {line[:80]}")
    return records


def _append(log: Path, running: Path, outcome: str) -> None:
    """Move the output of a stage to the end of the log."""
    with log.open("ab") as file:
        file.write(running.read_bytes() + f"\n== {outcome}\n\n".encode())
    running.unlink()


def _end_line(records: Path) -> None:
    """So that the next stage begins a line where one was killed within its last."""
    if records.exists() and not records.read_bytes().endswith(b"\n"):
        with records.open("a") as file:
            file.write("\n")


def _tails(failures: dict[str, list[str]]) -> str:
    return "".join(f"\n== the end of {name}\n" + "\n".join(lines) + "\n" for name, lines in failures.items())


def _replace(path: Path, text: str) -> None:
    """Write a file so that it is either the old or the new one."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
