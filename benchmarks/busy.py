"""What threads cost on a machine that is busy with other work, for each way in which OpenMP's threads may wait.

    python benchmarks/busy.py --json benchmarks/results/busy.jsonl    a quarter of an hour of two idle cores
    python benchmarks/busy.py --neighbours 0 2 --rounds 1
    python benchmarks/busy.py --quick

Beside 0, 1 and 4 neighbours, each a process that computes without a pause, fresh processes in turn do two things:
`raycast.multiscale` (4 images of 128^2, a network of width 64) and steps of a GAN's training (32^2, else the default).
They have one thread, or two that wait for one another as OpenMP does by itself (they spin for some milliseconds), with
GOMP_SPINCOUNT=1000 (they spin briefly), or with OMP_WAIT_POLICY=PASSIVE (they sleep), which `sdfgan` sets.

Numbers are milliseconds by the clock on the wall: medians of calls, and of the processes of all rounds. More threads
help where they are faster than one; beside neighbours that depends on how they wait. Neighbours end with this program,
however it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parent))

from bench import RecordFile
from growth_curves import TINY, gan_step, multiscale
from measure import environment
from sdfgan.errors import UserError

_NEIGHBOUR = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(10_000))"
_READ_BY_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
_IDLE = 0.5  # load, up to which a machine counts as idle
Record = dict[str, Any]


class Work(NamedTuple):
    """Something to be done, and how many times."""

    make: Callable[[], Callable[[], Any]]
    calls: int
    quick: Callable[[], Callable[[], Any]]


WORKS = {
    "multiscale": Work(partial(multiscale, side=128), 25, partial(multiscale, images=1, side=32)),
    "gan step": Work(partial(gan_step, side=32), 5, partial(gan_step, side=16, batch=2, **TINY)),
}


class Way(NamedTuple):
    """How many threads there are, and how OpenMP is set to have them wait."""

    threads: int
    variables: dict[str, str]

    @property
    def name(self) -> str:
        """Of a column."""
        said = [f"`{name}={value}`" for name, value in self.variables.items()]
        return ", ".join([f"{self.threads} thread{'s' if self.threads > 1 else ''}", *said])


def ways(threads: int) -> list[Way]:
    """One thread, and so many in each way."""
    settings = ({}, {"GOMP_SPINCOUNT": "1000"}, {"OMP_WAIT_POLICY": "PASSIVE"})
    return [Way(1, {}), *(Way(threads, variables) for variables in settings)]


@contextmanager
def neighbours(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that compute without a pause, until the block or this process ends."""
    busy = [subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(os.getpid())]) for _ in range(count)]
    try:
        time.sleep(0.2 if busy else 0.0)  # until they have started
        if any(one.poll() is not None for one in busy):
            raise UserError("a neighbour ended before it was to")
        yield busy
    finally:
        for one in busy:
            one.kill()
            one.wait()


def timed(way: Way, quick: bool) -> dict[str, float]:
    """Median seconds of each of `WORKS`, in a process of its own."""
    variables = {name: value for name, value in os.environ.items() if name not in _READ_BY_OPENMP}
    variables |= {"OMP_NUM_THREADS": str(way.threads), **way.variables}
    command = [sys.executable, __file__, "--timed-here", *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise UserError(f"a process of {way.name} ended with status {done.returncode}: {said}")
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def timed_here(quick: bool) -> dict[str, float]:
    """The same, in this process: what runs first is not counted."""
    medians = {}
    for name, work in WORKS.items():
        run = (work.quick if quick else work.make)()
        run()
        seconds = []
        for _ in range(2 if quick else work.calls):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        medians[name] = statistics.median(seconds)
    return medians


def records_of(times: dict[tuple[int, int], list[dict[str, float]]], chosen: list[Way], shared: Record) -> list[Record]:
    """A line for each work, number of neighbours and way, of what is known so far."""
    return [
        {"case": "busy", "config": {"work": work, "neighbours": count, "threads": chosen[index].threads},
         "variant": chosen[index].name, "median_s": statistics.median(one[work] for one in rounds),
         "medians": [one[work] for one in rounds], **shared, "threads": chosen[index].threads}
        for work in WORKS for (count, index), rounds in times.items()
    ]  # fmt: skip


def table(work: str, records: list[Record], chosen: list[Way]) -> str:
    """Milliseconds, as in docs/training-runs.md."""
    rows = [["other processes, each busy", *(way.name for way in chosen)], ["---"] * (1 + len(chosen))]
    own = [one for one in records if one["config"]["work"] == work]
    for count in dict.fromkeys(one["config"]["neighbours"] for one in own):
        found = {one["variant"]: 1e3 * one["median_s"] for one in own if one["config"]["neighbours"] == count}
        rows.append([str(count or "none"), *(f"{found[way.name]:.0f}" for way in chosen)])
    return "\n".join([f"{work}, milliseconds", "", *(f"| {' | '.join(row)} |" for row in rows), ""])


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and twice, to see that it works")
    parser.add_argument("--neighbours", nargs="+", type=int, default=[0, 1, 4], metavar="N", help="default: 0 1 4")
    parser.add_argument(
        "--threads", type=int, default=2, metavar="N", help="beside one: the cores there are (default: 2)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes of each kind (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add records to FILE")
    parser.add_argument("--timed-here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.timed_here:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        print(json.dumps(timed_here(arguments.quick)))
        return 0
    for name, least in {"threads": 2, "rounds": 1}.items():
        if getattr(arguments, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(arguments, name)}")
    if min(arguments.neighbours) < 0 or len(set(arguments.neighbours)) < len(arguments.neighbours):
        parser.error("--neighbours must be different numbers that are at least 0")
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if cores < arguments.threads:
        print(f"--threads {arguments.threads}: this process may use {cores} core(s)", file=sys.stderr)
    if load > _IDLE:
        print(f"the machine is not idle (load {load:.1f}): others count as neighbours too", file=sys.stderr)
    chosen, file, records = ways(arguments.threads), RecordFile(arguments.json), []
    shared = {"clock": "wall", "cores": cores, "load_before": load, **environment()}
    times: dict[tuple[int, int], list[dict[str, float]]] = {}
    for number in range(arguments.rounds):
        for count in arguments.neighbours:
            for index, way in enumerate(chosen):
                said = f"round {number + 1} of {arguments.rounds}, {count} neighbours, {way.name}"
                with neighbours(count):
                    times.setdefault((count, index), []).append(timed(way, arguments.quick))
                print(said, *(f"{name} {1e3 * s:.0f} ms" for name, s in times[count, index][-1].items()), sep=", ")
        records = records_of(times, chosen, shared)
        file.write(records)
    print("", *(table(work, records, chosen) for work in WORKS), sep="\n")
    print(f"{shared['device']}, {shared['cores']} cores, commit {shared['commit']}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("busy.py: interrupted; what is in --json is kept", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"busy.py: {error}", file=sys.stderr)
        sys.exit(2)
