"""The records of `growth.py` as docs/scaling.md shows them: exponents, the figure, and what a run costs on paper.

The page has lines `<!-- curves -->` and `<!-- paper -->`; what is between them and the next `<!-- end -->` is replaced.
The figure is made by `python tools/doc_images.py growth.png`. Of a measurement that was repeated, the last one counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from sdfgan.errors import UserError
from sdfgan.training.files import write_text

RESULTS = Path(__file__).parent / "results"
Record = dict[str, Any]
Curves = dict[str, list[Record]]  # by name, each from the smallest

_PANELS = {
    "images of a batch": ("multiscale images", "render images", "gan batch"),
    "pixels along a side": ("multiscale side", "render side", "gan side"),
    "width of the network": ("multiscale width", "render width"),
    "layers of the network": ("multiscale layers", "render layers"),
    "faces of a mesh": ("mesh tree", "mesh distance", "read ply", "read stl", "read obj"),
    "cells along a side": ("grid",),
    "images of a training set": ("set",),
    "threads, processes": ("threads multiscale", "threads render", "threads gan", "processes"),
}
_GPUS = (1, 8, 64)
_LINK = 25e9  # bytes per second between machines: 200 Gb/s
_SET = 10**7


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The power of x that y grows with: the slope of the line through their logarithms with the least squares."""
    x, y = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)


def curves_of(records: Iterable[Record]) -> Curves:
    """Records of `growth.py`, the newest of each point, without those that failed."""
    newest: dict[tuple[str, int], Record] = {}
    for one in records:
        if one.get("case") == "growth":
            newest[one["config"]["curve"], value_of(one)] = one
    found: Curves = {}
    for (name, _), one in sorted(newest.items(), key=lambda item: item[0][1]):
        if "error" not in one:
            found.setdefault(name, []).append(one)
    return found


def value_of(record: Record) -> int:
    """Where on its axis a point is."""
    return next(value for key, value in record["config"].items() if key != "curve")


def read(results: Path = RESULTS) -> Curves:
    """The committed curves."""
    return curves_of(json.loads(line) for line in (results / "growth.jsonl").read_text().splitlines())


def curve_table(curves: Curves, names: Iterable[str]) -> list[str]:
    """A row for each curve: its ends, and the exponents of all of it and of its last two points."""
    lines = ["| what | against | from, to | time | grows with the power (at the end) | memory, MB |", "|---" * 6 + "|"]
    for name in names:
        points = curves[name]
        axis = next(key for key in points[0]["config"] if key != "curve")
        known = [(value_of(one), one["median_s"]) for one in points]
        power = f"{exponent(known):.2f} ({exponent(known[-2:]):.2f})" if name.partition(" ")[0] != "threads" else ""
        ends = [f"{value_of(points[place]):,}" for place in (0, -1)]
        times = [duration(points[place]["median_s"]) for place in (0, -1)]
        memory = [_megabytes(points[place]["megabytes"]) for place in (0, -1)]
        what = points[0]["variant"] + (", wall" if points[0]["clock"] == "wall" else "")
        cells = [what, axis, ", ".join(ends), ", ".join(times), power, ", ".join(memory)]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", _where(curves), *_missing(curves)]


def duration(seconds: float) -> str:
    """In two or three digits."""
    if seconds >= 600:
        return f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.0f} h"
    if seconds >= 10:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.2g} s"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.2g} ms"


def _megabytes(size: float) -> str:
    return f"{size:,.0f}" if size >= 9.95 else f"{max(size, 0):.1f}"


def _where(curves: Curves) -> str:
    every = [one for points in curves.values() for one in points]
    commits = sorted({one["commit"][:7] for one in every})
    load = max(one["load"] for one in every)
    return (
        f"{every[0]['device']}, commit {', '.join(commits)}, `{every[0]['command']}`; while it ran, up to {load:.0f} "
        "processes wanted its two cores. [Records](../benchmarks/results/growth.jsonl)."
    )


def _missing(curves: Curves) -> list[str]:
    """A paragraph that says which points the record lacks, if any."""
    from growth_curves import CURVES

    lacking = []
    for name, curve in CURVES.items():
        known = {value_of(one) for one in curves.get(name, ())}
        if values := [f"{value:,}" for value in curve.values if value not in known]:
            lacking.append(f"{name}: {', '.join(values)}")
    return ["", f"Not measured yet ({'; '.join(lacking)})."] if lacking else []


