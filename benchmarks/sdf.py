"""What `train-sdf` reaches, by wall time.

    python benchmarks/sdf.py recipe MESH... [--preset medium] [--recipe low]   # against Neural Implicit Tools' recipe
    python benchmarks/sdf.py scalers MESH...                                   # each scaler with each preset

In `recipe` ours, as `sdfgan train-sdf` runs it, and the older recipe in plain torch get the same mesh, repaired and
normalised, and the same number of threads, and are judged by the same metrics; the time of both is that of drawing
samples and of training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from sdfgan.compat.dam import DAM_WIDTHS
from sdfgan.fields.function import FunctionField
from sdfgan.meshes import marching_cubes, normalise, repair
from sdfgan.sdf import GroundTruth, Placement, SampleStream, evaluation, read_mesh
from sdfgan.sdf.config import PRESETS, ScalerName, SdfConfig
from sdfgan.sdf.files import Case
from sdfgan.sdf.job import SdfJob
from sdfgan.sdf.model import make_field

_RESOLUTION = 192
_SCALER_SAMPLES = 100_000
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


def ours(truth: GroundTruth, preset: str, scaler: str, device: str) -> nn.Module:
    """What `sdfgan train-sdf --preset ... --scaler ...` does."""
    config = SdfConfig(preset=preset, scaler=scaler, device=device).resolved()  # type: ignore[arg-type]
    stream = SampleStream(truth, config.num_points, config.sampling, beta=config.beta)
    first = next(stream.epoch(0, min(_SCALER_SAMPLES, len(stream))))
    torch.manual_seed(0)
    field = make_field(config, (first.points.cpu(), first.distances.cpu()), _NOWHERE)
    case = Case(Path(), Path(), stream, None, _NOWHERE, None, None, None)
    job = SdfJob(config, [case], [field])
    for _ in range(job.steps):
        job.step()
    return field.requires_grad_(False)


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
    parser.add_argument("suite", choices=["recipe", "scalers"])
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
    else:
        variants[f"ours, {given.preset}"] = partial(ours, preset=given.preset, scaler="none", device=given.device)
        variants[f"recipe, {given.recipe}"] = partial(plain, preset=given.recipe, device=given.device)
    columns = {"IoU": "iou", "Chamfer %": "chamfer_percent", "normals": "normal_consistency", "F-score": "f_score"}
    print(f"| mesh | variant | seconds | CPU seconds | {' | '.join(columns)} |\n{'|---' * (4 + len(columns))}|")
    for path in given.meshes:
        mesh, _ = normalise(repair(read_mesh(path))[0])
        truth = GroundTruth(mesh, device=given.device)
        for name, train in variants.items():
            if given.only and not any(name.startswith(start) for start in given.only):
                continue
            begin, used = time.perf_counter(), time.process_time()
            network = train(truth)
            seconds, used = time.perf_counter() - begin, time.process_time() - used
            metrics = scored(network, truth)
            numbers = " | ".join(f"{metrics[column]:.4f}" for column in columns.values())
            print(f"| {path.stem} | {name} | {seconds:.1f} | {used:.1f} | {numbers} |", flush=True)
            record = {
                "suite": given.suite,
                "mesh": path.stem,
                "variant": name,
                "seconds": seconds,
                "processor_seconds": used,
                **metrics,
            }
            record |= {"threads": given.threads, "device": given.device, "commit": _commit()}
            if given.json is not None:
                with given.json.open("a") as file:
                    file.write(json.dumps(record) + "\n")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
