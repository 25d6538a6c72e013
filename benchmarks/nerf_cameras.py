"""Cameras that are a little wrong: a scene learnt from them as they are, and with `train-nerf --refine-cameras`.

python benchmarks/nerf_cameras.py lego/ --degrees 0.7 --share 0.01 --steps 1500 --threads 1

Each training camera is turned about a random axis and moved in a random direction, by a normal vector of this root mean
square length (degrees; share of the cameras' median distance from the scene's origin). Held-out cameras stay exact.
What is found is compared with the true cameras after the similarity that fits it to them best: the angle between
orientations, the distance of positions, and by how many pixels points of the unit ball are elsewhere in the images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from measure import environment
from sdfgan.data.scenes import Scene, Views, load_scene
from sdfgan.nerf import NerfConfig
from sdfgan.nerf.cameras import turned
from sdfgan.nerf.job import NerfJob

_POINTS = 2000  # of the ball
_ROWS = ("wrong", "refined", "exact")
_LAST = 50  # steps, whose PSNR is averaged


class Similarity(NamedTuple):
    """x to scale rotation x + shift."""

    scale: Tensor
    rotation: Tensor  # [3, 3]
    shift: Tensor  # [3]

    def __call__(self, poses: Tensor) -> Tensor:
        """Cameras [N, 3, 4] in the other coordinates."""
        position = self.scale * poses[:, :, 3] @ self.rotation.T + self.shift
        return torch.cat((self.rotation @ poses[:, :, :3], position[:, :, None]), 2)

    def inverse(self) -> Similarity:
        """The way back."""
        back = self.rotation.T
        return Similarity(1 / self.scale, back, -back @ self.shift / self.scale)


def fitted(found: Tensor, true: Tensor) -> Similarity:
    """The similarity that takes cameras [N, 3, 4] nearest to others: orientations first, then positions."""
    u, _, v = torch.linalg.svd((true[:, :, :3] @ found[:, :, :3].mT).sum(0))
    rotation = u @ torch.diag(torch.stack((*torch.ones(2).to(u), torch.linalg.det(u @ v)))) @ v
    turned_there, there = found[:, :, 3] @ rotation.T, true[:, :, 3]
    apart, wanted = turned_there - turned_there.mean(0), there - there.mean(0)
    scale = (apart * wanted).sum() / apart.square().sum()
    return Similarity(scale, rotation, there.mean(0) - scale * turned_there.mean(0))


def camera_errors(found: Tensor, true: Tensor, focal: Tensor) -> dict[str, float]:
    """Means over cameras [N, 3, 4] of focal lengths [N] in pixels, after the similarity that fits best."""
    found, true = found.double(), true.double()
    found = fitted(found, true)(found)
    apart = (found[:, :, :3] - true[:, :, :3]).norm(dim=(1, 2))  # 2 sqrt(2) sin(angle / 2)
    random = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(_POINTS, 3, generator=random), dim=1)
    points = (points * torch.rand(_POINTS, 1, generator=random) ** (1 / 3)).double()
    pixels = [_image_plane(points, poses) * focal.double()[:, None, None] for poses in (found, true)]
    return {
        "degrees": (2 * (apart / math.sqrt(8)).asin()).rad2deg().mean().item(),
        "distance": (found[:, :, 3] - true[:, :, 3]).norm(dim=1).mean().item(),
        "pixels": (pixels[0] - pixels[1]).norm(dim=2).mean().item(),
    }


def _image_plane(points: Tensor, poses: Tensor) -> Tensor:
    """Where cameras [N, 3, 4] outside of the ball see points [P, 3] of it, at distance 1: [N, P, 2]."""
    x, y, z = ((points - poses[:, None, :, 3]) @ poses[:, :, :3]).unbind(2)
    return torch.stack((x / -z, y / -z), 2)


def moved(views: Views, degrees: float, share: float, seed: int = 0) -> Views:
    """Views whose cameras are off, as the head of the file says."""
    poses = views.cameras.camera_to_world
    random = torch.Generator().manual_seed(seed)
    turns, moves = torch.randn(2, len(poses), 3, generator=random) / math.sqrt(3)
    axes = turned(poses[:, :, :3].mT, math.radians(degrees) * turns[:, None]).mT
    position = poses[:, :, 3] + share * poses[:, :, 3].norm(dim=1).median() * moves
    return with_poses(views, torch.cat((axes, position[:, :, None]), 2))


def with_poses(views: Views, poses: Tensor) -> Views:
    """Views with other cameras [N, 3, 4]."""
    return dataclasses.replace(views, cameras=views.cameras._replace(camera_to_world=poses.float().contiguous()))


def learnt(scene: Scene, true: Tensor, config: NerfConfig) -> dict[str, float]:
    """What a run on a scene comes to; `true` [N, 3, 4] are the cameras of its training images."""
    used = time.process_time()
    job = NerfJob(config.resolved(), scene)
    psnr = [job.step()["psnr"] for _ in range(job.steps)]
    used = time.process_time() - used
    given = scene.train.cameras.camera_to_world
    poses = job.cameras.poses(given) if config.refine_cameras else given
    held_out = scene.val or scene.test
    assert held_out is not None
    there = fitted(poses.double(), true.double()).inverse()(held_out.cameras.camera_to_world.double())
    scores = [
        job.renderer.scores(views, range(len(views))) for views in (held_out, with_poses(held_out, there))
    ]  # as given, and where they are in the coordinates that were learnt
    job.close()
    return {
        "psnr_training": sum(psnr[-_LAST:]) / len(psnr[-_LAST:]),
        "psnr": scores[0]["psnr"],
        "psnr_fitted": scores[1]["psnr"],
        **camera_errors(poses, true, scene.train.cameras.intrinsics[:, 0]),
        "cpu_seconds": used,
    }


def main() -> None:
    """Learn the scene from wrong cameras, from wrong ones that are refined, and from exact ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, help="folder of a scene with validation or test views")
    parser.add_argument("--model", choices=("fast", "surface", "nerf"), default="fast")
    parser.add_argument("--degrees", type=float, default=0.7, help="how far cameras are turned, root mean square")
    parser.add_argument("--share", type=float, default=0.01, help="of their distance, by which they are moved")
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--image-scale", type=float, default=1.0)
    parser.add_argument("--camera-learning-rates", type=float, nargs="+", default=[NerfConfig.camera_learning_rate])
    parser.add_argument("--rows", nargs="+", choices=_ROWS, default=_ROWS, help="cameras to learn from; default: all")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", type=Path, help="append a line for each row to this file")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    scene = load_scene(arguments.scene, image_scale=arguments.image_scale)
    true = scene.train.cameras.camera_to_world
    wrong = scene._replace(train=moved(scene.train, arguments.degrees, arguments.share))
    rows: list[tuple[str, Scene, dict]] = [("wrong cameras", wrong, {})] if "wrong" in arguments.rows else []
    for rate in arguments.camera_learning_rates if "refined" in arguments.rows else ():
        options = {"refine_cameras": True, "camera_learning_rate": rate}
        rows.append((f"wrong cameras, refined at {rate:g}", wrong, options))
    rows += [("exact cameras", scene, {})] if "exact" in arguments.rows else []
    print("| cameras | PSNR, training rays | held out | held out, fitted | degrees | distance | pixels | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, posed, options in rows:
        config = NerfConfig(data=arguments.scene, model=arguments.model, steps=arguments.steps, device="cpu", **options)
        row = learnt(posed, true, config)
        print(
            f"| {name} | {row['psnr_training']:.2f} | {row['psnr']:.2f} | {row['psnr_fitted']:.2f} | "
            f"{row['degrees']:.3f} | {row['distance']:.4f} | {row['pixels']:.2f} | {row['cpu_seconds']:.0f} |",
            flush=True,
        )
        if arguments.json is not None:
            settings = {"model": arguments.model, "degrees_off": arguments.degrees, "share_off": arguments.share}
            line = {"cameras": name, **settings, "steps": config.resolved().steps, **row, **environment("cpu")}
            with arguments.json.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
