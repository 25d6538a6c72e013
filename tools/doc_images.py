"""Makes the images of the documentation, and says which are old.

    python tools/doc_images.py                                  # each image, how it is made, whether it is old
    python tools/doc_images.py solid.png                        # from README's block of Python
    python tools/doc_images.py grid-chairs.png runs/gan-001     # from a run that the command beside it trained

What is made is noted in docs/images/made.json, with its checksum and commit; tests/test_docs.py reads that, and draws
solid.png anew. Those of trained runs are as old as their commit says: to train them takes minutes to hours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from sdfgan.cameras import rotate_axes
from sdfgan.errors import UserError
from sdfgan.gan import load_generator, sample_latents
from sdfgan.gan.models import poses_of
from sdfgan.gan.views import ImageRenderer, ViewRange
from sdfgan.images import image_grid, save_image
from sdfgan.meshes import model_of, normalise, read_mesh, read_model, render_model
from sdfgan.meshes.appearance import file_colours
from sdfgan.training.files import write_json

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
NOTES = IMAGES / "made.json"
_SHAPES = 6  # of each run, in recipes.png


class Made(NamedTuple):
    """How an image is made: by commands, and then by a function of the image and the runs that they leave."""

    by: Callable[[Path, list[Path]], None]
    runs: int
    commands: tuple[str, ...] = ()


def from_readme(image: Path, runs: list[Path]) -> None:
    """What README's block of Python draws."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        try:
            os.chdir(folder)
            exec(compile(block, "README.md", "exec"), {})
        finally:
            os.chdir(here)
        shutil.copyfile(Path(folder) / image.name, image)


def from_run(image: Path, runs: list[Path]) -> None:
    """The grid that a run ends with."""
    shutil.copyfile(runs[0] / "grid.png", image)


def from_both(image: Path, runs: list[Path]) -> None:
    """Shapes of several runs below each other, each from six sides."""
    grids = []
    for run in runs:
        generator, config = load_generator(run)
        condition = generator.condition(sample_latents(config, range(_SHAPES)))
        viewer = ImageRenderer(generator, math.radians(config.fov))
        grids.append(viewer.grid(condition, 6, ViewRange.of(poses_of(config)), config.view_resolution, columns=18))
    save_image(image, torch.cat(grids, 1))


def from_texture(image: Path, runs: list[Path]) -> None:
    """A mesh and the textured mesh of its fit, between them the latter with colours at vertices; all from two sides."""
    axes = rotate_axes((torch.tensor([0.3, 0.2]), torch.tensor([0.6, 3.6])))
    path = runs[1] / "mesh.glb"
    bare = read_mesh(path)
    bare.merge_vertices()
    placed, placement = normalise(bare)
    places = torch.from_numpy(placed.vertices.astype(np.float32))
    bare.visual.vertex_colors = file_colours(path, placement)[0](places, places).numpy()
    models = [read_model(runs[0])[0], model_of([bare], 0.1), read_model(path)[0]]
    rgba = torch.stack([render_model(model, axes, 320) for model in models], 1).flatten(0, 1)
    save_image(image, image_grid(rgba[:, :3] + 1 - rgba[:, 3:], len(rgba)))


