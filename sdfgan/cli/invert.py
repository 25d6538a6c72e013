"""`sdfgan invert`: the shape and camera behind an image, as a generator knows shapes."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

from sdfgan import conditions
from sdfgan.cameras import rotate_axes
from sdfgan.cli.arguments import output_path, run_folder
from sdfgan.cli.flags import InvertConfig
from sdfgan.cli.shapes import renderer_of
from sdfgan.data.archives import Entry
from sdfgan.data.images import decode
from sdfgan.data.layouts import CONVENTIONS
from sdfgan.errors import UserError
from sdfgan.fields import Field
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.familiarity import Familiarity, familiarity
from sdfgan.gan.inversion import Effort, Features, Inverted, invert
from sdfgan.gan.models import load_generator, poses_of
from sdfgan.gan.report import shape_mesh
from sdfgan.gan.views import ImageRenderer, ViewRange, shown
from sdfgan.images import VideoWriter, image_grid, on_white, save_image, video_if_possible, warn_if_no_video
from sdfgan.inception import find_weights, load_inception, where
from sdfgan.meshes import export_mesh
from sdfgan.training.config import chosen
from sdfgan.training.device import resolve_device
from sdfgan.training.files import FolderLock, save_tensors, write_json
from sdfgan.training.progress import progress


def run(config: InvertConfig) -> None:
    """Write what was found, and say where."""
    device = resolve_device(config.device)
    generator, trained = load_generator(config.run, config.weights.replace("-", "_"))  # type: ignore[arg-type]
    target = target_image(config, trained)
    folder = output_path(config.output_dir, run_folder(config.run) / "inverted" / config.image.stem, folder=True)
    output_path(folder / "found.png", folder, reads=[config.image])  # the only image there
    generator = generator.to(device)
    renderer = renderer_of(config, generator, trained)
    effort = Effort(**chosen(config, "candidates starts latent_steps code_steps mask_weight perceptual_weight"))
    poses = poses_of(trained)
    if config.frames:
        warn_if_no_video(folder / f"turntable.{config.video_format}")
    with progress(effort.latent_steps + effort.code_steps, "inverting") as bar:
        found = invert(
            generator,
            trained,
            target,
            poses,
            effort,
            features=_features(config, device),
            seed=config.seed,
            on_progress=lambda loss: bar.advance(status=f"loss {loss:.5f}"),
        )
    known = familiarity(generator, trained, poses, found.condition, found.elevation, found.azimuth)
    with FolderLock(folder):
        _export(config, found, known, generator, folder)
        _write(config, found, target, renderer, replace(ViewRange.of(poses), elevation=found.elevation), folder)
    likeness = f"loss {found.loss:.5f}"
    if found.silhouette_iou is not None:
        likeness = f"silhouette IoU {found.silhouette_iou:.3f}"
    print(
        f"{likeness}, camera at elevation {math.degrees(found.elevation):.1f} and "
        f"azimuth {math.degrees(found.azimuth) % 360:.1f} degrees; farther from the mean shape than "
        f"{known.code_percentile:.1f} % of random shapes; wrote {folder}"
    )
    if (warning := known.warning()) is not None:
        print(f"{config.image}: {warning}", file=sys.stderr)


def target_image(config: InvertConfig, trained: ResolvedGanConfig) -> torch.Tensor:
    """The image [4, R, R] as the run's data would have it. Raises UserError."""
    if not config.image.is_file():
        raise UserError(f"{config.image}: no such image")
    entry = Entry(config.image.name, lambda: config.image.open("rb"))
    crop = CONVENTIONS["plain" if trained.data_layout == "auto" else trained.data_layout].crop
    background = config.background or trained.background
    pixels = decode(entry, config.resolution, background, crop)
    if isinstance(pixels, str):
        raise UserError(f"{config.image}: {pixels}")
    target = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    if target[3].max() == 0:
        raise UserError(f"{config.image}: the image is empty: all of it is transparent or background")
    if trained.channels == 4 and target[3].min() == 1:
        lacks = "has no alpha" if background is None else f"has neither alpha nor the background {background}"
        raise UserError(f"{config.image}: {lacks}; name its plain background: --background R G B")
    return target


def _features(config: InvertConfig, device: torch.device) -> Features | None:
    if config.perceptual_weight <= 0:
        return None
    weights = find_weights(config.inception)
    if weights is None:
        raise UserError(f"--perceptual-weight needs Inception weights: {where()}")
    return load_inception(weights).to(device).early


def _write(
    config: InvertConfig,
    found: Inverted,
    target: torch.Tensor,
    renderer: ImageRenderer,
    view_range: ViewRange,
    folder: Path,
) -> None:
    """The sheet and the videos."""
    size = config.view_resolution
    pair = torch.stack([target, found.image])
    compared = pair[:, :3] if found.silhouette_iou is None else on_white(pair)
    seen = torch.nn.functional.interpolate(compared, (size, size), mode="nearest")
    views = shown(renderer.look(*renderer.views(found.condition, 4, view_range), size))
    save_image(folder / "found.png", image_grid(torch.cat([seen, views]), 6))

    def optimisation(file: Path) -> None:
        """Every other step, from the camera as it was, beside the target."""
        with VideoWriter(file, 24) as video:
            for condition, elevation, azimuth in found.history[::2]:
                axes = rotate_axes((torch.tensor([elevation]), torch.tensor([azimuth])))
                now = shown(renderer.look(condition, axes, size))
                video.add(image_grid(torch.cat([seen[:1], now]), 2))

    if config.frames == 0:
        return
    path = view_range.turntable(config.frames, found.azimuth)
    if video_if_possible(folder / f"optimisation.{config.video_format}", optimisation) is not None:
        renderer.video(folder / f"turntable.{config.video_format}", lambda frame: found.condition, path, size)


def _export(config: InvertConfig, found: Inverted, known: Familiarity, generator: Field, folder: Path) -> None:
    """The mesh, the codes and the numbers."""
    if config.mesh_resolution:
        try:
            mesh = shape_mesh(generator, found.condition, config.mesh_resolution, "mesh")
        except UserError as error:
            print(f"no mesh: {error}")
        else:
            export_mesh(mesh, folder / "mesh.glb")
    tensors = {"latent": found.latent, **{f"code.{n}": t for n, t in conditions.tensors_of(found.condition).items()}}
    save_tensors(folder / "codes.safetensors", tensors)
    write_json(
        folder / "found.json",
        {
            "image": str(config.image),
            "silhouette_iou": found.silhouette_iou,
            "loss": found.loss,
            "elevation_degrees": math.degrees(found.elevation),
            "azimuth_degrees": math.degrees(found.azimuth) % 360,
            "seed": config.seed,
            "familiarity": known.to_json(),
        },
    )
