"""Trains GANs on shapes whose cameras are skewed, with poses that are learned, true, or uniform over wide ranges.

    python benchmarks/gan_poses.py learned --steps 800       # then: true, wide

Azimuths are von Mises distributed (concentration 2), elevations 40 degrees times Beta(1.5, 3.5); runs get the range
from 0 to 60 degrees and all azimuths. Prints the sliced-Wasserstein distance to 1,000 images that no run has learned
from, and the divergence of the poses from the true ones. One thread, 32 pixels, the defaults of a CPU, no flips.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from sdfgan.cameras import Empirical, PoseDistribution
from sdfgan.data.image_sets import InMemory
from sdfgan.data.shapes import render_shapes
from sdfgan.gan import GanConfig
from sdfgan.gan.data import TrainingData
from sdfgan.gan.evaluation import image_scores, random_images, real_images
from sdfgan.gan.job import GanJob
from sdfgan.gan.poses import PoseLearner

_TRAIN, _HELD_OUT, _COMPARED = 8192, 4000, 1000  # images
_ELEVATION, _AZIMUTH = (0.0, 60.0), (0.0, 360.0)  # degrees


class Skewed(PoseDistribution):
    """Most cameras stand before an object, a little above it. `drawn` are those that have been drawn."""

    drawn: ClassVar[list[Tensor]] = []

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `PoseDistribution.sample`."""
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))  # torch's distributions take no other
        azimuth = torch.distributions.VonMises(math.radians(40.0), 2.0).sample((n,))
        elevation = math.radians(40.0) * torch.distributions.Beta(1.5, 3.5).sample((n,))
        self.drawn.append(torch.stack([elevation.float(), azimuth.float()], 1))
        return elevation.float(), azimuth.float()


def distance(job: GanJob) -> tuple[float, float]:
    """Between generated images and real ones, and its floor between real ones."""
    reals = real_images(job.data.held_out, 2 * _COMPARED, job.now).split(_COMPARED)
    fakes = random_images(job.average, job.now, job.poses, _COMPARED)
    return image_scores(fakes, reals[0])["swd"], image_scores(reals[1], reals[0])["swd"]


def main() -> None:
    """Train one run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("poses", choices=("learned", "true", "wide"))
    parser.add_argument("--shapes", choices=("chairs", "aircraft", "mugs"), default="chairs")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--measure", type=int, nargs="+", default=[400, 800], help="steps after which to measure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="SVG of the learned poses to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ranges = Skewed((0.0, math.radians(40)), (0.0, 2 * math.pi))
    made = render_shapes(_TRAIN + _HELD_OUT, 32, poses=ranges, family=arguments.shapes)
    poses = torch.cat(ranges.drawn)
    poses = poses[poses[:, 1].argsort()]
    sets = [InMemory(part) for part in made.images.split([_TRAIN, _HELD_OUT])]
    data = TrainingData(*sets, Empirical.of(poses) if arguments.poses == "true" else None, mirror=False)
    options = {
        "shapes": arguments.shapes,
        "mirror": False,
        "elevation": _ELEVATION,
        "azimuth": _AZIMUTH,
        "chunk_size": 16,
    }
    kind = "learned" if arguments.poses == "learned" else "uniform"
    config = GanConfig(steps=arguments.steps, seed=arguments.seed, poses=kind, device="cpu", **options)
    job = GanJob(config.resolved(), data)
    started = time.process_time()
    learned = job.pose_learner or PoseLearner(*[tuple(map(math.radians, span)) for span in (_ELEVATION, _AZIMUTH)])
    for step in range(max(arguments.measure)):
        job.step()
        if (step + 1) % 100 and step + 1 not in arguments.measure:
            continue
        numbers = {}
        if arguments.poses != "true":
            numbers = {name: f"{value:.4g}" for name, value in learned.histogram.compared(poses).items()}
        if step + 1 in arguments.measure:
            numbers |= {name: f"{value:.4f}" for name, value in zip(("swd", "floor"), distance(job), strict=True)}
        print(
            arguments.shapes, arguments.poses, step + 1, f"{time.process_time() - started:.0f} s", numbers, flush=True
        )
    if arguments.picture is not None:
        learned.histogram.save_picture(arguments.picture)
    job.close()


if __name__ == "__main__":
    main()