def from_growth(image: Path, runs: list[Path]) -> None:
    """The curves of benchmarks/results/growth.jsonl."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import growth_page

    growth_page.draw(image)


def from_file(image: Path, runs: list[Path]) -> None:
    """An image as it is: the sheet of a benchmark, or a screenshot."""
    shutil.copyfile(runs[0], image)


MADE = {
    "solid.png": Made(from_readme, 0),
    "grid.png": Made(from_run, 1, ("python tools/train_gan.py --steps 7342 --seed 2",)),
    "chairs.webp": Made(
        from_file,
        1,
        (
            "python tools/train_gan.py",
            "python tools/render.py runs/gan-001 --mode turntable --seeds 0-15 --resolution 140 --frames 48 --fps 16 "
            "--output chairs.webp",
        ),
    ),
    "aircraft.webp": Made(
        from_file,
        1,
        (
            "python tools/dataset.py render aircraft/ aircraft.zip --views 32 --resolution 128",
            "python tools/train_gan.py --curriculum aircraft --data aircraft.zip",
            "python tools/render.py RUN --mode turntable --seeds 0-15 --resolution 160 --frames 48 --fps 16 "
            "--output aircraft.webp",
        ),
    ),
    "grid-chairs.png": Made(from_run, 1, ("python tools/train_gan.py",)),
    "grid-aircraft.png": Made(
        from_run,
        1,
        (
            "python tools/dataset.py render aircraft/ aircraft.zip --views 32 --resolution 128",
            "python tools/train_gan.py --data aircraft.zip --resolution 64 --r1-gamma 20 --r1-final 1 "
            "--learning-rate-generator 2.5e-4 --steps 2950 --view-resolution 160 --device cuda",
        ),
    ),
    "curriculum-aircraft.png": Made(
        from_run,
        1,
        (
            "python tools/dataset.py render aircraft/ aircraft.zip --views 32 --resolution 128",
            "python tools/train_gan.py --curriculum aircraft --data aircraft.zip",
        ),
    ),
    "nearest-aircraft.png": Made(
        from_file,
        1,
        ("python tools/evaluate.py RUN --shapes aircraft/ --training-shapes aircraft/",),
    ),
    "grid-default.png": Made(from_run, 1, ("python tools/train_gan.py --shapes solids",)),
    "recipes.png": Made(
        from_both,
        2,
        ('python benchmarks/gan.py recipes --minutes 30 --seeds 0 1 2 --only default "dfr, our size"',),
    ),
    "inversion.png": Made(from_file, 1, ("python benchmarks/inversion.py RUN --pictures 20 --json inversion.jsonl",)),
    "inversion-aircraft.png": Made(
        from_file, 1, ("python benchmarks/inversion.py RUN --data held-out.zip --json inversion.jsonl",)
    ),
    "surfaces.png": Made(
        from_file,
        1,
        ("python benchmarks/surfaces.py spot.obj cheburashka.obj rocker-arm.obj fandisk.obj --picture surfaces.png",),
    ),
    "peers.png": Made(
        from_file, 1, ("python benchmarks/peers.py --json benchmarks/results/peers.jsonl --figure peers.png",)
    ),
    "growth.png": Made(
        from_growth,
        0,
        ("python benchmarks/growth.py all --json benchmarks/results/growth.jsonl --page docs/scaling.md",),
    ),
    "texture.png": Made(
        from_texture,
        2,
        ("python tools/train_sdf.py spot.glb --preset low --faces 10000 --texture-resolution 1024",),
    ),
    "view.png": Made(from_file, 1, ("python tools/train_gan.py --shapes chairs", "python tools/view.py runs/gan-001")),
}


def checksum(image: Path) -> str:
    """Of an image as it is."""
    return hashlib.sha256(image.read_bytes()).hexdigest()


def differing(image: Path, other: Path) -> float:
    """Share of the pixels of two images of one size that differ in any channel by more than two in 255."""
    a, b = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (image, other))
    return 1.0 if a.shape != b.shape else float((abs(a - b).max(-1) > 2).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", choices=MADE, metavar="IMAGE", help=", ".join(MADE))
    parser.add_argument("run", nargs="*", type=Path, help="what the image's command has made")
    arguments = parser.parse_args()
    notes = json.loads(NOTES.read_text())
    if arguments.image is None:
        for name, made in MADE.items():
            note = notes.get(name, {})
            state = "" if note.get("sha256") == checksum(IMAGES / name) else ", and not the file that is there"
            print(f"{name}: of commit {note.get('commit')}{state}; {'; '.join(made.commands) or made.by.__doc__}")
        return
    made, image = MADE[arguments.image], IMAGES / arguments.image
    if len(arguments.run) != made.runs:
        parser.error(f"{image.name} is made of {made.runs} runs, got {len(arguments.run)}: {'; '.join(made.commands)}")
    made.by(image, arguments.run)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    notes[image.name] = {"sha256": checksum(image), "commit": commit.stdout.strip() or "unknown"}
    write_json(NOTES, notes)
    print(f"wrote {image}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"doc_images.py: {error}", file=sys.stderr)
        sys.exit(2)
