"""Measure this package against plain torch.

    python benchmarks/bench.py --list
    python benchmarks/bench.py trace evaluate --quick
    python benchmarks/bench.py all --threads 1 --json benchmarks/results/mine.jsonl
    python benchmarks/bench.py trace evaluate ops --device cuda --seconds 120

The variants of a comparison alternate in one process, so that a machine whose speed drifts is fair to all. Told are
medians, their spread (the middle half of the rounds, as a share of the median) and, for every baseline, the median of
the ratios within each round. With --json the records are added to a file, one per line, as soon as they are known, and
a picture of the ratios is drawn beside it. A variant that fails is a line of its own and costs only itself; the exit
status is 1 if it was one of this package.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from cases import CASES
from measure import Comparison, DeviceLost, Record, is_ours, measure, summary
from options import Options
from sdfgan import _C
from sdfgan.errors import UserError
from sdfgan.training.files import write_text

_PACKAGES = {"igl": "libigl", "mcubes": "PyMCubes"}  # by the module that they hold
_DISTANCES = {"igl": "libigl", "open3d": "Open3D", "pysdf": "pysdf", "rtree": "trimesh"}
_PEERS = {  # modules of each case, and what they are known as
    "mesh_distance": _DISTANCES,
    "mesh_raycast": {"embreex": "Embree", "rtree": "trimesh"},
    "mesh_signs": _DISTANCES,
    "marching": {"igl": "libigl", "mcubes": "PyMCubes"},
    "surface_points": {"igl": "libigl", "open3d": "Open3D"},
}
_CONSOLE = Console(width=None if sys.stdout.isatty() else 170)


_TOLD = {  # what a record holds besides times, and how a table says it
    "largest_error": "error {largest_error:.0e}",
    "queries": "{queries} queries",
    "queries_of_dfr": "({queries_of_dfr:.3f})",
    "useful_lanes": "lanes {useful_lanes:.3f}",
    "iou": "IoU {iou:.5f}",
    "depth_median": "depth {depth_median:.0e} p99 {depth_p99:.0e}",
    "farthest_vertex_cells": "vertices within {farthest_vertex_cells:.2f} cells",
    "wrong_signs_percent": "{wrong_signs_percent:.3f} % wrong",
    "scatter": "scatter {scatter:.2f}",
}


def main() -> int:
    """Run what the command line says."""
    arguments = _parse()
    if arguments.list or not arguments.case:
        for name, case in CASES.items():
            print(f"{name:13s} {(case.__doc__ or '').splitlines()[0]}")
        return 0
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False  # what is called fp32 is fp32
    file = RecordFile(arguments.json)
    for line in missing(arguments):
        _say(line)
    options = Options(arguments.quick, arguments.generator, arguments.device)
    deadline = math.inf if arguments.seconds is None else time.monotonic() + arguments.seconds
    good = True
    for name in CASES if "all" in arguments.case else arguments.case:
        if time.monotonic() > deadline:
            _say(f"{name}: no time left")
            continue
        try:
            for comparison in CASES[name](options):
                if time.monotonic() > deadline:
                    _say(f"{comparison.title}: no time left, nor for what follows in {name}")
                    break
                rounds = 3 if arguments.quick else arguments.rounds
                clock = time.process_time if arguments.processor else time.perf_counter
                good &= _run(comparison, rounds, deadline, file, arguments.device, clock)
        except UserError:
            raise
        except DeviceLost as error:
            _say(f"{name}: the device is lost to this process ({error})")
            good = False
            break
        except Exception as error:  # the next case may well run
            _say(f"{name}: {summary(error)}")
            good = False
    if arguments.json and file.records:
        where = plot([json.loads(line) for line in file.text().splitlines()], arguments.json.with_suffix(".png"))
        _say(f"done: records in {arguments.json}, {where}")
    else:
        _say("done" if arguments.json else "done; --json FILE keeps the numbers")
    return 0 if good else 1


def missing(arguments: argparse.Namespace) -> list[str]:
    """What will not be made for want of a package, a line each: known before the work."""
    wanted = {"matplotlib": "no picture of the ratios will be drawn"} if arguments.json else {}
    for case, packages in _PEERS.items():
        if {case, "all"} & set(arguments.case):
            wanted |= {package: f"nothing will be set beside {peer}" for package, peer in packages.items()}
    return [
        f"{words}: pip install {_PACKAGES.get(name, name)}" for name, words in wanted.items() if not find_spec(name)
    ]


def _run(
    comparison: Comparison, rounds: int, deadline: float, file: RecordFile, device: str, clock: Callable[[], float]
) -> bool:
    """Whether all of this package's variants did what they should, or had no time to."""
    records: list[Record] = []

    def keep(so_far: list[Record]) -> None:
        reported = {record["variant"] for record in records if "error" in record}
        records[:] = so_far
        file.write(records)
        for record in records:
            if "error" in record and record["variant"] not in reported:
                _say(f"{comparison.title}: {record['variant']} failed: {record['error']}")

    try:
        with _CONSOLE.status("") as status:
            measure(comparison, rounds, device, deadline=deadline, say=status.update, keep=keep, clock=clock)
    finally:
        file.finish(records)
        timed = [record for record in records if "error" not in record]
        if timed:
            _CONSOLE.print(_table(comparison.title, timed))
    if left := [name for name in comparison.variants if name not in {record["variant"] for record in records}]:
        _say(f"no time left for {', '.join(left)}")
    return not any("error" in record and is_ours(record["variant"]) for record in records)


