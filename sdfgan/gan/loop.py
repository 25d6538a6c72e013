"""A GAN run from beginning to end: pictures in, a run folder with shapes out."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import Empirical, PoseDistribution
from sdfgan.data.image_sets import InMemory, OnDisk, Pictures
from sdfgan.data.layouts import open_data
from sdfgan.data.shapes import shape_set
from sdfgan.errors import UserError
from sdfgan.fields import PiGanField
from sdfgan.gan.config import GanConfig, ResolvedGanConfig
from sdfgan.gan.evaluation import picture_scores, random_pictures, real_pictures, set_scores
from sdfgan.gan.generator import config_of, sample_latents
from sdfgan.gan.trainer import Trainer
from sdfgan.gan.views import ImageRenderer, ViewRange, alphas
from sdfgan.images import image_grid, save_image, say_if_no_video, video_if_possible
from sdfgan.inception import MIN_IMAGES, Inception, find_weights, load_inception
from sdfgan.meshes import export_mesh, marching_cubes
from sdfgan.metrics import sliced_wasserstein
from sdfgan.training.checkpoint import (
    elapsed_seconds,
    list_checkpoints,
    load_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
)
from sdfgan.training.config import is_of_type
from sdfgan.training.device import device_here, resolve_device
from sdfgan.training.files import write_json
from sdfgan.training.health import Health, separate_parts
from sdfgan.training.interrupt import StopSignals, resumable
from sdfgan.training.progress import announced, progress
from sdfgan.training.ranks import Ranks, process_group
from sdfgan.training.run import RunFolder, changed_on_resume, check_new_run, next_run_folder

_CHANGEABLE_ON_RESUME = (
    "resume", "steps", "device", "dry_run", "evaluate_interval", "inception",
    "view_resolution", "video_frames", "video_format", "mesh_resolution",
)  # fmt: skip
_LOG_INTERVAL = 10  # steps, whose means are logged
_LOOKED_AT_FIRST = 64  # pictures, for their silhouettes
_MAX_OPAQUE = 0.1  # of them may lack one without a word
_MIN_HELD_OUT = 32
_REALS_LOOKED_AT = 256  # for how many silhouettes of separate parts are real


class TrainingData(NamedTuple):
    """What a run learns from, and what it is judged by."""

    train: InMemory | OnDisk
    held_out: InMemory | OnDisk  # 2 M pictures: two halves
    poses: PoseDistribution | None = None  # of the data set, if they are to be used
    mirror: bool = True  # whether the data set's convention allows it


def train(config: GanConfig) -> dict[str, Any]:
    """Train, or continue, the run that `config` describes; returns what `summary.json` says.

    Under torchrun every process calls this; the first one writes. Raises UserError for bad settings, data and
    checkpoints; SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the run has been saved.
    """
    with process_group(resolve_device(config.device)) as ranks:
        return _train(config, ranks)


def _train(config: GanConfig, ranks: Ranks) -> dict[str, Any]:
    resumed, source = config.resume is not None, config.resume or config.load_dir
    checkpoint, tensors = Path(), dict[str, Tensor]()
    state: dict[str, Any] = {}
    if source is not None:
        checkpoint = resolve_checkpoint(source)
        tensors, state = load_checkpoint(checkpoint)
        if "imported_from" in state:
            raise UserError(f"{source}: was imported, without a discriminator: it cannot be trained")
    if resumed:
        config = _resumed_config(config, config_of(state, checkpoint), checkpoint, state["step"])
    config = config.resolved()
    if resumed:
        path = checkpoint.parent.parent
    else:
        path = config.output_dir or next_run_folder(Path("runs"), "gan")
        check_new_run(path)
    config = dataclasses.replace(config, output_dir=path, resume=None)
    inception = _inception(config, ranks)
    if config.data is None and not ranks.first:
        ranks.wait()  # the first process fills the cache that the others read
    data = load_training_data(config, talk=ranks.first)
    if not resumed:
        _require_silhouettes(config, data.train, ranks.first)
    if config.data is None and ranks.first:
        ranks.wait()
    config = dataclasses.replace(config, mirror=config.mirror and data.mirror)
    trainer = Trainer(config, ranks, data.poses)
    try:
        elapsed, start = 0.0, None
        if resumed:
            trainer.load_state(tensors, state, state["step"], checkpoint)
            elapsed, start = elapsed_seconds(state, checkpoint), _start(state, checkpoint)
        elif source is not None:
            trainer.load_networks(tensors, checkpoint)
        if ranks.first:
            _describe(trainer, data, path)
        if config.dry_run:
            if ranks.first:
                print("dry run: everything is in place; no run was written")
            return {"dry_run": True, "config": config.to_json()}
        if source is None:
            trainer.precondition()
        ranks.broadcast(trainer.modules)  # processes on unlike machines may not have begun alike to the last bit
        with (
            resumable(path, lambda: bool(list_checkpoints(path))),
            closing(_Run(trainer, data, path, inception, elapsed, start)) as run,
        ):
            return run.finish()
    finally:
        trainer.close()


class _Run:
    """A trainer at work in its folder, which only the first process has."""

    def __init__(
        self,
        trainer: Trainer,
        data: TrainingData,
        path: Path,
        inception: Inception | None,
        elapsed: float,
        start: dict[str, float] | None,
    ) -> None:
        self.trainer, self.data, self.config, self.path = trainer, data, trainer.config, path
        self.ranks = trainer.ranks
        self.started = time.monotonic() - elapsed
        resumed = trainer.steps_done or None
        self.folder = RunFolder(path, self.config.to_json(), resumed) if self.ranks.first else None
        self.viewer = ImageRenderer(trainer.average, trainer.fov, trainer.threads.map)
        self.sides = ViewRange.of(trainer.poses)
        self.inception = None if inception is None else inception.to(trainer.device)
        self.health = Health()
        self.recent: dict[str, list[float]] = {}  # numbers of the steps since the last line of the log
        resolution = self.config.at(trainer.steps_done).resolution
        assert resolution is not None
        if self.ranks.first and self.config.channels == 4:
            looked_at = data.train.batch(torch.arange(min(_REALS_LOOKED_AT, len(data.train))), resolution)
            self.health.note({"real_blobs": separate_parts(looked_at[:, 3:].float() / 255)})
        if resumed is None and self.ranks.first:
            some = data.train.batch(torch.arange(min(64, len(data.train))), resolution)
            save_image(path / "samples" / "real.png", image_grid(some.float() / 255, 16)[:3])
        self.start = self.evaluate() if resumed is None else start

    def finish(self) -> dict[str, Any]:
        """Train what is left, then make pictures, meshes and the summary."""
        config, trainer = self.config, self.trainer
        assert config.steps is not None
        log: dict[str, float] = {}
        with StopSignals() as stop, progress(config.steps, "training", trainer.steps_done, self.ranks.first) as bar:
            while trainer.steps_done < config.steps:
                numbers = trainer.step(self.data.train)
                log = {name: _smooth(log.get(name), value) for name, value in numbers.items()}
                step = trainer.steps_done
                bar.advance(status=f"D {log['loss_d']:.3f}  G {log['loss_g']:.3f}  eikonal {log['eikonal']:.3f}")
                self.watch(step, numbers)
                if step % config.sample_interval == 0 and self.ranks.first:
                    self.sample(step)
                if config.evaluate_interval and step % config.evaluate_interval == 0 and step < config.steps:
                    self.evaluate()
                if step % config.checkpoint_interval == 0 and step < config.steps:
                    self.save()
                received = self.ranks.largest(stop.received or 0, trainer.device)
                if received:
                    saved = self.save()
                    if self.ranks.first:
                        print(f"\nstopped at step {step} and saved; continue with --resume {self.path} ({saved.name})")
                    raise SystemExit(128 + received)
        saved = self.save()
        summary = self.results(saved)
        if self.ranks.first:
            write_json(self.path / "summary.json", summary)  # now, so that no picture can take the numbers with it
            summary |= self.final_pictures()
            write_json(self.path / "summary.json", summary)
            made = [Path(summary[name]).name for name in ("grid", "turntable") if summary[name]]
            made += ["meshes"] if summary["meshes"] else []
            print(f"done: look at {self.path}: {', '.join(made)}; numbers are in {self.path}/summary.json")
        return summary

    def save(self) -> Path:
        """A checkpoint, written by the first process."""
        trainer = self.trainer
        trainer.ranks.check_same(trainer.modules, trainer.steps_done)
        if not self.ranks.first:
            return self.path
        tensors, state = trainer.state()
        values = {
            "kind": "gan",
            "config": self.config.to_json(),
            "elapsed_seconds": time.monotonic() - self.started,
            "start": self.start,
            **state,
        }
        return save_checkpoint(self.path, trainer.steps_done, tensors, values)

    def close(self) -> None:
        if self.folder is not None:
            self.folder.close()

    @property
    def now(self) -> ResolvedGanConfig:
        """The settings of the last step that was made."""
        return self.config.at(max(0, self.trainer.steps_done - 1))

    # ------------------------------------------------------------------------------------------------ looking at it

    def watch(self, step: int, numbers: dict[str, float]) -> None:
        """Log a step's numbers, and what they say about the run's health."""
        if self.folder is None:
            return
        for name, value in numbers.items():  # some are not measured at every step, or not finite: fp16 overflows
            if math.isfinite(value):
                self.recent.setdefault(name, []).append(value)
        if step % _LOG_INTERVAL == 0:
            self.folder.log(step, {name: sum(values) / len(values) for name, values in self.recent.items()})
            self.recent = {}
        for ailment in self.health.look(step, numbers):
            self.folder.warn(step, ailment.name, ailment.words)
            print(f"\nstep {step}: {ailment.words}", flush=True)

    def sample(self, step: int) -> None:
        """A grid of twelve shapes, each seen from four sides."""
        resolution = self.now.resolution
        assert resolution is not None and self.folder is not None
        looked = self.viewer.look(*self.viewer.views(self.shapes(12), 4, self.sides), max(64, resolution))
        self.health.note({"blobs": separate_parts(alphas(looked))})
        grid = image_grid(torch.cat([rendering.rgb.cpu() for rendering in looked]), 12)
        save_image(self.path / "samples" / f"step-{step:07d}.png", grid)
        self.folder.log_image(step, "samples", grid)

    def final_pictures(self) -> dict[str, Any]:
        """Make grid.png, turntable.mp4 and meshes; where they are, and how long all has taken, for the summary."""
        print("drawing the final pictures")
        config = self.config
        self.measure_slope()
        grid = self.viewer.grid(self.shapes(10), 6, self.sides, config.view_resolution, columns=12)
        save_image(self.path / "grid.png", grid)
        turntable = None
        if config.video_frames:
            shapes, path = self.shapes(9), self.sides.turntable(config.video_frames)
            turntable = video_if_possible(
                _video_file(self.path, config),
                lambda file: self.viewer.video(file, lambda frame: shapes, path, config.view_resolution),
            )
        return {
            "grid": str(self.path / "grid.png"),
            "turntable": turntable and str(turntable),
            "meshes": [str(file) for file in self.meshes(range(3))],
            "wall_seconds": round(time.monotonic() - self.started, 1),
        }

    @torch.no_grad()
    def shapes(self, count: int) -> Any:
        """The conditions of the shapes of seeds 0, 1, ... of the averaged generator."""
        return self.trainer.average.condition(sample_latents(self.config, range(count)).to(self.trainer.device))

    @torch.no_grad()
    def meshes(self, seeds: range) -> list[Path]:
        """Coloured meshes of some shapes; shapes without a surface are left out, and that is said."""
        average, made = self.trainer.average, []
        for seed in seeds if self.config.mesh_resolution else ():
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

    def measure_slope(self) -> None:
        """Radiance fields need it for meshes: how fast their density changes with distance."""
        if isinstance(self.trainer.average, PiGanField):
            self.trainer.average.measure_slope()

    # ------------------------------------------------------------------------------------------------------- judging

    def evaluate(self) -> dict[str, float] | None:
        """Distances of the averaged generator to held-out pictures, logged; None where too few are held out."""
        count, trainer = len(self.data.held_out) // 2, self.trainer
        if count == 0:
            return None
        now = self.now
        fakes = random_pictures(trainer.average, now, trainer.poses, count, map_=trainer.threads.map, ranks=self.ranks)
        if self.folder is None:
            return None
        scores = picture_scores(fakes, real_pictures(self.data.held_out, count, now), self.inception)
        if self.config.evaluate_shapes:
            self.measure_slope()
            scores |= set_scores(trainer.average, self.config, self.config.evaluate_shapes)
        self.folder.log(trainer.steps_done, {f"evaluation/{name}": value for name, value in scores.items()})
        return scores

    def results(self, checkpoint: Path) -> dict[str, Any]:
        """The summary of the run, without pictures and meshes."""
        trained = time.monotonic() - self.started
        end = self.evaluate()
        if not self.ranks.first:
            return {}
        half, now = len(self.data.held_out) // 2, self.now
        floor = None
        if half:
            floor = sliced_wasserstein(*real_pictures(self.data.held_out, 2 * half, now).split(half))
        return {
            "kind": "gan",
            "steps": self.trainer.steps_done,
            "device": _device_name(self.trainer.device),
            "processes": self.ranks.count,
            "threads": self.trainer.threads.count,
            "torch": torch.__version__,
            "wall_seconds": round(time.monotonic() - self.started, 1),
            "training_seconds": round(trained, 1),
            "sliced_wasserstein": {
                "images": half,
                "resolution": now.resolution,
                # At another resolution distances are others: those of a curriculum that grows cannot be compared.
                "start": self.start["swd"] if self.start and self.config.at(0).resolution == now.resolution else None,
                "end": end and end["swd"],
                "floor": floor,
                "ratio": end["swd"] / floor if end is not None and floor else None,
            },
            "evaluation": end,
            "checkpoint": str(checkpoint),
        }


def _video_file(path: Path, config: ResolvedGanConfig) -> Path:
    return path / f"turntable.{config.video_format}"


def load_training_data(config: ResolvedGanConfig, talk: bool = True) -> TrainingData:
    """The pictures of a resolved configuration, and those held out. Raises UserError."""
    assert config.dataset_size is not None
    resolution = max(config.resolutions)
    if config.data is None:
        if config.poses == "data":
            raise UserError("--poses data: the built-in set has none; give --data with poses")
        count = config.dataset_size + 2 * config.evaluate_images
        with progress(count, "making pictures", shown=talk) as bar:
            shapes = shape_set(count, resolution, on_progress=lambda done, _: bar.advance(done - bar.done))
        images = shapes.images
        return TrainingData(InMemory(images[: config.dataset_size]), InMemory(images[config.dataset_size :]))
    with announced(f"reading {config.data}", talk):
        found = open_data(
            config.data,
            resolution,
            layout=config.data_layout,
            background=config.background,
            cache=config.data_cache,
            label=config.label,
        )
    if found.skipped and talk:
        names = ", ".join(f"{name} ({reason})" for name, reason in found.skipped[:3])
        more = ", ..." if len(found.skipped) > 3 else ""
        total = len(found.skipped) + len(found.names)
        print(f"{config.data}: {len(found.skipped)} of {total} pictures skipped: {names}{more}")
    for note in found.notes if talk else ():
        print(note)
    order = torch.randperm(len(found.pictures), generator=torch.Generator().manual_seed(0))
    held = min(2 * config.evaluate_images, len(order) // 5) // 2 * 2
    if held < _MIN_HELD_OUT:
        if config.evaluate_images and talk:
            fewest = f"--evaluate-images {_MIN_HELD_OUT // 2} and {5 * _MIN_HELD_OUT} pictures"
            print(f"{config.data}: no pictures are held out to measure distances by: that takes {fewest} at least")
        held = 0
    poses = None
    if config.poses == "data":
        if found.pictures.poses is None:
            raise UserError(
                f"{config.data}: --poses data, but not every picture has a pose (poses.json, transforms.json)"
            )
        poses = Empirical.of(found.pictures.poses)
    kept, held_out = (found.pictures.select(part) for part in (order[held:], order[:held]))
    return TrainingData(kept, held_out, poses, found.convention.mirror)


def _require_silhouettes(config: ResolvedGanConfig, pictures: Pictures, talk: bool) -> None:
    """Raises UserError where a generator of RGBA would learn from opaque pictures alone; says where many are."""
    if config.channels == 3 or config.data is None:
        return
    some = torch.linspace(0, len(pictures) - 1, min(len(pictures), _LOOKED_AT_FIRST)).long()
    opaque = int((pictures.batch(some, min(config.resolutions))[:, 3] == 255).flatten(1).all(1).sum())
    where = "are not on --background" if config.background else "have no silhouette to learn from"
    advice = "give pictures with alpha, --background R G B where they are on a plain colour, or --channels 3"
    if opaque == len(some):
        raise UserError(f"{config.data}: the pictures {where}: {advice} to learn from the colours of photographs")
    if talk and opaque > _MAX_OPAQUE * len(some):
        print(f"{config.data}: {opaque} of {len(some)} pictures looked at {where}, and count as full squares: {advice}")


def _inception(config: ResolvedGanConfig, ranks: Ranks) -> Inception | None:
    """The network that evaluations use, where there are weights: in the first process, which evaluates."""
    weights = find_weights(config.inception)
    if weights is None or not ranks.first or config.evaluate_images < MIN_IMAGES:
        return None
    return load_inception(weights)


def _resumed_config(given: GanConfig, saved: ResolvedGanConfig, checkpoint: Path, done: int) -> ResolvedGanConfig:
    """The saved configuration; what else was given on the command line must agree with it."""
    run, instead = checkpoint.parent.parent, "; use --load-dir to start another from it"
    moved = () if saved.data is None else ("data",)  # the same pictures may be elsewhere now
    changed = changed_on_resume(given, saved, (*_CHANGEABLE_ON_RESUME, *moved), run, instead)
    changed.setdefault("device", device_here(saved.device, run))
    if changed.get("steps", done) < done:
        raise UserError(f"--steps {changed['steps']}: {checkpoint} has {done} behind it already")
    return dataclasses.replace(saved, **{**changed, "resume": None})


def _start(state: dict[str, Any], checkpoint: Path) -> dict[str, float] | None:
    """Scores from before the first step, if there are any. Raises UserError, naming the checkpoint."""
    start = state.get("start")
    if start is not None and not (isinstance(start, dict) and all(is_of_type(v, float) for v in start.values())):
        raise UserError(f"{checkpoint}: start must be scores by name, got {start!r:.50}")
    return start


def _describe(trainer: Trainer, data: TrainingData, path: Path) -> None:
    config = trainer.config.at(trainer.steps_done)
    parameters = [sum(p.numel() for p in net.parameters()) for net in (trainer.generator, trainer.discriminator)]
    processes = f"{trainer.ranks.count} processes, " if trainer.ranks.count > 1 else ""
    stages = f" ({len(trainer.config.stages)} stages)" if len(trainer.config.stages) > 1 else ""
    threads = trainer.threads.count
    if trainer.steps_done:
        print(f"{path}: continuing at step {trainer.steps_done}")
    if config.video_frames:
        say_if_no_video(_video_file(path, config))
    if config.load_dir is not None and trainer.steps_done == 0:
        print(f"networks of {config.load_dir}, from step 0; to continue that run instead: --resume {config.load_dir}")
    print(
        f"{path}: {config.steps} steps of {config.batch_size} pictures at {config.resolution} px{stages} on "
        f"{_device_name(trainer.device)}, {processes}{threads} threads; {len(data.train)} pictures to learn "
        f"from; {parameters[0]:,} parameters in the generator, {parameters[1]:,} in the discriminator"
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _smooth(old: float | None, new: float) -> float:
    return new if old is None or not math.isfinite(old) else 0.95 * old + 0.05 * new
