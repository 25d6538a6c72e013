"""Train a GAN on a folder of images of one kind of object, then look at its shapes. Arguments: IMAGES FOLDER."""

import sys
from pathlib import Path
from typing import Any

import torch

from sdfgan import cameras, images, meshes, raycast
from sdfgan.gan import GanConfig, load_generator, sample_latents, train


def learn(photographs: Path, run: Path, side: int = 128, **settings: Any) -> torch.Tensor:
    # Images with alpha, or on a plain background; see docs/data.md, and `sdfgan dataset check IMAGES` first.
    train(GanConfig(data=photographs, output_dir=run, **settings))  # as `sdfgan train-gan --data IMAGES` does
    generator, config = load_generator(run)
    latents = sample_latents(config, seeds=[0, 1, 2, 3])
    axes = cameras.rotate_axes((torch.full((4,), 0.35), torch.full((4,), 0.5)))
    with torch.no_grad():
        image = raycast.render(sdf=generator, axes=axes, latents=latents, resolution=side)
        images.save_image(run / "four.png", images.image_grid(image.rgb, columns=4))
        mesh = meshes.marching_cubes(generator, generator.condition(latents[:1]), side)
    meshes.export_mesh(mesh, run / "first.glb")
    return image.alpha


if __name__ == "__main__":
    learn(Path(sys.argv[1]), Path(sys.argv[2]), background=(1.0, 1.0, 1.0))
