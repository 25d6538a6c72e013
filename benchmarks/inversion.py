"""Inverts images that a run has not seen, of the built-in set or given ones: silhouette IoU of each, and a sheet.

python benchmarks/inversion.py runs/gan-001 --pictures 20 --json inversion.jsonl
python benchmarks/inversion.py runs/aircraft --data unseen.zip --json inversion-aircraft.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from sdfgan.cameras import pose_distribution
from sdfgan.data.shapes import render_shapes
from sdfgan.errors import UserError
from sdfgan.gan import load_generator
from sdfgan.gan.data import load_training_data
from sdfgan.gan.inversion import invert, silhouette_iou
from sdfgan.images import image_grid, save_image

_SEED = 424_242  # of pictures that no run has learned from


def main() -> None:
    """Invert, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--resolution", type=int, help="of the built-in set's; default: the run's")
    parser.add_argument("--data", type=Path, help="a folder or zip of images, as for train-gan, to invert instead")
    parser.add_argument("--json", type=Path, help="append a line of results here; the sheet goes beside it as .png")
    arguments = parser.parse_args()
    if arguments.pictures < 1:
        parser.error(f"--pictures must be at least 1, got {arguments.pictures}")
    if arguments.json is not None and not arguments.json.parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    generator, config = load_generator(arguments.run)
    spans = [tuple(math.radians(value) for value in span) for span in (config.elevation, config.azimuth)]
    poses = pose_distribution(config.poses, *spans)
    if arguments.data is None:
        pictures = render_shapes(arguments.pictures, arguments.resolution or config.resolution, seed=_SEED).images
    else:
        data = load_training_data(dataclasses.replace(config, data=arguments.data, evaluate_images=0)).train
        pictures = data.batch(torch.arange(min(arguments.pictures, len(data))), config.resolution)
    pictures = pictures[:, : config.channels].float() / 255
    ious, seconds, sheet = [], [], []
    for index, picture in enumerate(pictures):
        started = time.perf_counter()
        found = invert(generator, config, picture, poses)
        ious.append(silhouette_iou(found.image[3], picture[3]))
        seconds.append(time.perf_counter() - started)
        sheet += [picture[:3], found.image[:3]]
        print(
            f"{index + 1}/{len(pictures)}  IoU {ious[-1]:.3f}  loss {found.loss:.4f}  {seconds[-1]:.1f} s", flush=True
        )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "benchmark": "inversion",
        "run": str(arguments.run),
        "data": None if arguments.data is None else arguments.data.name,
        "commit": commit.stdout.strip(),
        "device": str(next(generator.parameters()).device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "pictures": len(ious),
        "median_iou": statistics.median(ious),
        "least_iou": min(ious),
        "mean_seconds": statistics.mean(seconds),
    }
    print(json.dumps(result))
    if arguments.json is not None:
        with arguments.json.open("a") as file:
            file.write(json.dumps(result) + "\n")
        columns = 2 * math.ceil(math.sqrt(len(ious)))
        big = torch.nn.functional.interpolate(torch.stack(sheet), scale_factor=3)
        save_image(arguments.json.with_suffix(".png"), image_grid(big, columns))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"inversion.py: error: {error}", file=sys.stderr)
        sys.exit(2)
