"""A run of learning a scene: posed images in, a run folder with scores, videos and a mesh out.

A batch of rays is cut into equal chunks. On a CPU they run in parallel threads of one torch thread each, and their
gradients are averaged in order: the result is the same for any number of threads. With several processes each takes
its share of the chunks; all draw the same random numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.data.scenes import Scene, load_scene, write_cameras
from sdfgan.errors import UserError
from sdfgan.images import save_image, warn_if_no_video
from sdfgan.meshes import export_mesh
from sdfgan.metrics import decibels
from sdfgan.nerf.cameras import CameraCorrections
from sdfgan.nerf.config import GRID_MODELS, NerfConfig, ResolvedNerfConfig
from sdfgan.nerf.exposures import Exposures
from sdfgan.nerf.mesh import scene_mesh, scene_surface
from sdfgan.nerf.models import GridModel, NetworkModel, SceneModel, SurfaceModel, config_of, make_model
from sdfgan.nerf.objective import Batch, Leaf, scene_loss
from sdfgan.nerf.report import SceneRenderer, score_views, spread, write_videos
from sdfgan.ops import sample_pixels, valid_pixels
from sdfgan.training.checkpoint import (
    Saved,
    pack_generator_state,
    pack_module,
    pack_optimizer,
    read_checkpoint,
    unpack_generator_state,
    unpack_module,
    unpack_optimizer,
)
from sdfgan.training.device import autocast, generator_on
from sdfgan.training.files import FullDisk
from sdfgan.training.job import Intervals, Job
from sdfgan.training.loop import run
from sdfgan.training.progress import announced
from sdfgan.training.ranks import Ranks, process_group
from sdfgan.training.run import Summary, choose_folder, resumed_config
from sdfgan.training.steps import ChunkThreads, Numbers, Steps, as_numbers, assign_gradients, mean_gradients

_CHANGEABLE_ON_RESUME = """resume data dataset_name device dry_run video_frames video_format video_scale fps
    render_depth render_normal render_test mesh_resolution mesh_level faces texture_resolution lpips
    evaluate_interval evaluate_views checkpoint_interval"""
_FIRST_RATE = 0.01  # of the learning rate when it begins to rise
_PIXELS_AT_ONCE = 2**20
_MIN_RAYS = 8  # of a chunk, while the number adapts
_VIEWS_LOOKED_AT = 3  # of the validation views, while training
_RAYS_AT_ONCE = {"cpu": 2048, "cuda": 16384}  # of an image, at most


def train(config: NerfConfig) -> dict[str, Any]:
    """Train, or continue, the run that `config` describes; returns what `summary.json` says.

    Under torchrun every process calls this; the first one writes. Raises UserError for bad settings, scenes and
    checkpoints; SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the run has been saved.
    """
    saved = None if config.resume is None else read_checkpoint(config.resume)
    if saved is not None:
        config = resumed_config(config, config_of(saved), saved.folder, _CHANGEABLE_ON_RESUME.split())
    config = config.resolved()
    config = dataclasses.replace(config, output_dir=choose_folder(saved, config.output_dir, "nerf"), resume=None)
    with process_group(torch.device(config.device)) as ranks:
        with announced(f"reading {config.scene}", ranks.first):
            scene = load_scene(config.scene, image_scale=config.image_scale, scene_scale=config.scene_scale)
        background_value(config, scene)
        lpips = _lpips(config, scene)
        with closing(NerfJob(config, scene, ranks, lpips)) as job:
            return run(job, saved)


class _Chunk(NamedTuple):
    """What a chunk is made of."""

    pixels: Tensor  # [r] numbers of the pixels
    background: Tensor  # [r, 3]
    seed: int  # of everything else that is random


class NerfJob(Job):
    """Model, optimiser and random state of a run."""

    kind = "nerf"
    threads: ChunkThreads

    def __init__(self, config: ResolvedNerfConfig, scene: Scene, ranks: Ranks | None = None, lpips: Any = None) -> None:
        """`config` is resolved; `lpips` is the network that scores images at the end."""
        self.config, self.scene, self.lpips = config, scene, lpips
        self.root = config.output_dir or Path()
        self.runs = {self.root: config}
        self.dry_run = config.dry_run
        self.ranks = ranks or Ranks()
        self.device = torch.device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model: SceneModel = make_model(config, scene.bounded).to(self.device)
        self.exposures = Exposures(len(scene.train) if config.exposure else 0).to(self.device)
        positions = scene.train.cameras.camera_to_world[:, :, 3]
        self.cameras = CameraCorrections(positions if config.refine_cameras else positions[:0]).to(self.device)
        self.modules = [self.model, self.exposures, self.cameras]
        self.parameters = [parameter for module in self.modules for parameter in module.parameters()]
        self.views = scene.train.to(self.device)
        self.model.see(self.views)
        lens = self.views.cameras.distortion is not None
        self.valid = valid_pixels(self.views.cameras) if lens else None  # None: all
        self.middle = _middle_pixels(self.views.sizes, self.valid) if config.center_crop_steps else None
        for pixels, which in ((self.valid, "pixel"), (self.middle, "pixel of the images' middles")):
            if pixels is not None and len(pixels) == 0:
                raise UserError(f"{scene.path}: no {which} has a ray: check the lens distortion")
        # The parameter whose gradient all chunks make together, as `grid_loss` says.
        self.table: int | None = None
        if isinstance(self.model, GridModel) and self.device.type == "cpu" and config.precision == "fp32":
            names = [name for name, _ in self.model.named_parameters()]
            self.table = names.index("radiance.grid.table")
        self.background = torch.full((3,), background_value(config, scene), device=self.device)
        self.random = torch.Generator().manual_seed(config.seed)
        # A hash grid's entries have small and rare gradients (Instant NGP, sec. 4).
        betas, eps = ((0.9, 0.99), 1e-15) if config.model in GRID_MODELS else ((0.9, 0.999), 1e-8)
        moved = list(self.cameras.parameters())
        groups = [{"params": self.parameters[: len(self.parameters) - len(moved)], "lr": config.learning_rate}]
        groups += [{"params": moved, "lr": config.camera_learning_rate}] if moved else []
        self.optimizer = torch.optim.Adam(groups, betas=betas, eps=eps, fused=True)
        self.rates = [group["lr"] for group in groups]
        count = self.ranks.count
        self.chunks = count * math.ceil(config.rays / (config.chunk_size * count))
        self.max_rays = max(1, config.rays // self.chunks)  # of a chunk
        self.rays_now = self.chunks * (self.max_rays if config.samples is None else min(_MIN_RAYS, self.max_rays))
        self.steps, self.steps_done = config.steps, 0
        self.every = Intervals(
            sample=config.evaluate_interval or 0,
            evaluate=config.evaluate_interval or 0,
            checkpoint=config.checkpoint_interval or 0,
        )
        self.updates = Steps({"model": "--learning-rate"}, config.precision)
        self.threads = ChunkThreads(self.device)
        at_once = _RAYS_AT_ONCE[self.device.type]
        if self.device.type == "cuda":  # --chunk-size says what fits into its memory
            at_once = min(at_once, config.chunk_size)
        self.renderer = SceneRenderer(self.model, self.background, at_once, self.threads.map, self.autocast)
        self.validated = math.nan  # PSNR of a few validation views

    # ------------------------------------------------------------------------------------------------------- a step

    def step(self) -> Numbers:
        """One update of the model."""
        rate = self._set_learning_rate()
        with self.autocast():
            self.model.before_step(self.steps_done, self.random)
        chunks = self._draw()
        results = self.threads.map(self._gradients, self.ranks.share(chunks))
        gradients = mean_gradients([gradients for gradients, _, _ in results])
        if self.table is not None:
            parts = [part for _, part, _ in results if part is not None]
            gradients[self.table] = self._table_gradient(parts, len(results))
        numbers = torch.stack([torch.stack(list(log.values())) for *_, log in results]).mean(0)
        *gradients, numbers = self.ranks.average([*gradients, numbers])
        self._update(gradients)
        values, norms = as_numbers(numbers, self.updates.norms)
        self.updates.settle(norms, self.steps_done)
        log = dict(zip(results[0][2], values, strict=True)) | {"gradient_norm": norms[0]}
        self.steps_done += 1
        if self.config.samples is not None:
            wanted = int(self.config.samples / max(log["samples"], 0.1))
            self.rays_now = self.chunks * min(max(wanted // self.chunks, _MIN_RAYS), self.max_rays)
        mse = log.pop("mse")
        return {"psnr": decibels(mse), "learning_rate": rate, "rays": len(chunks[0].pixels) * self.chunks, **log}

    def _draw(self) -> list[_Chunk]:
        """The chunks of a step, alike in all processes."""
        pixels = self.middle if self.steps_done < self.config.center_crop_steps else self.valid
        count = len(self.views.pixels if pixels is None else pixels)
        random = generator_on(self.device, self.random)
        chosen = torch.randint(count, (self.rays_now,), generator=random, device=self.device)
        chosen = chosen if pixels is None else pixels[chosen]
        background = self.background.expand(self.rays_now, 3)
        if self.scene.has_alpha and self.config.random_background:
            background = torch.rand(self.rays_now, 3, generator=random, device=self.device)
        seeds = torch.randint(2**62, (self.chunks,), generator=self.random).tolist()
        parts = (chosen.tensor_split(self.chunks), background.tensor_split(self.chunks), seeds)
        return [_Chunk(*part) for part in zip(*parts, strict=True)]

    def _gradients(self, chunk: _Chunk) -> tuple[Sequence[Tensor], Leaf | None, dict[str, Tensor]]:
        """Gradients of a chunk's loss by all parameters, and numbers for the log.

        If `table` says so, that by the table is empty, and places with the gradient by their features are between.
        """
        generator = torch.Generator(self.device).manual_seed(chunk.seed)
        pixels = sample_pixels(self.views.cameras, chunk.pixels, self.views.pixels)
        assert pixels.colors is not None
        colors = pixels.colors[:, :3] + (1 - pixels.colors[:, 3:]) * chunk.background
        alpha = pixels.colors[:, 3] if self.scene.has_alpha else None
        config, image = self.config, None
        traced = isinstance(self.model, SurfaceModel) and self.model.traced
        if traced or config.exposure or config.refine_cameras:
            image = torch.searchsorted(self.views.cameras.starts, chunk.pixels, right=True) - 1
        if config.refine_cameras:
            pixels = self.cameras(pixels, image)
        with self.autocast():
            gain = self.exposures(image) if config.exposure else None
            batch = Batch(self.model.rays(pixels), colors, chunk.background, alpha, image if traced else None, gain)
            leaves: list[Leaf] | None = None if self.table is None else []
            loss, log = scene_loss(self.model, batch, generator, leaves)
            if config.exposure:
                log["exposure_spread"] = self.exposures.logs.detach().std(0, unbiased=False).mean()
        if config.refine_cameras:
            log |= self.cameras.numbers()
        wanted = [parameter if i != self.table else parameter[:0] for i, parameter in enumerate(self.parameters)]
        if not loss.requires_grad:  # no ray met anything
            return [torch.zeros_like(parameter) for parameter in wanted], None, log
        scaled, inputs = loss * self.updates.loss_scale, [*wanted, *(leaf.features for leaf in leaves or ())]
        gradients = torch.autograd.grad(scaled, inputs, allow_unused=True)
        found = [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, inputs, strict=True)]
        part = Leaf(leaves[0].unit, found.pop()) if leaves else None
        return found, part, log

    def _table_gradient(self, parts: list[Leaf], chunks: int) -> Tensor:
        """The mean over chunks of the gradient by the table of the hash grid."""
        assert isinstance(self.model, GridModel)
        grid = self.model.radiance.grid
        if not parts:
            return torch.zeros_like(grid.table)
        unit, features = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return grid.table_gradient(unit, features / chunks, self.threads.map)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the networks' products."""
        return autocast(self.device, self.config.precision)

    def _set_learning_rate(self) -> float:
        """Linearly up from 1%, and exponentially down all the while."""
        config = self.config
        share = config.learning_rate_final ** (self.steps_done / config.steps)
        if self.steps_done < config.warmup_steps:
            share *= _FIRST_RATE + (1 - _FIRST_RATE) * self.steps_done / config.warmup_steps
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        return config.learning_rate * share

    def _update(self, gradients: Sequence[Tensor]) -> None:
        """Step on the gradients, unless they are not finite."""
        assign_gradients(self.parameters, gradients, self.updates.loss_scale)
        clip = self.config.gradient_clip if self.config.gradient_clip >= 0 else math.inf
        self.updates.take("model", self.optimizer, self.parameters, clip)

    # ---------------------------------------------------------------------------------------------------- checkpoint

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `load_state` continues exactly."""
        tensors = {
            **pack_module(self.model, "model"),
            **pack_module(self.exposures, "exposures"),
            **pack_module(self.cameras, "cameras"),
            **pack_optimizer(self.optimizer, "optimizer"),
            **pack_generator_state(self.random, "random"),
        }
        return tensors, {"bounded": self.scene.bounded, "rays_now": self.rays_now, **self.updates.state()}

    def load_state(self, saved: Saved) -> None:
        """See `Job.load_state`; the run may have had another number of processes."""
        source, tensors, state = saved
        unpack_module(self.model, tensors, "model", source)
        unpack_module(self.exposures, tensors, "exposures", source)
        unpack_module(self.cameras, tensors, "cameras", source)
        unpack_optimizer(self.optimizer, tensors, "optimizer", source)
        unpack_generator_state(self.random, tensors, "random", source)
        try:
            self.steps_done, self.rays_now = state["step"], int(state["rays_now"])
            self.updates.load_state(state)
            if not 1 <= self.rays_now <= max(self.config.rays, self.chunks * self.max_rays):
                raise ValueError(f"rays_now {self.rays_now}")
            # Another number of processes may have another number of chunks.
            self.rays_now = min(max(self.rays_now, self.chunks), self.chunks * self.max_rays)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: not a checkpoint of this version: {str(error)[:100]}") from error
        self.model.continued(self.steps_done)

    # ---------------------------------------------------------------------------------------------------- looking at it

    def describe(self) -> None:
        """What is learnt from what, and the notes of its files."""
        config, scene = self.config, self.scene
        held = ", ".join(f"{len(v)} {name}" for name, v in (("val", scene.val), ("test", scene.test)) if v is not None)
        height, width = scene.train.sizes[0].tolist()
        parameters = sum(p.numel() for p in self.parameters)
        processes = f"{self.ranks.count} processes, " if self.ranks.count > 1 else ""
        for note in scene.notes:
            print(note)
        if isinstance(self.model, NetworkModel) and config.visual_hull:
            hull = self.model.occupancy
            if hull is None or scene.train.cameras.distortion is not None:
                print("no visual hull, which needs an object in pinhole images with alpha")
            else:
                print(f"visual hull: {hull.seen.float().mean().item():.1%} of the scene's cube")
        if config.video_frames:
            warn_if_no_video(self.root / f"orbit.{config.video_format}")
        print(
            f"{self.root}: {config.model}, {parameters:,} parameters, {config.steps} steps of up to {config.rays} rays "
            f"on {config.device}, {processes}{self.threads.count} threads; {config.scene}: {len(scene.train)} views of "
            f"{width} x {height} to learn from ({held or 'none'} held out), "
            f"{'bounded' if scene.bounded else 'unbounded'}"
        )

    def status(self, numbers: Numbers) -> str:
        """PSNR of what is learnt from and, if known, of what is held out."""
        validation = "" if math.isnan(self.validated) else f"  val {self.validated:.2f} dB"
        return f"PSNR {numbers['psnr']:.2f} dB{validation}"

    def evaluate(self) -> Sequence[Numbers]:
        """Scores of a few validation views while training; at the end all are scored."""
        views = self.scene.val or self.scene.test
        if views is None or not self.ranks.first or self.steps_done in (0, self.steps):
            return ()
        scores = self.renderer.scores(views.to(self.device), spread(len(views), _VIEWS_LOOKED_AT))
        self.validated = scores.get("psnr", math.nan)
        return [{f"validation/{name}": value for name, value in scores.items() if name != "views"}]

    def samples(self, file: Path) -> Tensor | None:
        """A validation view beside the truth, except at the end."""
        views = self.scene.val or self.scene.test
        if views is None or self.steps_done == self.steps:
            return None
        sheet = self.renderer.sheet(views.to(self.device), spread(len(views), 1))
        save_image(file, sheet)
        return sheet

    def finish(self, summary: Summary) -> dict[str, Any]:
        """Score all views that are held out, and make videos and a mesh."""
        config, scene, path = self.config, self.scene, self.root
        cameras = None
        if config.refine_cameras:
            scene = self.cameras.corrected(scene)
            cameras = write_cameras(scene, path)
        parts = (("train", scene.train), ("val", scene.val), ("test", scene.test))
        summary |= {
            "model": config.model,
            "scene": str(config.scene),
            "views": {name: len(views) for name, views in parts if views},
            "scores": score_views(self.renderer, config, scene, path, self.lpips),
            "scene_to_file": scene.to_file.tolist(),
            **({} if cameras is None else {"cameras": str(cameras)}),
        }
        summary.write(path)
        mesh = None
        if config.mesh_resolution:
            try:
                surface = scene_surface(self.model, config, config.mesh_resolution)
                asked = config.mesh_resolution, scene, config.faces, config.texture_resolution
                gains = self.exposures.gains.detach().cpu() if config.exposure else None
                export_mesh(scene_mesh(surface, *asked, gains), path / "mesh.glb")
                mesh = str(path / "mesh.glb")
            except FullDisk:
                raise
            except UserError as error:
                print(f"no mesh: {error}")
        videos = write_videos(self.renderer, config, scene, path) if config.video_frames else []
        summary |= {"videos": [str(file) for file in videos], "mesh": mesh}
        summary.write(path)
        scored = {name: values for name, values in summary["scores"].items() if values["views"]}
        scores = ", ".join(f"{name} {values['psnr']:.2f} dB" for name, values in scored.items())
        made = [Path(file).name for file in (*videos, mesh, cameras) if file is not None]
        made = [*(["views.png"] if summary["scores"] else []), *made, "summary.json"]
        print(f"done: {scores or 'no views held out'}; open {path}/report.html, or look at {', '.join(made)} there")
        return summary


def background_value(config: ResolvedNerfConfig, scene: Scene) -> float:
    """What is behind the images: 1 or 0. Raises UserError where they have no alpha but need one."""
    if config.background == "white" and not scene.has_alpha:
        raise UserError(f"{scene.path}: --background white needs images with alpha, but these have none")
    return float(scene.has_alpha and config.background != "black")


def _middle_pixels(sizes: Tensor, valid: Tensor | None) -> Tensor:
    """Those of the valid pixels, or of all, that are in the middle halves of their images of sizes [B, 2]."""
    counts = sizes.prod(1)
    starts = counts.cumsum(0) - counts
    total = int(counts.sum()) if valid is None else len(valid)
    found = []
    for first in range(0, total, _PIXELS_AT_ONCE):
        some = torch.arange(first, min(first + _PIXELS_AT_ONCE, total), device=sizes.device)
        some = some if valid is None else valid[some]
        view = torch.searchsorted(starts, some, right=True) - 1
        offset, (height, width) = some - starts[view], sizes[view].unbind(1)
        row, column = offset // width + 0.5, offset % width + 0.5
        found.append(some[((row - height / 2).abs() <= height / 4) & ((column - width / 2).abs() <= width / 4)])
    return torch.cat([starts[:0], *found])


def _lpips(config: ResolvedNerfConfig, scene: Scene) -> Any:
    """The network, if one is asked for. Raises UserError where it cannot compare the images."""
    if config.lpips is None:
        return None
    from sdfgan.lpips import MIN_SIDE, load_lpips

    network = load_lpips(config.lpips).to(config.device)
    smallest = min((int(views.sizes.min()) for views in (scene.val, scene.test) if views), default=MIN_SIDE)
    if smallest < MIN_SIDE:
        raise UserError(f"--lpips: images must be at least {MIN_SIDE} pixels wide and high, got {smallest}")
    return network
