"""`sdfgan evaluate`: how far a trained generator's images and shapes are from real ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from sdfgan import conditions
from sdfgan.cameras import Empirical, PoseDistribution
from sdfgan.cli.arguments import output_path, run_folder
from sdfgan.cli.flags import EvaluateConfig
from sdfgan.data.image_sets import Images, InMemory
from sdfgan.data.layouts import open_data
from sdfgan.data.shapes import shape_set
from sdfgan.errors import UserError
from sdfgan.gan import shape_sets, truncation
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.data import load_training_data
from sdfgan.gan.evaluation import image_scores, random_images, real_images
from sdfgan.gan.models import learned_poses, load_generator, poses_of
from sdfgan.gan.poses import PoseHistogram
from sdfgan.gan.shape_sets import TrueShapes
from sdfgan.images import save_image
from sdfgan.inception import find_weights, load_inception, where
from sdfgan.metrics import sliced_wasserstein
from sdfgan.training.checkpoint import load_checkpoint, resolve_checkpoint
from sdfgan.training.device import resolve_device
from sdfgan.training.files import write_json
from sdfgan.training.progress import progress

_SHEET = 192  # pixels along the side of each shape of the picture
_UNSEEN = 1_000_003  # seed of the built-in images that no run has learned from


def run(config: EvaluateConfig) -> None:
    """Print the distances, write them, and say where."""
    config.check()
    device = resolve_device(config.device)
    weights = config.weights.replace("-", "_")
    checkpoint = resolve_checkpoint(config.run)
    generator, trained = load_generator(checkpoint, weights)  # type: ignore[arg-type]
    tensors, state = load_checkpoint(checkpoint)
    learned = learned_poses(trained, tensors, checkpoint)
    source = trained.data or state.get("imported_from")
    if isinstance(config.shapes, int) and config.shapes and source is not None:
        raise UserError(
            f"--shapes {config.shapes} compares with shapes of a built-in set, but {config.run} comes from {source}: "
            "give a folder of meshes of such objects, or leave it out"
        )
    if config.real is None and "imported_from" in state:
        raise UserError(f"{config.run} was imported without its training data: give real images by --real")
    default = run_folder(config.run) / f"evaluation-{checkpoint.name.removeprefix('step-')}.json"
    meshes = config.shapes if isinstance(config.shapes, Path) else None
    reads = filter(None, (config.real, config.poses, config.inception, meshes, config.training_shapes))
    output = output_path(config.output, default, reads=[checkpoint, *reads])
    of_poses = {} if config.poses is None else _pose_scores(config.poses, learned, trained)
    compared = _true_shapes(config, trained.shapes) if config.shapes else None
    now = dataclasses.replace(trained.at(max(0, state["step"] - 1)), device=str(device))
    found = find_weights(config.inception)
    inception = None if found is None else load_inception(found).to(device)
    if inception is None:
        print(f"no Inception weights, so no FID, KID, precision and recall: {where()}")
    reals, what = _real(config, now)
    count = min(config.images, len(reals) // 2 if what == "held out" else len(reals))
    if count < 2:
        raise UserError(f"{config.real or config.run}: too few real images to compare with: {len(reals)}")
    generator = generator.to(device)

    def truncate(condition: Any) -> Any:
        return condition

    if config.psi != 1:
        mean = truncation.cached_mean(checkpoint, generator, trained, weights)

        def truncate(condition: Any) -> Any:
            return conditions.lerp(mean, condition, config.psi)

    poses = _poses(now, reals, learned)
    fakes = random_images(generator, now, poses, count, seed=config.seed, truncate=truncate)
    true = real_images(reals, count, now)
    scores: dict[str, Any] = {**image_scores(fakes, true, inception), **of_poses}
    if len(reals) >= 2 * count:
        scores["swd_floor"] = sliced_wasserstein(true, real_images(reals, count, now, start=count))
    sheet = None
    if compared is not None:
        true_shapes, others, training = compared
        made = shape_sets.generate(generator, now, len(true_shapes.clouds), config.seed)
        scores |= shape_sets.set_scores(made, true_shapes, others, training)
        if training is not None and made.meshes:
            sheet = output_path(None, output.with_name(f"{output.stem}-nearest.png"))
            save_image(sheet, shape_sets.nearest_sheet(made, training, _SHEET))
    width = max(map(len, scores))
    for name, value in scores.items():
        print(f"{name:{width}}  {value:.5g}")
    result = {
        "checkpoint": str(checkpoint),
        "weights": config.weights,
        "psi": config.psi,
        "seed": config.seed,
        "images": count,
        "resolution": now.resolution,
        "real": str(config.real or what),
        "poses": config.poses and str(config.poses),
        "shapes": str(config.shapes) if isinstance(config.shapes, Path) else config.shapes,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        **scores,
    }
    write_json(output, result)
    shown = "" if sheet is None else f" and {sheet}: shapes above the nearest that were learned from"
    print(f"{count} images on each side at {now.resolution} px; wrote {output}{shown}")


def _real(config: EvaluateConfig, trained: ResolvedGanConfig) -> tuple[Images, str]:
    """The real images to compare with, and what they are."""
    if config.real is not None:
        layout, background = trained.data_layout, trained.background
        found = open_data(config.real, trained.resolution, layout=layout, background=background)
        for note in found.notes:
            print(note)
        order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(config.seed))
        return found.images.select(order), "given"  # files may come object by object: any part is of all of them
    if trained.data is not None:
        return load_training_data(trained, verbose=False).held_out, "held out"
    count = 2 * config.images  # and as many for the floor
    with progress(count, "making images") as bar:
        made = shape_set(
            count,
            trained.resolution,
            _UNSEEN,
            family=trained.shapes,
            on_progress=lambda n, _: bar.advance(n - bar.done),
        )
    return InMemory(made.images), "built-in, not learned from"


def _true_shapes(config: EvaluateConfig, family: str) -> tuple[TrueShapes, TrueShapes | None, TrueShapes | None]:
    """The shapes to compare with; others of their kind, whose scores are the floor; and those learned from."""
    if isinstance(config.shapes, int):
        true, others = (shape_sets.built_in(config.shapes, family, config.seed + i) for i in (0, 1))
        return true, others, None
    true = shape_sets.of_meshes(config.shapes, config.up == "z", with_pieces=True)
    if config.training_shapes is None:
        return true, None, None
    training = shape_sets.of_meshes(config.training_shapes, config.up == "z")
    learned = {file.resolve() for file in training.files} & {file.resolve() for file in true.files}
    if learned:
        print(f"{len(learned)} of the {len(true.files)} objects to compare with are among --training-shapes")
    if len(training.files) < len(true.files):
        print(f"the floor is of {len(training.files)} objects against {len(true.files)}: its coverage is too low")
    some = torch.randperm(len(training.clouds), generator=torch.Generator().manual_seed(config.seed))[
        : len(true.clouds)
    ]
    return true, training._replace(clouds=training.clouds[some]), training


def _pose_scores(path: Path, learned: PoseHistogram | None, trained: ResolvedGanConfig) -> dict[str, float]:
    """How far learned poses are from those of a data set, as training saw its images."""
    if learned is None:
        raise UserError(f"--poses compares poses that were learned (train-gan --poses learned), not {trained.poses}")
    true = open_data(path, trained.resolution, layout=trained.data_layout, background=trained.background).images.poses
    if true is None:
        raise UserError(f"{path}: --poses: not every image has a pose (poses.json, transforms.json)")
    if trained.mirror:
        print("the run flipped images at random: the true poses are these and their mirror images")
        true = torch.cat([true, true * torch.tensor([1.0, -1.0])])
    return learned.compared(true)


def _poses(config: ResolvedGanConfig, reals: Images, learned: PoseHistogram | None) -> PoseDistribution:
    if learned is not None:
        return learned
    if config.poses == "data":
        if reals.poses is None:
            raise UserError("the run took its poses from its data, and these images have none (poses.json)")
        return Empirical.of(reals.poses)
    return poses_of(config)
