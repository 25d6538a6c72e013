"""Our default against the recipe of Neural Implicit Tools, written in plain torch: quality by wall time.

    python benchmarks/sdf.py MESH... [--preset medium] [--recipe low] [--json results.jsonl]

Both get the same mesh, repaired and normalised, and the same number of threads, and are judged by the same metrics; the
time of both is that of drawing samples and of training. Ours is as `sdfgan train-sdf` runs it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from sdfgan.fields.coordinate import DAM_WIDTHS
from sdfgan.fields.function import FunctionField
from sdfgan.meshes import marching_cubes
from sdfgan.sdf import GroundTruth, Placement, SampleStream, judge, normalise, read_mesh, repair
from sdfgan.sdf.config import PRESETS, SdfConfig
from sdfgan.sdf.model import make_field
from sdfgan.sdf.trainer import Trainer

_RESOLUTION = 192
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


def plain(truth: GroundTruth, preset: str, device: str) -> tuple[nn.Module, float]:
    """The recipe: importance samples, Adam, L1."""
    recipe = PRESETS[False][preset]
    torch.manual_seed(0)
    begin = time.perf_counter()
    samples = SampleStream(truth, recipe["num_points"], "importance", in_memory=recipe["num_points"])
    network = plain_network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for epoch in range(recipe["epochs"]):
        for batch in samples.epoch(epoch, recipe["batch_size"]):
            optimizer.zero_grad()
            (network(batch.points) - batch.distances).abs().mean().backward()
            optimizer.step()
    return network, time.perf_counter() - begin


def ours(truth: GroundTruth, preset: str, device: str) -> tuple[nn.Module, float]:
    """What `sdfgan train-sdf --preset ...` does."""
    config = SdfConfig(preset=preset, device=device).resolved()  # type: ignore[arg-type]
    torch.manual_seed(0)
    begin = time.perf_counter()
    assert config.num_points is not None
    stream = SampleStream(truth, config.num_points, config.sampling, beta=config.beta)
    trainer = Trainer([make_field(config, None, _NOWHERE)], [stream], config)
    for _ in trainer.run():
        pass
    (field,) = trainer.finish()
    return field.requires_grad_(False), time.perf_counter() - begin


def judged(network: nn.Module, truth: GroundTruth) -> dict[str, float]:
    """Metrics of a network, and of the mesh made from it."""
    with torch.no_grad():
        metrics = judge.field_metrics(network, truth)

    def sdf(points: Tensor) -> Tensor:
        return network(points)

    mesh = marching_cubes(FunctionField(sdf), None, _RESOLUTION)
    return metrics | judge.mesh_metrics(mesh, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="+", type=Path)
    parser.add_argument("--preset", default="medium", choices=PRESETS[True])
    parser.add_argument("--recipe", default="low", choices=PRESETS[False], help="the older project's preset")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=["ours", "plain"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{'mesh':20} {'':6} {'seconds':>8} {'IoU':>8} {'Chamfer %':>9} {'normals':>8} {'F-score':>8}")
    for path in given.meshes:
        mesh, _ = normalise(repair(read_mesh(path))[0])
        truth = GroundTruth(mesh, device=given.device)
        for name, train, preset in (("ours", ours, given.preset), ("plain", plain, given.recipe)):
            if given.only not in (None, name):
                continue
            network, seconds = train(truth, preset, given.device)
            m = judged(network, truth)
            print(
                f"{path.stem:20} {name:6} {seconds:8.1f} {m['iou']:8.4f} {m['chamfer_percent']:9.4f} "
                f"{m['normal_consistency']:8.4f} {m['f_score']:8.4f}",
                flush=True,
            )
            record = {"mesh": path.stem, "what": name, "preset": preset, "seconds": seconds, **m}
            record |= {"threads": given.threads, "device": given.device, "commit": _commit()}
            if given.json is not None:
                with given.json.open("a") as file:
                    file.write(json.dumps(record) + "\n")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
