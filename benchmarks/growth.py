"""How time and memory grow with what is asked for: a curve for each, with the exponent of a power law fitted to it.

    python benchmarks/growth.py all --json benchmarks/results/growth.jsonl --page docs/scaling.md
    python benchmarks/growth.py multiscale render --quick

Every point has a process of its own, in which the smallest one runs first (it loads libraries). Time is that of the
processor, of one thread, so a busy machine costs little more; only of several threads it is the clock on the wall, and
needs an idle machine. Memory is the most that the process has held since what it works on was made, beyond what it held
before that. The network is a FiLM-SIREN that was not trained, a sphere at any width.

CURVE: a name, or how it begins ("mesh" is all that begin so); `--list` has them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from bench import RecordFile
from growth_curves import CURVES, Record, together
from growth_page import exponent, rewrite
from measure import environment
from memory import high_water, resident
from sdfgan.errors import UserError

_ROUNDS = 5
_ENOUGH = 3.0  # seconds after which no further round begins


def point(name: str, value: int, rounds: int) -> Record:
    """What a curve's value takes, measured in this process, which has done nothing yet."""
    curve = CURVES[name]
    torch.set_num_threads(1)
    if not curve.threads:
        curve.make(curve.values[0])()
    before = resident()
    run = curve.make(value)
    Path("/proc/self/clear_refs").write_text("5")  # the most it has held counts from here
    clock = time.perf_counter if curve.threads else time.process_time
    times: list[float] = []
    end = time.monotonic() + _ENOUGH
    while not times or (len(times) < rounds and time.monotonic() < end):
        begin = clock()
        answer = run()
        times.append(clock() - begin)
        if len(times) == 1:
            megabytes = max(0, high_water() - before) / 2**20
            facts = curve.examine(answer)
        del answer
    times = times[1:] or times
    return {
        "median_s": statistics.median(times),
        "rounds": len(times),
        "megabytes": megabytes,
        "clock": "wall" if curve.threads else "processor",
        "load": os.getloadavg()[0],
        **facts,
    }


def measure(name: str, value: int, rounds: int = _ROUNDS) -> Record:
    """The record of a point, from a process that is gone; with `error` in place of numbers where it failed."""
    curve = CURVES[name]
    of = {"case": "growth", "config": {"curve": name, curve.axis: value}, "variant": curve.about}
    try:
        (numbers,) = together([partial(point, name, value, rounds)], "spawn" if curve.threads else "fork")
    except Exception as error:
        numbers = {"error": f"{type(error).__name__}: {error}"}
    return {**of, **numbers, "times_faster_than": {}}


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curve", nargs="*", metavar="CURVE", help="what to measure, or all")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, once: does it work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add records to FILE")
    parser.add_argument("--page", type=Path, metavar="FILE", help="docs/scaling.md: make its tables anew")
    arguments = parser.parse_args()
    chosen = [name for name in CURVES if any(one == "all" or name.startswith(one) for one in arguments.curve)]
    for one in arguments.curve:
        if one != "all" and not any(name.startswith(one) for name in CURVES):
            parser.error(f"CURVE must be all, or begin one of {', '.join(CURVES)}; got {one}")
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    console = Console(width=None if sys.stdout.isatty() else 170)
    if arguments.list:
        for name, curve in CURVES.items():
            console.print(
                f"{name:20s} {curve.about}: {curve.axis} {', '.join(map(str, curve.values))}", highlight=False
            )
    file, shared, good = RecordFile(arguments.json), environment() | {"threads": 1}, True
    for name in chosen:
        curve, records = CURVES[name], []
        for value in curve.values[: curve.quick] if arguments.quick else curve.values:
            with console.status(f"{name}: {curve.axis} {value}"):
                record = {**measure(name, value, 1 if arguments.quick else _ROUNDS), **shared}
            if curve.threads:
                record["threads"] = value
            records.append(record)
            file.write(records)
            good &= "error" not in record
            numbers = record.get("error") or f"{record['median_s']:.4g} s, {record['megabytes']:.0f} MB"
            console.print(f"{name}: {value}: {numbers}", highlight=False, markup=False)
        file.finish(records)
        known = [(one["config"][curve.axis], one["median_s"]) for one in records if "error" not in one]
        if len(known) > 1:
            console.print(f"{name}: time grows with the power {exponent(known):.2f}", highlight=False)
    if arguments.page:
        rewrite(arguments.page)
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        print(f"growth.py: {error}", file=sys.stderr)
        sys.exit(2)
