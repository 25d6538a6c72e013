"""A GAN run from beginning to end: pictures in, a run folder with shapes out."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import rotate_axes
from sdfgan.data.images import load_images
from sdfgan.data.shapes import shape_set
from sdfgan.errors import UserError
from sdfgan.gan.config import GanConfig
from sdfgan.gan.generator import config_of, sample_latents
from sdfgan.gan.trainer import Trainer
from sdfgan.gan.views import Viewer
from sdfgan.meshes import export_mesh, marching_cubes
from sdfgan.metrics import sliced_wasserstein
from sdfgan.pictures import image_grid, save_image
from sdfgan.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from sdfgan.training.files import write_json
from sdfgan.training.interrupt import StopSignals
from sdfgan.training.progress import progress
from sdfgan.training.run import RunFolder, next_run_folder

_CHANGEABLE_ON_RESUME = ("resume", "output_dir", "steps", "device", "dry_run")
_EVALUATION_SEED = 77  # of the latents and poses that pictures are compared with
_LOG_INTERVAL = 10
_FEWEST_HELD_OUT = 32


class Pictures(NamedTuple):
    """What a run learns from, and what it is judged by."""

    train: Tensor  # [N, 4, R, R] uint8, premultiplied
    held_out: Tensor  # [2 M, 4, R, R] uint8: two halves


def train(config: GanConfig) -> dict[str, Any]:
    """Train, or continue, the run that `config` describes; returns what `summary.json` says.

    Raises UserError for bad settings, data and checkpoints; SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the
    run has been saved.
    """
    checkpoint = None
    if config.resume is not None:
        checkpoint = resolve_checkpoint(config.resume)
        tensors, state = load_checkpoint(checkpoint)
        config = _resumed_config(config, config_of(state, checkpoint), checkpoint)
    config = config.resolved()
    if checkpoint is not None:
        path = checkpoint.parent.parent
    else:
        path = config.output_dir or next_run_folder(Path("runs"), "gan")
    config = dataclasses.replace(config, output_dir=path, resume=None)
    pictures = _load_pictures(config)
    trainer = Trainer(config)
    try:
        elapsed, start_distance = 0.0, None
        if checkpoint is not None:
            trainer.load_state(tensors, state, int(state["step"]), checkpoint)
            elapsed, start_distance = float(state["elapsed_seconds"]), state["start_distance"]
        elif config.load_dir is not None:
            source = resolve_checkpoint(config.load_dir)
            trainer.load_networks(load_checkpoint(source)[0], source)
        _describe(trainer, pictures, path)
        if config.dry_run:
            print("dry run: everything is in place; nothing was written")
            return {"dry_run": True, "config": config.to_json()}
        return _Run(trainer, pictures, path, elapsed, start_distance).finish()
    finally:
        trainer.close()


class _Run:
    """A trainer at work in its folder."""

    def __init__(
        self, trainer: Trainer, pictures: Pictures, path: Path, elapsed: float, start_distance: float | None
    ) -> None:
        self.trainer, self.pictures, self.config, self.path = trainer, pictures, trainer.config, path
        self.started = time.monotonic() - elapsed
        resumed = trainer.steps_done or None
        self.folder = RunFolder(path, self.config.to_json(), resumed)
        self.start_distance = start_distance
        self.viewer = Viewer(trainer.average, trainer.fov, trainer.map)
        self.elevation = sum(trainer.poses.elevation) / 2
        if resumed is None:
            save_image(path / "samples" / "real.png", image_grid(pictures.train[:64].float() / 255, 16)[:3])
            self.start_distance = self.distance()

    def finish(self) -> dict[str, Any]:
        """Train what is left, then make pictures, meshes and the summary."""
        config, trainer = self.config, self.trainer
        assert config.steps is not None
        log: dict[str, float] = {}
        with StopSignals() as stop, progress(config.steps, "training", trainer.steps_done) as bar:
            while trainer.steps_done < config.steps:
                numbers = trainer.step(self.pictures.train)
                log = {name: _smooth(log.get(name), value) for name, value in numbers.items()}
                step = trainer.steps_done
                bar.advance(status=f"D {log['loss_d']:.3f}  G {log['loss_g']:.3f}  eikonal {log['eikonal']:.3f}")
                if step % _LOG_INTERVAL == 0:
                    self.folder.log(step, numbers)
                if step % config.sample_interval == 0:
                    self.sample(step)
                if step % config.checkpoint_interval == 0 and step < config.steps:
                    self.save()
                if stop.received is not None:
                    saved = self.save()
                    self.folder.close()
                    print(f"\nstopped at step {step} and saved; continue with --resume {self.path} ({saved.name})")
                    raise SystemExit(128 + stop.received)
        saved = self.save()
        summary = self.results(saved)
        write_json(self.path / "summary.json", summary)
        self.folder.close()
        print(f"done: look at {self.path}: grid.png, turntable.mp4, meshes; numbers are in {self.path}/summary.json")
        return summary

    def save(self) -> Path:
        tensors, state = self.trainer.state()
        values = {
            "kind": "gan",
            "config": self.config.to_json(),
            "elapsed_seconds": time.monotonic() - self.started,
            "start_distance": self.start_distance,
            **state,
        }
        return save_checkpoint(self.path, self.trainer.steps_done, tensors, values)

    # ------------------------------------------------------------------------------------------------ looking at it

    def sample(self, step: int) -> None:
        """A grid of twelve shapes, each seen from four sides."""
        assert self.config.resolution is not None
        latents = sample_latents(self.config, range(12)).to(self.trainer.device)
        grid = self.viewer.grid(latents, 4, self.elevation, max(64, self.config.resolution), columns=12)
        save_image(self.path / "samples" / f"step-{step:07d}.png", grid)
        self.folder.log_image(step, "samples", grid)

    def final_pictures(self) -> None:
        """grid.png and turntable.mp4."""
        config = self.config
        latents = sample_latents(config, range(10)).to(self.trainer.device)
        grid = self.viewer.grid(latents, 6, self.elevation, config.view_resolution, columns=12)
        save_image(self.path / "grid.png", grid)
        video = self.path / "turntable.mp4"
        self.viewer.turntable(video, latents[:9], self.elevation, config.view_resolution, config.video_frames)

    @torch.no_grad()
    def meshes(self, seeds: range) -> list[Path]:
        """Coloured meshes of some shapes; shapes without a surface are left out, and that is said."""
        average, made = self.trainer.average, []
        for seed in seeds:
            latents = sample_latents(self.config, [seed]).to(self.trainer.device)
            path = self.path / "meshes" / f"shape-{seed}.glb"
            try:
                mesh = marching_cubes(average, average.condition(latents), self.config.mesh_resolution)
            except UserError as error:
                print(f"seed {seed}: no mesh: {error}")
                continue
            export_mesh(mesh, path)
            made.append(path)
        return made

    # ------------------------------------------------------------------------------------------------------- judging

    @torch.no_grad()
    def distance(self) -> float | None:
        """Sliced-Wasserstein distance of generated to held-out pictures; None where too few are held out."""
        count = len(self.pictures.held_out) // 2
        if count == 0:
            return None
        random = torch.Generator().manual_seed(_EVALUATION_SEED)
        latents = torch.randn(count, self.trainer.generator.latent_size, generator=random)
        axes = rotate_axes(self.trainer.poses.sample(count, random))
        average, device = self.trainer.average, self.trainer.device

        def some(latents: Tensor, axes: Tensor) -> Tensor:
            condition = average.condition(latents.to(device))
            return self.trainer.render(average, condition, axes.to(device)).rgba.cpu()

        fakes: list[Tensor] = []
        with torch.no_grad(), progress(count, "evaluating") as bar:
            for group_latents, group_axes in zip(latents.split(256), axes.split(256), strict=True):
                fakes += self.trainer.map(_without_graph(some), group_latents.split(32), group_axes.split(32))
                bar.advance(len(group_latents))
        return sliced_wasserstein(torch.cat(fakes), self.pictures.held_out[:count].float() / 255)

    def results(self, checkpoint: Path) -> dict[str, Any]:
        """The final pictures and meshes, and the summary of the run."""
        trained = time.monotonic() - self.started
        end = self.distance()
        half = len(self.pictures.held_out) // 2
        floor = None
        if half:
            halves = (part.float() / 255 for part in self.pictures.held_out.split(half))
            floor = sliced_wasserstein(*halves)
        print("drawing the final pictures")
        self.final_pictures()
        meshes = self.meshes(range(3))
        return {
            "kind": "gan",
            "steps": self.trainer.steps_done,
            "device": _device_name(self.trainer.device),
            "threads": self.trainer.threads,
            "torch": torch.__version__,
            "wall_seconds": round(time.monotonic() - self.started, 1),
            "training_seconds": round(trained, 1),
            "sliced_wasserstein": {
                "images": half,
                "start": self.start_distance,
                "end": end,
                "floor": floor,
                "ratio": end / floor if end is not None and floor else None,
            },
            "checkpoint": str(checkpoint),
            "grid": str(self.path / "grid.png"),
            "turntable": str(self.path / "turntable.mp4"),
            "meshes": [str(path) for path in meshes],
        }


def _without_graph(function: Any) -> Any:
    """`function` under no_grad: the grad mode does not reach other threads by itself."""
    return torch.no_grad()(function)


def _load_pictures(config: GanConfig) -> Pictures:
    assert config.resolution is not None and config.dataset_size is not None
    if config.data is None:
        count = config.dataset_size + 2 * config.evaluate_images
        with progress(count, "making pictures") as bar:
            shapes = shape_set(count, config.resolution, on_progress=lambda done, _: bar.advance(done - bar.done))
        images = shapes.images
        return Pictures(images[: config.dataset_size], images[config.dataset_size :])
    found = load_images(config.data, config.resolution, background=config.background)
    if found.skipped:
        names = ", ".join(f"{name} ({reason})" for name, reason in found.skipped[:3])
        more = ", ..." if len(found.skipped) > 3 else ""
        total = len(found.skipped) + len(found.images)
        print(f"{config.data}: {len(found.skipped)} of {total} pictures skipped: {names}{more}")
    order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(0))
    held = min(2 * config.evaluate_images, len(order) // 5) // 2 * 2
    if held < _FEWEST_HELD_OUT:
        held = 0
    return Pictures(found.images[order[held:]], found.images[order[:held]])


def _resumed_config(given: GanConfig, saved: GanConfig, checkpoint: Path) -> GanConfig:
    """The saved configuration; what else was given on the command line must agree with it."""
    changed = {}
    for field in dataclasses.fields(GanConfig):
        value = getattr(given, field.name)
        if value == field.default or value == getattr(saved, field.name):
            continue
        if field.name not in _CHANGEABLE_ON_RESUME:
            flag = field.name.replace("_", "-")
            raise UserError(
                f"--{flag} {value} differs from the run's {getattr(saved, field.name)} ({checkpoint}): a run is "
                "continued as it was; use --load-dir to start another from it"
            )
        changed[field.name] = value
    if "output_dir" in changed:
        raise UserError(f"--output-dir: a run is continued in its own folder, {checkpoint.parent.parent}")
    return dataclasses.replace(saved, **{**changed, "resume": None})


def _describe(trainer: Trainer, pictures: Pictures, path: Path) -> None:
    config = trainer.config
    parameters = [sum(p.numel() for p in net.parameters()) for net in (trainer.generator, trainer.discriminator)]
    print(
        f"{path}: {config.steps} steps of {config.batch_size} pictures at {config.resolution} px on "
        f"{_device_name(trainer.device)}, {trainer.threads} threads; {len(pictures.train)} pictures to learn from; "
        f"{parameters[0]:,} parameters in the generator, {parameters[1]:,} in the discriminator"
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _smooth(old: float | None, new: float) -> float:
    return new if old is None or not math.isfinite(old) else 0.95 * old + 0.05 * new