def _say(line: str) -> None:
    _CONSOLE.print(line, highlight=False, markup=False, soft_wrap=True)


class RecordFile:
    """Lines of JSON: those that were there, those made since, and those of the comparison under way, which may change.

    It is replaced as a whole, so that whatever ends this process leaves all that was known by then.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.before = path.read_text() if path and path.exists() else ""
        self.records: list[Record] = []

    def text(self, under_way: list[Record] | None = None) -> str:
        """All lines."""
        return self.before + "".join(json.dumps(record) + "\n" for record in (*self.records, *(under_way or ())))

    def write(self, under_way: list[Record]) -> None:
        """Replace the file."""
        if self.path:
            write_text(self.path, self.text(under_way))

    def finish(self, under_way: list[Record]) -> None:
        """These will not change any more."""
        self.records += under_way


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}, or all")
    parser.add_argument("--list", action="store_true", help="say what there is to measure")
    parser.add_argument("--quick", action="store_true", help="small sizes, three rounds: does it work?")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: %(default)s")
    parser.add_argument("--threads", type=_positive, help="CPU threads (default: what torch takes)")
    parser.add_argument(
        "--processor", action="store_true", help="time of the processor, not of the clock: for one busy with other work"
    )
    parser.add_argument("--rounds", type=_positive, default=9, help="of each comparison (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add records to FILE, draw FILE's ratios as .png")
    parser.add_argument("--seconds", type=_positive, help="begin nothing more after so long")
    parser.add_argument("--generator", type=Path, metavar="RUN", help="trace a generator that train_gan.py made")
    arguments = parser.parse_args()
    for name in arguments.case:
        if name not in (*CASES, "all"):
            parser.error(f"CASE must be {', '.join(CASES)} or all, got {name}")
    if arguments.device != "cpu" and not (torch.cuda.is_available() and _C.cuda):
        parser.error(f"--device {arguments.device}: needs a GPU that torch can use and a build with CUDA")
    if arguments.processor and (arguments.device != "cpu" or arguments.threads != 1):
        parser.error("--processor: needs --device cpu and --threads 1, or the time of all threads would be added up")
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def _table(title: str, records: list[Record]) -> Table:
    table = Table(title=f"{title} ({records[0]['threads']} threads)", title_justify="left")
    baselines = list(dict.fromkeys(name for record in records for name in record["times_faster_than"]))
    table.add_column("variant")
    for column in ("median", "spread", *(f"x {name}" for name in baselines), "more"):
        table.add_column(column, justify="left" if column == "more" else "right")
    peaks = [record for record in records if record["variant"].startswith("peak")]
    for record in records:
        more = []
        if "work_flop" in record:
            rate = record["work_flop"] / record["median_s"]
            more.append(f"{rate / 1e9:.0f} GF/s")
            if peaks:
                peak = peaks[0]["work_flop"] / peaks[0]["median_s"]
                more[-1] += f", {100 * rate / peak:.0f} % of the {peaks[0]['variant']}"
        more += [words.format(**record) for name, words in _TOLD.items() if name in record]
        if "watertight" in record:
            more.append(f"{record['faces_made']} faces{', watertight' if record['watertight'] else ', with holes'}")
        faster = record["times_faster_than"]
        ratios = [f"{faster[name]:.2f}" if name in faster else "" for name in baselines]
        seconds = record["median_s"]
        median = f"{seconds * 1e3:.{2 if seconds > 0.01 else 3}f} ms" if seconds < 1 else f"{seconds:.2f} s"
        table.add_row(record["variant"], median, f"{100 * record['spread']:.0f} %", *ratios, " ".join(more))
    return table


def plot(records: list[Record], path: Path) -> str:
    """Bars: how many times faster each of our variants is than each baseline. Says where they are, or why nowhere."""
    bars = []
    for record in records:
        for baseline, ratio in record.get("times_faster_than", {}).items():  # other commands' records have none
            if is_ours(record["variant"]):
                what = ", ".join(f"{value}" for value in record["config"].values())
                label = f"{record['case']} {what} | {record['threads']} threads | {record['variant']} / {baseline}"
                bars.append((label, ratio))
    if not bars:
        return "no ratios to draw"
    try:
        import matplotlib
    except ImportError:
        return "no picture of the ratios: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 1 + 0.2 * len(bars)), layout="constrained")
    axes.barh(range(len(bars)), [ratio for _, ratio in bars], color="#3b6ea5")
    axes.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=6)
    axes.set_ylim(len(bars), -1)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    for position, (_, ratio) in enumerate(bars):
        axes.text(ratio, position, f" {ratio:.1f}", va="center", fontsize=6)
    axes.set_xlabel(f"times faster ({records[-1]['device']}, commit {records[-1]['commit']})")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return f"ratios in {path}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        sys.exit(2)
