"""What `train-sdf` reaches, by wall time.

    python benchmarks/sdf.py recipe MESH... [--preset medium] [--recipe low]   # against Neural Implicit Tools' recipe
    python benchmarks/sdf.py scalers MESH...                                   # each scaler with each preset
    python benchmarks/sdf.py adam MESH...                                      # beside torch's Adam

In `recipe` ours, as `sdfgan train-sdf` runs it, and the older recipe in plain torch get the same mesh, repaired and
normalised, and the same number of threads, and are judged by the same metrics; the time of both is that of drawing
samples and of training. In `adam` two fields learn from the same samples in the same process, turn about, one by
`GridAdam` and one by torch's fused Adam, which steps on the whole table of the hash grid.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from sdfgan.fields.function import FunctionField
from sdfgan.meshes import marching_cubes, normalise, repair
from sdfgan.sdf import GroundTruth, Placement, SampleStream, evaluation, read_mesh
from sdfgan.sdf.config import DAM_WIDTHS, PRESETS, ScalerName, SdfConfig
from sdfgan.sdf.files import Case
from sdfgan.sdf.job import SdfJob
from sdfgan.sdf.model import make_field

_RESOLUTION = 192
_SCALER_SAMPLES = 100_000
_BLOCK = 20  # steps
_COLUMNS = {"IoU": "iou", "Chamfer %": "chamfer_percent", "normals": "normal_consistency", "F-score": "f_score"}
_NOWHERE = Placement((0.0, 0.0, 0.0), 1.0)


def plain_network() -> nn.Module:
    """The eleven ReLU layers, He-uniform."""
    layers: list[nn.Module] = []
    inputs = 3
    for width in DAM_WIDTHS:
        linear = nn.Linear(inputs, width)
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1), nn.Flatten(0))


def plain(truth: GroundTruth, preset: str, device: str) -> nn.Module:
    """The recipe: importance samples, Adam, L1."""
    recipe = PRESETS[False][preset]
    torch.manual_seed(0)
    samples = SampleStream(truth, recipe["num_points"], "importance", in_memory=recipe["num_points"])
    network = plain_network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for epoch in range(recipe["epochs"]):
        for batch in samples.epoch(epoch, recipe["batch_size"]):
            optimizer.zero_grad()
            (network(batch.points) - batch.distances).abs().mean().backward()
            optimizer.step()
    return network


def _job(truth: GroundTruth, preset: str, scaler: str, device: str) -> SdfJob:
    """Of `sdfgan train-sdf --preset ... --scaler ...`."""
    config = SdfConfig(preset=preset, scaler=scaler, device=device).resolved()  # type: ignore[arg-type]
    stream = SampleStream(truth, config.num_points, config.sampling, beta=config.beta)
    first = next(stream.epoch(0, min(_SCALER_SAMPLES, len(stream))))
    torch.manual_seed(0)
    field = make_field(config, (first.points.cpu(), first.distances.cpu()), _NOWHERE)
    case = Case(Path(), Path(), stream, None, _NOWHERE, None, None, None)
    return SdfJob(config, [case], [field])


def ours(truth: GroundTruth, preset: str, scaler: str, device: str) -> nn.Module:
    """What `sdfgan train-sdf --preset ... --scaler ...` does."""
    job = _job(truth, preset, scaler, device)
    for _ in range(job.steps):
        job.step()
    return job.fields[0].requires_grad_(False)


def adams(truth: GroundTruth, preset: str, device: str) -> dict[str, tuple[nn.Module, dict[str, float]]]:
    """Two fields, and the times of their steps: `step_ms` is the median over blocks, of processor time."""
    jobs = {name: _job(truth, preset, "none", device) for name in ("GridAdam", "torch's Adam")}
    dense = jobs["torch's Adam"]
    dense.optimizer = torch.optim.Adam(dense.optimizer.param_groups, fused=True)  # type: ignore[assignment]
    dense.fields[0].encoding.spares = None  # type: ignore[union-attr]
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in jobs}
    while dense.steps_done < dense.steps:
        for name, job in jobs.items():
            begin, used, first = time.perf_counter(), time.process_time(), job.steps_done
            while job.steps_done < min(first + _BLOCK, job.steps):
                job.step()
            elapsed = time.perf_counter() - begin, time.process_time() - used
            taken[name].append((*elapsed, job.steps_done - first))
    found = {}
    for name, job in jobs.items():
        seconds, used, steps = zip(*taken[name], strict=True)
        step_ms = statistics.median(part / count * 1e3 for part, count in zip(used, steps, strict=True))
        times = {"seconds": sum(seconds), "processor_seconds": sum(used), "step_ms": step_ms}
        found[name] = (job.fields[0].requires_grad_(False), times)
    return found


def scored(network: nn.Module, truth: GroundTruth) -> dict[str, float]:
    """Metrics of a network, and of the mesh made from it."""
    with torch.no_grad():
        metrics = evaluation.field_metrics(network, truth)

    def sdf(points: Tensor) -> Tensor:
        return network(points)

    mesh = marching_cubes(FunctionField(sdf), None, _RESOLUTION)
    return metrics | evaluation.mesh_metrics(mesh, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=["recipe", "scalers", "adam"])
    parser.add_argument("meshes", nargs="+", type=Path)
    parser.add_argument("--preset", default="medium", choices=PRESETS[True])
    parser.add_argument("--recipe", default="low", choices=PRESETS[False], help="the older project's preset")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", help="beginnings of variants' names")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    variants: dict[str, Callable[[GroundTruth], nn.Module]] = {}
    if given.suite == "scalers":
        for preset, scaler in itertools.product(PRESETS[True], get_args(ScalerName)):
            variants[f"{preset}, {scaler}"] = partial(ours, preset=preset, scaler=scaler, device=given.device)
    elif given.suite == "recipe":
        variants[f"ours, {given.preset}"] = partial(ours, preset=given.preset, scaler="none", device=given.device)
        variants[f"recipe, {given.recipe}"] = partial(plain, preset=given.recipe, device=given.device)
    print(f"| mesh | variant | seconds | CPU seconds | {' | '.join(_COLUMNS)} |\n{'|---' * (4 + len(_COLUMNS))}|")
    for path in given.meshes:
        mesh, _ = normalise(repair(read_mesh(path))[0])
        truth = GroundTruth(mesh, device=given.device)
        if given.suite == "adam":
            for name, (network, times) in adams(truth, given.preset, given.device).items():
                tell(given, path, f"{name}, {given.preset}", times, scored(network, truth))
        for name, train in variants.items():
            if given.only and not any(name.startswith(start) for start in given.only):
                continue
            begin, used = time.perf_counter(), time.process_time()
            network = train(truth)
            times = {"seconds": time.perf_counter() - begin, "processor_seconds": time.process_time() - used}
            tell(given, path, name, times, scored(network, truth))


def tell(
    given: argparse.Namespace, path: Path, variant: str, times: dict[str, float], metrics: dict[str, float]
) -> None:
    """Print a row of the table, and append its record."""
    numbers = [f"{times[name]:.1f}" for name in ("seconds", "processor_seconds")]
    numbers += [f"{metrics[column]:.4f}" for column in _COLUMNS.values()]
    step = f" {times['step_ms']:.2f} ms a step" if "step_ms" in times else ""
    print(f"| {path.stem} | {variant} | {' | '.join(numbers)} |{step}", flush=True)
    record = {"suite": given.suite, "mesh": path.stem, "variant": variant, **times, **metrics}
    record |= {"threads": given.threads, "device": given.device, "commit": _commit()}
    if given.json is not None:
        with given.json.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
