#!/usr/bin/env python3
"""Build, test and measure on this machine's GPU, within eight minutes; results go to benchmarks/results.

    python tools/gpu_report.py
    python tools/gpu_report.py --sanitize 10000 --minutes 60

Needs a GPU that torch can use, nvcc, and what `pip install -e ".[test,bench]"` brings. The package is built in place,
for this GPU alone; build it again for others with `pip install -e .`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Every stage in turn, each with what is left of the time; 1 if one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="for all stages together (default: %(default)s)")
    parser.add_argument(
        "--sanitize", type=int, default=0, metavar="N", help="N random launches under compute-sanitizer"
    )
    parser.add_argument("--no-build", action="store_true", help="measure what is built already")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks/results", help="folder (default: %(default)s)"
    )
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print(f"gpu_report.py: torch {torch.__version__} sees no GPU (torch.cuda.is_available())", file=sys.stderr)
        return 2
    if not arguments.no_build and not shutil.which("nvcc"):
        print("gpu_report.py: nvcc is not on PATH; install the CUDA toolkit, or use --no-build", file=sys.stderr)
        return 2
    major, minor = torch.cuda.get_device_capability()
    device = torch.cuda.get_device_name()
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    records = folder / f"{slug}.jsonl"
    print(f"{device}, sm_{major}{minor}, torch {torch.__version__}", flush=True)

    deadline = time.monotonic() + 60 * arguments.minutes
    environment = {**os.environ, "SDFGAN_CUDA": "ON", "SDFGAN_CUDA_ARCHS": f"{major}{minor}"}
    watched = {**environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # every tensor has bounds of its own
    python = sys.executable
    stages: dict[str, list[str]] = {}
    if not arguments.no_build:
        stages["build"] = [python, "setup.py", "build_ext", "--inplace"]
    stages["tests"] = [python, "-m", "pytest", "-q", "-m", "gpu", "--durations=5"]
    if arguments.sanitize:
        for tool in ("memcheck", "racecheck", "synccheck"):
            run = [python, "tests/gpu/random_launches.py", str(arguments.sanitize)]
            stages[tool] = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *run]
    for case in ("trace", "evaluate", "ops", "field", "step"):
        stages[case] = [python, "benchmarks/bench.py", case, "--device", "cuda", "--json", str(records)]

    known = len(records.read_text().splitlines()) if records.exists() else 0
    outcome = {}
    for name, command in stages.items():
        outcome[name] = _run(name, command, watched if "compute-sanitizer" in command else environment, deadline)
        if name == "build" and outcome[name] != "passed":
            break
    measured = [json.loads(line) for line in records.read_text().splitlines()[known:]] if records.exists() else []
    _print_table(outcome, measured)
    print(f"done: {len(measured)} records in {records}")
    return 0 if all(result == "passed" for result in outcome.values()) else 1


def _run(name: str, command: list[str], environment: dict[str, str], deadline: float) -> str:
    """What became of a stage, in a word or two. Its output is shown."""
    left = deadline - time.monotonic()
    if left < 5:
        return "no time left"
    print(f"\n== {name}: {' '.join(command)} ({left:.0f} s left)", flush=True)
    try:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    except FileNotFoundError:
        return f"{command[0]} not found"
    try:
        status = process.wait(left)
    except subprocess.TimeoutExpired:
        return "out of time"
    finally:
        if process.poll() is None:  # also when interrupted, and with all that it has started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "passed" if status == 0 else f"failed ({status})"


def _print_table(outcome: dict[str, str], records: list[dict]) -> None:
    print("\n" + ", ".join(f"{name} {result}" for name, result in outcome.items()))
    for record in records:
        if record["variant"].startswith(("torch", "peak", "generic")) or not record["times_faster_than"]:
            continue
        what = " ".join(str(value) for value in record["config"].values())
        faster = ", ".join(f"{ratio:.1f}x {name}" for name, ratio in record["times_faster_than"].items())
        accuracy = f" IoU {record['iou']:.5f}" if "iou" in record else ""
        title = f"{record['case']:9s} {what:32s} {record['variant']:26s}"
        print(f"{title} {1e3 * record['median_s']:9.3f} ms{accuracy}  {faster}")


if __name__ == "__main__":
    sys.exit(main())
