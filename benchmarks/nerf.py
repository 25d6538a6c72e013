"""The models of `train-nerf` on a scene: time and scores as a table. Or a step of each, beside plainer ways.

python benchmarks/nerf.py lego/ --models fast nerf --steps 2000
python benchmarks/nerf.py lego/ --models ref-nerf --normals runs/nerf-001    # how far normals are from a surface's
python benchmarks/nerf.py lego/ --models fast --step 8 --threads 1
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from measure import environment
from sdfgan.data.scenes import load_scene
from sdfgan.fields import nerf as classic
from sdfgan.fields import small_mlp
from sdfgan.fields.radiance_grid import RadianceGrid
from sdfgan.fields.small_mlp import SmallMlp
from sdfgan.nerf import NerfConfig, load_model, train
from sdfgan.nerf.config import Model
from sdfgan.nerf.job import NerfJob
from sdfgan.nerf.marching import MarchingGrid
from sdfgan.nerf.models import NetworkModel
from sdfgan.nerf.report import SceneRenderer, spread

_NORMAL_VIEWS, _OPAQUE = 4, 0.9  # of which normals are compared, and from which opacity
_WARM, _BLOCK = 144, 16  # steps: by then the occupancy grid knows what is empty; between its updates


def main() -> None:
    """Train each model, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, help="folder of a scene with validation or test views")
    parser.add_argument("--models", nargs="+", choices=get_args(Model), help="default: all; with --step: fast")
    parser.add_argument("--steps", type=int, help="updates of each; default: the model's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="append a line for each model to this file")
    parser.add_argument("--normals", type=Path, help="a run of --model surface on the scene: compare normals with its")
    parser.add_argument("--step", type=int, help="time a step of each instead, in so many rounds; on a CPU")
    parser.add_argument("--threads", type=int, help="of torch")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.step:
        for model in arguments.models or ["fast"]:
            if model == "surface":
                parser.error("--step is for --models fast and the classic ones, got surface")
            step(arguments.scene, model, arguments.step)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models or get_args(Model):
            config = NerfConfig(
                data=arguments.scene,
                model=model,
                steps=arguments.steps,
                device=arguments.device,
                output_dir=Path(folder) / model,
                video_frames=0,
                mesh_resolution=0,
                evaluate_interval=0,
            )
            used = time.process_time()
            summary = train(config)
            scores = summary["scores"].get("test") or summary["scores"].get("val") or {}
            row = {
                "model": model,
                "steps": summary["steps"],
                "minutes": summary["training_seconds"] / 60,
                "cpu_minutes": (time.process_time() - used) / 60,  # with the final evaluation
                **scores,
                **({} if arguments.normals is None else normals_off(config.output_dir, arguments.normals)),
                **environment("cpu" if summary["device"] == "cpu" else "cuda"),
                "threads": summary["threads"],
            }
            rows.append(row)
            if arguments.json is not None:
                with arguments.json.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print("\n| model | steps | minutes | CPU minutes | PSNR | SSIM |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['model']} | {row['steps']} | {row['minutes']:.1f} | {row['cpu_minutes']:.1f} | "
            f"{row.get('psnr', float('nan')):.2f} | {row.get('ssim', float('nan')):.3f} |"
        )


@torch.no_grad()
def normals_off(run: Path, surface: Path) -> dict[str, float]:
    """Between normals of two runs on a scene, at pixels of held-out views that both show: the mean angle, in degrees,
    and the share below 30."""
    model, config = load_model(run)
    scene = load_scene(config.scene)
    views = scene.val or scene.test
    assert views is not None
    looks = [SceneRenderer(one, torch.ones(3), 2048) for one in (model, load_model(surface)[0])]
    angles = []
    for index in spread(len(views), _NORMAL_VIEWS):
        one, other = (renderer.look(views.cameras, index, normals=True) for renderer in looks)
        assert one.normals is not None and other.normals is not None
        cosine = (one.normals * other.normals).sum(0)
        shown = (one.opacity[0] > _OPAQUE) & (other.opacity[0] > _OPAQUE)
        angles.append(cosine[shown].clamp(-1, 1).acos().rad2deg())
    degrees = torch.cat(angles)
    return {"normals_off": degrees.mean().item(), "normals_below_30": (degrees < 30).float().mean().item()}


class _Forgetful(RadianceGrid):
    """Evaluates again what a march has evaluated."""

    survey = None  # type: ignore[assignment]


def _fast_variants(job: NerfJob) -> dict[str, Callable[[], None]]:
    field, table = job.model.field, job.table
    assert isinstance(field, RadianceGrid)

    def use(less: int) -> None:
        job.table = None if less else table
        plain = less > 1
        field.__class__ = _Forgetful if plain else RadianceGrid
        field.density_net.__class__ = field.color_net.__class__ = nn.Sequential if plain else SmallMlp

    names = ("sdfgan", "a table of each chunk", "torch's layers")
    return {name: partial(use, less) for less, name in enumerate(names)}


def _classic_variants(job: NerfJob) -> dict[str, Callable[[], None]]:
    model, negligible, can_fuse = job.model, small_mlp._NEGLIGIBLE, small_mlp.can_fuse
    assert isinstance(model, NetworkModel)
    hull = model.occupancy

    def use(hull: MarchingGrid | None, negligible: float = 0.0, fuse: bool = True) -> None:
        model.occupancy = hull
        small_mlp._NEGLIGIBLE = negligible
        classic.can_fuse = can_fuse if fuse else lambda x: False

    return {
        "sdfgan": lambda: use(hull, negligible),
        "gradients of all rows": lambda: use(hull),
        "torch's layers": lambda: use(hull, fuse=False),
        "and no visual hull": lambda: use(None, fuse=False),
    }


def step(scene: Path, model: Model, rounds: int) -> None:
    """Print milliseconds of processor time of a step: as it is, and with less of what makes it so, turn about."""
    config = NerfConfig(data=scene, model=model, device="cpu").resolved()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(config, output_dir=Path(folder))
        job = NerfJob(config, load_scene(scene, image_scale=0.25))
        variants = _fast_variants(job) if model == "fast" else _classic_variants(job)
        for _ in range(_WARM):
            job.step()
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, values in taken.items():
                variants[name]()
                began = time.process_time()
                for _ in range(_BLOCK):
                    numbers = job.step()
                values.append((time.process_time() - began) / _BLOCK * 1e3)
                print(f"{name}: {values[-1]:.1f} ms, PSNR {numbers['psnr']:.2f}", flush=True)
        job.close()
    for name, values in taken.items():
        ratio = statistics.median(other / own for own, other in zip(taken["sdfgan"], values, strict=True))
        print(f"{name}: median {statistics.median(values):.1f} ms, {ratio:.2f} x sdfgan's, {threads} threads")


if __name__ == "__main__":
    main()
