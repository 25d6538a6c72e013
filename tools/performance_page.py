"""The page of all measurements, made from the records in benchmarks/results; every number has its device and commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
Record = dict[str, Any]
_DEVICES = {"Intel(R) Xeon(R) Processor @ 2.50GHz": "Intel Xeon 2.5 GHz"}
_NOT_SHOWN = {
    "knobs": "a search for launch parameters",
    "smoke": "each CUDA kernel against the CPU",
    "preflight": "rates of the machine itself",
    "tests": "a run of the test suite",
}


class Table(NamedTuple):
    """Records of one kind: which they are, and the columns beside device and commit."""

    title: str
    about: str
    belongs: Callable[[Record], bool]
    columns: dict[str, Callable[[Record], str]]


def _settings(record: Record) -> str:
    return ", ".join(f"{key} {value}" for key, value in record["config"].items())


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _ratios(record: Record) -> str:
    return ", ".join(f"{ratio:.3g} x {other}" for other, ratio in record["times_faster_than"].items())


def _numbers(record: Record) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_number(value)}" for key, value in record["numbers"].items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _of(*path: str) -> Callable[[Record], str]:
    """What a record holds there; nothing where it holds nothing."""

    def found(record: Record) -> str:
        value: Any = record
        for key in path:
            value = value.get(key, "")
        return _number(value)

    return found


def _columns(*keys: str) -> dict[str, Callable[[Record], str]]:
    return {key.replace("_", " "): _of(key) for key in keys}


def _is(key: str, value: str) -> Callable[[Record], bool]:
    return lambda record: record.get(key) == value


def _timed(title: str, case: str, about: str, **more: Callable[[Record], str]) -> Table:
    columns = {"setting": _settings, "variant": _of("variant"), "median": lambda one: _duration(one["median_s"])}
    return Table(title, about, _is("case", case), {**columns, "times faster than": _ratios, **more})


_FITTED = {
    "mesh": _of("mesh"),
    "variant": _of("variant"),
    "IoU": _of("iou"),
    "Chamfer %": _of("chamfer_percent"),
    "seconds": _of("seconds"),
}
TABLES = (
    _timed("Tracing", "trace", "From latents and cameras to hits. IoU: with dense ray marching.", IoU=_of("iou")),
    _timed("Evaluating a FiLM-SIREN", "evaluate", "`peak`: as many multiply-adds as fast as the device makes them."),
    _timed("Tracing other fields", "field", "Analytic solids, networks of torch."),
    _timed("Images with gradient", "step", "Forward and backward."),
    _timed("Meshing", "mesh", "Marching cubes of a network."),
    _timed("Signed distances to meshes", "mesh_distance", "What is slow is measured on a share of the points."),
    _timed("Samples of signed distances", "signed_samples", "As `train-sdf` draws them; libigl is given the points."),
    _timed(
        "Signs", "mesh_signs", "Wrong signs in percent, of meshes that are broken.", wrong=_of("wrong_signs_percent")
    ),
    _timed("Marching cubes", "marching", "From an analytic field.", faces=_of("faces_made"), closed=_of("watertight")),
    _timed("Points of a surface", "surface_points", "Of their counts, 1 is right.", scatter=_of("scatter")),
    _timed("Operators", "ops", "Each kernel, plain torch and `torch.compile`."),
    Table(
        "Training on a GPU",
        "`gpu_training.py`",
        lambda one: one.get("case") in ("gan", "nerf", "sdf"),
        {"what": _of("case"), "setting": _settings, "variant": _of("variant"), "numbers": _numbers},
    ),
    Table(
        "GAN",
        "`gan.py`: sliced-Wasserstein distance (its floor: between real images), MMD and coverage of shapes.",
        lambda one: one.get("suite") in ("recipes", "losses"),
        {
            "suite": _of("suite"),
            "variant": _of("name"),
            "seed": _of("seed"),
            "steps": _of("steps"),
            "CPU minutes": _of("processor_minutes"),
            "distance": _of("swd"),
            "floor": _of("swd_floor"),
            "MMD": _of("mmd"),
            "coverage": _of("coverage"),
        },
    ),
    Table(
        "Radiance fields",
        "`nerf.py`: Lego at 200 x 200.",
        lambda one: "psnr" in one and "cameras" not in one,
        _columns("model", "steps", "cpu_minutes", "psnr", "ssim", "views"),
    ),
    Table(
        "Cameras that are a little wrong",
        "`nerf_cameras.py`: Lego at 200 x 200, its training cameras turned and moved; mean errors of what was found.",
        lambda one: "cameras" in one,
        _columns("cameras", "model", "steps", "psnr_training", "psnr", "psnr_fitted", "degrees", "distance", "pixels"),
    ),
    Table("Meshes to fields", "`sdf.py recipe`", _is("suite", "recipe"), _FITTED),
    Table(
        "Adam of a hash grid",
        "`sdf.py adam`: on what a batch reaches, and on all; step: milliseconds of processor time.",
        _is("suite", "adam"),
        {**_FITTED, "step": _of("step_ms")},
    ),
    Table("Scalers", "`sdf.py scalers`", _is("suite", "scalers"), _FITTED),
    Table(
        "Gradients of images",
        "`gradients.py scenes`: against central differences of point-sampled rays; 1 is right.",
        _is("table", "scenes"),
        _columns("scene", "view", "scheme", "image_cosine", "image_norm", "alpha_rmse"),
    ),
    Table(
        "Areas of silhouettes",
        "`gradients.py area`: errors in percent, over 20 views.",
        _is("table", "area"),
        _columns("scene", "resolution", "scheme", "area_mean", "area_worst", "slope_mean", "slope_worst"),
    ),
    Table(
        "Differentiable rendering beside its literature",
        "`peers.py gradients`: bias and standard deviation of the gradient of an image loss, relative to its size.",
        _is("table", "gradients"),
        _columns("scene", "method", "rays", "bias", "deviation", "cosine", "norm", "rmse", "area_percent"),
    ),
    Table(
        "Cost of an image with its gradient",
        "`peers.py cost`: in one process each; memory beyond that of a small image.",
        _is("table", "cost"),
        _columns("method", "rays", "resolution", "seconds", "megabytes"),
    ),
    Table(
        "Meshes from images by gradients of images",
        "`peers.py reconstruct`: after so many CPU seconds.",
        _is("table", "reconstruct"),
        _columns(
            "scene",
            "method",
            "views",
            "resolution",
            "cells",
            "batch",
            "seconds",
            "steps",
            "chamfer_percent",
            "surface_percent",
        ),
    ),
    Table(
        "A busy machine",
        "`busy.py`: beside so many processes that compute without a pause.",
        _is("case", "busy"),
        {
            "what": _of("config", "work"),
            "neighbours": _of("config", "neighbours"),
            "variant": _of("variant"),
            "median": lambda one: _duration(one["median_s"]),
        },
    ),
    Table(
        "How cost grows",
        "`growth.py`: each point in a process of its own; megabytes at the peak.",
        _is("case", "growth"),
        {
            "what": _of("variant"),
            "at": lambda one: ", ".join(f"{value} {key}" for key, value in one["config"].items() if key != "curve"),
            "time": lambda one: f"{_duration(one['median_s'])} ({one['clock']})" if "median_s" in one else one["error"],
            "megabytes": _of("megabytes"),
        },
    ),
    Table(
        "Inversion",
        "`inversion.py`: silhouettes of held-out images.",
        _is("benchmark", "inversion"),
        _columns("pictures", "median_iou", "least_iou", "mean_seconds"),
    ),
    Table(
        "Nothing lost",
        "`kills.py`: how often a command was killed (or one of its two processes), and its disk full; runs compared.",
        _is("benchmark", "kills"),
        _columns("tried", "kills", "runs", "kills of a rank", "runs of two", "full disks", "lost"),
    ),
)


def records() -> list[Record]:
    """All of them, in the order of the files; of a measurement that was repeated, the last one."""
    newest: dict[str, Record] = {}
    for file in sorted(RESULTS.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            one = json.loads(line)
            what = {key: one.get(key) for key in ("case", "config", "variant", "device", "threads", "simd")}
            newest[json.dumps(what) if "case" in one else f"{file.name}{len(newest)}"] = {**one, "file": file.name}
    return list(newest.values())


def performance_page() -> str:
    found = records()
    lines = [
        "# Measurements\n",
        "Made from the records in `benchmarks/results`: the newest of each, and where it was measured. Compare rows of "
        "one device and number of threads only; the text of the other pages says what the numbers mean, and "
        "[CONTRIBUTING](../CONTRIBUTING.md#measure) how to repeat them.\n",
    ]
    for table in TABLES:
        rows = [one for one in found if table.belongs(one)]
        lines += [f"## {table.title}\n", f"{table.about}\n", *_table(table.columns, rows), ""]
    lines += ["## Real models\n", "`models.py`: medians over the models that were fitted.\n", *_models(found), ""]
    lines.append("## Not shown\n")
    for case, meaning in _NOT_SHOWN.items():
        lines.append(f"- `{case}`, {meaning}: {sum(one.get('case') == case for one in found)} records")
    others = sum(one.get("table") in ("network", "queries") for one in found)
    lines.append(f"- `network` and `queries` of `gradients.py`: {others} records")
    return "\n".join([*lines, ""])


def _table(columns: dict[str, Callable[[Record], str]], rows: Iterable[Record]) -> list[str]:
    heads = [*columns, "device", "threads", "commit"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [column(row) for column in columns.values()]
        device = _DEVICES.get(row["device"], row["device"]) + (", AVX2 code" if row.get("simd") == "avx2" else "")
        cells += [device, str(row.get("threads") or ""), f"`{row['commit'][:7]}`"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _models(found: list[Record]) -> list[str]:
    groups: dict[tuple[str, ...], list[Record]] = {}
    for one in found:
        if one.get("suite") == "models":
            key = (one["variant"], one["field"], one["device"], str(one["threads"]), one["commit"][:7])
            groups.setdefault(key, []).append(one)
    lines = ["| variant | field | models | IoU | Chamfer % | seconds | device | threads | commit |", "|---" * 9 + "|"]
    for (variant, field, device, threads, commit), rows in groups.items():
        known = [[one["metrics"][key] for one in rows if key in one["metrics"]] for key in ("iou", "chamfer_percent")]
        middle = [_number(median(values)) if values else "" for values in known]
        cells = [variant, field, str(len(rows)), *middle, _number(median(one["wall_seconds"] for one in rows))]
        lines.append("| " + " | ".join([*cells, device, threads, f"`{commit}`"]) + " |")
    return lines