def paper_table(curves: Curves, results: Path = RESULTS) -> list[str]:
    """What the default GAN of a GPU costs with 1, 8 and 64 of them, and 10 million images: by what was measured of one.

    32 images per GPU and step; a ring sends 2 (N - 1) / N of the gradients; a pass is 10^7 / 32 N steps.
    """
    step, width, side, batch = _gpu_step(results)
    generator, discriminator = parameters(width, side)
    gradients = 4 * (generator + discriminator)
    file = next(one for one in curves["decode"] if value_of(one) == side)
    last = curves["set"][-1]
    opening, held = (last[key] / value_of(last) * _SET for key in ("median_s", "megabytes"))
    draws = {value_of(one): one["median_s"] for one in curves["draw"]}
    rows: dict[str, list[str]] = {}

    def row(what: str, *cells: str) -> None:
        rows[what] = [*cells] if len(cells) > 1 else [cells[0]] * len(_GPUS)

    sent = [2 * (count - 1) / count * gradients for count in _GPUS]
    seconds = [step + bytes_ / _LINK for bytes_ in sent]
    row("images of a step", *(f"{batch * count:,}" for count in _GPUS))
    row("read of a step", *(f"{batch * count * file['bytes'] / 1e6:.2g} MB" for count in _GPUS))
    row("sent by each GPU of a step", *(f"{bytes_ / 1e6:.1f} MB" for bytes_ in sent))
    row(
        "that at 25 GB/s, of a step's time",
        *(f"{100 * b / _LINK / s:.1f} %" for b, s in zip(sent, seconds, strict=True)),
    )
    row("drawing latents, cameras and points of all, in each process", *(duration(draws[batch * n]) for n in _GPUS))
    row("step", *(duration(each) for each in seconds))
    row("a pass over 10 million", *(duration(_SET / (batch * n) * s) for n, s in zip(_GPUS, seconds, strict=True)))
    row("cores that decode, per GPU", f"{batch / step * file['median_s'] / file['images']:.2g}")
    row("checkpoint", f"{4 * (5 * generator + 3 * discriminator) / 1e6:.0f} MB")
    row("opening 10 million in shards, each process", duration(opening))
    row("memory of that, per process", f"{held / 1e3:.1f} GB")
    row("memory of that, per machine of 8", *(f"{held / 1e3 * min(count, 8):.0f} GB" for count in _GPUS))
    lines = ["| | " + " | ".join(f"{n} GPU" + "s" * (n > 1) for n in _GPUS) + " |", "|---" * (1 + len(_GPUS)) + "|"]
    lines += [f"| {what} | " + " | ".join(cells) + " |" for what, cells in rows.items()]
    inputs = (
        f"Inputs: a step of {duration(step)} on an H200 ({batch} images of {side} x {side}, width {width}; "
        "`gpu_training.py gan`, [records](../benchmarks/results/nvidia-h200.jsonl)); float32 gradients of "
        f"{generator:,} parameters of the generator and {discriminator:,} of the discriminator; a file of "
        f"{file['bytes'] / 1e3:.1f} kB that takes {1e3 * file['median_s'] / file['images']:.2g} ms to decode, and "
        f"{1e6 * opening / _SET:.0f} µs and {1e6 * held / _SET:.0f} bytes for each image of a set (the curves above)."
    )
    return [*lines, "", inputs]


def _gpu_step(results: Path) -> tuple[float, int, int, int]:
    """Seconds of the newest step that was measured on a GPU, with the defaults; width, resolution, batch."""
    lines = [json.loads(line) for line in (results / "nvidia-h200.jsonl").read_text().splitlines()]
    newest = [one for one in lines if one["case"] == "gan" and one["variant"].startswith("step, graphs")][-1]
    config = newest["config"]
    return newest["numbers"]["median_ms"] / 1e3, config["width"], config["resolution"], config["batch"]


def parameters(width: int, resolution: int) -> tuple[int, int]:
    """Of the generator and the discriminator of `train-gan` with otherwise default settings."""
    from sdfgan.gan import GanConfig
    from sdfgan.gan.data import TrainingData
    from sdfgan.gan.job import GanJob

    config = GanConfig(device="cpu", width=width, resolution=resolution).resolved()
    with closing(GanJob(config, TrainingData.of(torch.zeros(1, 4, resolution, resolution, dtype=torch.uint8)))) as job:
        counts = [sum(one.numel() for one in net.parameters()) for net in (job.generator, job.discriminator)]
    return counts[0], counts[1]


def tables(results: Path = RESULTS) -> dict[str, str]:
    """The tables of the page, by the mark above them."""
    curves = read(results)
    names = [name for panel in _PANELS.values() for name in panel if name in curves]
    names += [name for name in curves if name not in names]
    return {"curves": "\n".join(curve_table(curves, names)), "paper": "\n".join(paper_table(curves, results))}


def rewrite(page: Path, results: Path = RESULTS) -> None:
    """Replace the page's tables. Raises UserError where it has no place for them."""
    text = page.read_text()
    for mark, table in tables(results).items():
        before, here, rest = text.partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition("\n<!-- end -->")
        if not here or not end:
            raise UserError(f"{page}: must have the lines <!-- {mark} --> and <!-- end -->")
        text = before + here + table + end + after
    write_text(page, text)


def draw(path: Path, results: Path = RESULTS) -> None:
    """The figure: time (lines) and memory (dashes) of all curves. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    curves = read(results)
    figure, panels = pyplot.subplots(2, 4, figsize=(15, 7), layout="constrained")
    for panel, (label, names) in zip(panels.flat, _PANELS.items(), strict=True):
        memory = panel.twinx()
        for number, name in enumerate(name for name in names if name in curves):
            x = [value_of(one) for one in curves[name]]
            panel.plot(x, [one["median_s"] for one in curves[name]], "o-", ms=3, color=f"C{number}", label=name)
            memory.plot(x, [max(one["megabytes"], 0.1) for one in curves[name]], "--", lw=1, color=f"C{number}")
        panel.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds")
        memory.set(yscale="log", ylabel="MB (dashed)")
        for axis in (panel.xaxis, panel.yaxis, memory.yaxis):
            axis.set_minor_formatter(NullFormatter())
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
