"""A radiance-field run from beginning to end: posed pictures in, a run folder with scores, videos and a mesh out."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sdfgan.data.scenes import Scene, Views, load_scene
from sdfgan.errors import UserError
from sdfgan.images import image_grid, save_image, say_if_no_video, video_if_possible
from sdfgan.nerf.config import NerfConfig, ResolvedNerfConfig
from sdfgan.nerf.mesh import export_scene_mesh
from sdfgan.nerf.models import SceneModel, make_model
from sdfgan.nerf.trainer import Trainer, background_value
from sdfgan.nerf.views import SceneRenderer, Show, depth_span, neutral, orbit, path_cameras, shown
from sdfgan.training.checkpoint import (
    elapsed_seconds,
    list_checkpoints,
    load_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
    unpack_module,
)
from sdfgan.training.device import device_here
from sdfgan.training.files import write_json
from sdfgan.training.interrupt import StopSignals, resumable
from sdfgan.training.progress import announced, progress
from sdfgan.training.ranks import Ranks, process_group
from sdfgan.training.run import RunFolder, changed_on_resume, next_run_folder

_CHANGEABLE_ON_RESUME = """resume data dataset_name device dry_run video_frames video_format video_scale fps
    render_depth render_normal render_test mesh_resolution mesh_level lpips evaluate_interval evaluate_views
    checkpoint_interval"""
_LOG_INTERVAL = 10
_VIEWS_LOOKED_AT = 3  # of the validation views, while training
_CPU_VIDEO = 320  # pixels of the longer side of videos on a CPU
_RAYS_AT_ONCE = {"cpu": 2048, "cuda": 16384}  # of a picture, at most


def train(config: NerfConfig) -> dict[str, Any]:
    """Train, or continue, the run that `config` describes; returns what `summary.json` says.

    Under torchrun every process calls this; the first one writes. Raises UserError for bad settings, scenes and
    checkpoints; SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the run has been saved.
    """
    checkpoint = None
    if config.resume is not None:
        checkpoint = resolve_checkpoint(config.resume)
        tensors, state = load_checkpoint(checkpoint)
        config = _resumed_config(config, config_of(state, checkpoint), checkpoint)
    config = config.resolved()
    with ExitStack() as stack:
        with process_group(torch.device(config.device)) as ranks:
            path = (
                checkpoint.parent.parent if checkpoint else config.output_dir or next_run_folder(Path("runs"), "nerf")
            )
            config = dataclasses.replace(config, output_dir=path, resume=None)
            with announced(f"reading {config.scene}", ranks.first):
                scene = load_scene(config.scene, image_scale=config.image_scale, scene_scale=config.scene_scale)
            background_value(config, scene)
            lpips = _lpips(config, scene)
            trainer = Trainer(config, scene, ranks)
            stack.callback(trainer.close)
            elapsed = 0.0
            if checkpoint is not None:
                trainer.load_state(tensors, state, checkpoint)
                elapsed = elapsed_seconds(state, checkpoint)
            if ranks.first:
                for note in scene.notes:
                    print(note)
                _describe(trainer, path)
            if config.dry_run:
                if ranks.first:
                    print("dry run: everything is in place; nothing was written")
                return {"dry_run": True, "config": config.to_json()}
            stack.enter_context(resumable(path, lambda: bool(list_checkpoints(path))))
            run = _Run(trainer, path, elapsed, checkpoint)
            stack.callback(run.close)
            run.learn()
        # The others need not wait for what the first one makes now.
        return run.finish(lpips) if ranks.first else {}


def config_of(state: dict[str, Any], checkpoint: Path) -> ResolvedNerfConfig:
    """The configuration in a checkpoint's state. Raises UserError if it is none of `train-nerf`'s."""
    if state.get("kind") != "nerf":
        raise UserError(f"{checkpoint}: expected a checkpoint of train-nerf, got one of kind {state.get('kind')!r}")
    return NerfConfig.from_json(state.get("config"), checkpoint / "state.json")


def load_model(path: str | Path, device: str = "cpu") -> tuple[SceneModel, ResolvedNerfConfig]:
    """The model of a run folder or checkpoint, for looking, and its configuration. Raises UserError."""
    checkpoint = resolve_checkpoint(Path(path))
    tensors, state = load_checkpoint(checkpoint)
    config = dataclasses.replace(config_of(state, checkpoint), device=device).resolved()
    model = make_model(config, bool(state.get("bounded"))).to(device)
    unpack_module(model, tensors, "model", checkpoint)
    return model.requires_grad_(False), config


class _Run:
    """A trainer at work in its folder, which only the first process has."""

    def __init__(self, trainer: Trainer, path: Path, elapsed: float, saved: Path | None) -> None:
        """`saved`: the checkpoint that the trainer's state is from."""
        self.trainer, self.config, self.scene, self.path = trainer, trainer.config, trainer.scene, path
        self.saved, self.saved_at = saved, trainer.steps_done
        self.ranks: Ranks = trainer.ranks
        self.started = time.monotonic() - elapsed
        self.folder = None
        if self.ranks.first:
            self.folder = RunFolder(path, self.config.to_json(), trainer.steps_done or None)
        at_once = _RAYS_AT_ONCE[trainer.device.type]
        if trainer.device.type == "cuda":  # --chunk-size says what fits into its memory
            at_once = min(at_once, self.config.chunk_size or at_once)
        self.observer = SceneRenderer(trainer.model, trainer.background, at_once, trainer.threads.map, trainer.autocast)

    def learn(self) -> None:
        """Train what is left, and save."""
        config, trainer = self.config, self.trainer
        assert config.steps and config.checkpoint_interval and config.evaluate_interval is not None
        smooth = seen = math.nan
        with StopSignals() as stop, progress(config.steps, "training", trainer.steps_done, self.ranks.first) as bar:
            while trainer.steps_done < config.steps:
                numbers = trainer.step()
                step = trainer.steps_done
                smooth = numbers["psnr"] if math.isnan(smooth) else 0.98 * smooth + 0.02 * numbers["psnr"]
                if self.folder is not None and step % _LOG_INTERVAL == 0:
                    self.folder.log(step, numbers)
                if step % config.checkpoint_interval == 0 and step < config.steps:
                    self.save()
                if config.evaluate_interval and step % config.evaluate_interval == 0 and step < config.steps:
                    seen = self.glance(step)
                validation = "" if math.isnan(seen) else f"  val {seen:.2f} dB"
                bar.advance(status=f"PSNR {smooth:.2f} dB{validation}")
                received = self.ranks.largest(stop.received or 0, trainer.device)
                if received:
                    saved = self.save()
                    if self.ranks.first:
                        print(f"\nstopped at step {step} and saved; continue with --resume {self.path} ({saved.name})")
                    raise SystemExit(128 + received)
        self.save()

    def finish(self, lpips: Any) -> dict[str, Any]:
        """Make pictures, a mesh and the summary."""
        summary = self.results(lpips)
        write_json(self.path / "summary.json", summary)  # now, so that no picture can take the numbers with it
        summary |= self.made()
        write_json(self.path / "summary.json", summary)
        scored = {name: values for name, values in summary["scores"].items() if values["views"]}
        scores = ", ".join(f"{name} {values['psnr']:.2f} dB" for name, values in scored.items())
        made = [Path(file).name for file in (*summary["videos"], summary["mesh"]) if file is not None]
        made = [*(["views.png"] if summary["scores"] else []), *made, "summary.json"]
        print(f"done: {scores or 'no views held out'}; look at {self.path}: {', '.join(made)}")
        return summary

    def save(self) -> Path:
        """A checkpoint of what is not saved yet, written by the first process."""
        trainer = self.trainer
        if self.saved is not None and self.saved_at == trainer.steps_done:
            return self.saved
        self.ranks.check_same([trainer.model], trainer.steps_done)
        self.saved, self.saved_at = self.path, trainer.steps_done
        if not self.ranks.first:
            return self.saved
        tensors, state = trainer.state()
        values = {
            "kind": "nerf",
            "config": self.config.to_json(),
            "bounded": self.scene.bounded,
            "elapsed_seconds": time.monotonic() - self.started,
            **state,
        }
        self.saved = save_checkpoint(self.path, trainer.steps_done, tensors, values)
        return self.saved

    def close(self) -> None:
        """Close the logs."""
        if self.folder is not None:
            self.folder.close()

    def glance(self, step: int) -> float:
        """PSNR of a few validation views, logged, and a picture of one beside the truth."""
        views = self.scene.val or self.scene.test
        if self.folder is None or views is None:
            return math.nan
        views = views.to(self.trainer.device)
        chosen = spread(len(views), _VIEWS_LOOKED_AT)
        scores = self.observer.scores(views, chosen)
        scored = scores.pop("views")
        if scored:
            self.folder.log(step, {f"validation/{name}": value for name, value in scores.items()})
        sheet = self.sheet(views, chosen[:1])
        save_image(self.path / "samples" / f"step-{step:07d}.png", sheet)
        self.folder.log_image(step, "samples", sheet)
        return scores.get("psnr", math.nan)

    def sheet(self, views: Views, indices: list[int]) -> torch.Tensor:
        """For each view a row: the truth, the picture, its depth; grey where the view has no ray."""
        rows = []
        for index in indices:
            seen = self.observer.look(views.cameras, index)
            true = views.picture(index, self.trainer.background)
            row = (true, seen.rgb.clamp(0, 1), shown(seen, "depth", depth_span(seen)))
            rows += [neutral(image, seen.known) for image in row]
        height, width = (max(row.shape[i] for row in rows) for i in (1, 2))
        padded = [torch.nn.functional.pad(row, (0, width - row.shape[2], 0, height - row.shape[1])) for row in rows]
        return image_grid(torch.stack(padded).cpu(), 3)

    def results(self, lpips: Any) -> dict[str, Any]:
        """The summary of the run, without videos and mesh."""
        trained = time.monotonic() - self.started
        config, scene, trainer = self.config, self.scene, self.trainer
        scores = {}
        for name, views in (("val", scene.val), ("test", scene.test)):
            if views is None:
                continue
            views = views.to(trainer.device)
            scored = spread(len(views), config.evaluate_views or len(views))
            with progress(len(scored), f"{name} views") as bar:
                scores[name] = self.observer.scores(views, scored, lpips, bar.advance)
            if (left_out := len(scored) - int(scores[name]["views"])) > 0:
                print(f"{name}: {left_out} of {len(scored)} views have no pixel with a ray and no score")
            if name == "val" or scene.val is None:
                save_image(self.path / "views.png", self.sheet(views, list(range(min(4, len(views))))))
        return {
            "kind": "nerf",
            "model": config.model,
            "scene": str(config.scene),
            "steps": trainer.steps_done,
            "device": torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else "cpu",
            "processes": self.ranks.count,
            "threads": trainer.threads.count,
            "torch": torch.__version__,
            "training_seconds": round(trained, 1),
            "wall_seconds": round(time.monotonic() - self.started, 1),
            "views": {
                "train": len(scene.train),
                **{k: len(v) for k, v in (("val", scene.val), ("test", scene.test)) if v},
            },
            "scores": scores,
            "scene_to_file": scene.to_file.tolist(),
            "checkpoint": str(self.saved),
        }

    def made(self) -> dict[str, Any]:
        """Make videos and a mesh; where they are, and how long all has taken, for the summary."""
        mesh = None
        if self.config.mesh_resolution:
            try:
                mesh = export_scene_mesh(self.trainer.model, self.config, self.scene, self.path / "mesh.glb")
            except UserError as error:
                print(f"no mesh: {error}")
        files = self.videos() if self.config.video_frames else []
        return {
            "videos": [str(file) for file in files],
            "mesh": None if mesh is None else str(mesh),
            "wall_seconds": round(time.monotonic() - self.started, 1),
        }

    def videos(self) -> list[Path]:
        """An orbit, and what else is asked for."""
        config = self.config
        views = self.scene.train.to(self.trainer.device)
        scale = config.video_scale
        if scale is None:
            scale = min(1.0, _CPU_VIDEO / int(views.sizes.max())) if views.sizes.device.type == "cpu" else 1.0
        paths = {"orbit": orbit(views, config.video_frames, scale)}
        held_out = self.scene.test or self.scene.val
        if config.render_test and held_out is not None:
            poses = held_out.cameras.camera_to_world.to(self.trainer.device)
            paths["test"] = path_cameras(poses, views, scale)
        shows: list[Show] = ["colour"]
        shows += ["depth"] if config.render_depth else []
        shows += ["normals"] if config.render_normal else []
        made: list[Path] = []
        for name, cameras in paths.items():
            for show in shows:
                stem = name if show == "colour" else f"{name}-{show}"
                file = self.path / f"{stem}.{config.video_format}"
                write = partial(self.observer.video, cameras=cameras, show=show, fps=config.fps)
                if video_if_possible(file, write) is None:
                    return made
                made.append(file)
        return made


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly from the first to the last."""
    return torch.linspace(0, count - 1, min(count, most)).long().tolist()


def _lpips(config: ResolvedNerfConfig, scene: Scene) -> Any:
    """The network, if one is asked for. Raises UserError where it cannot judge the pictures."""
    if config.lpips is None:
        return None
    from sdfgan.lpips import MIN_SIDE, load_lpips

    network = load_lpips(config.lpips).to(config.device)
    smallest = min((int(views.sizes.min()) for views in (scene.val, scene.test) if views), default=MIN_SIDE)
    if smallest < MIN_SIDE:
        raise UserError(f"--lpips: pictures must be at least {MIN_SIDE} pixels wide and high, got {smallest}")
    return network


def _resumed_config(given: NerfConfig, saved: ResolvedNerfConfig, checkpoint: Path) -> ResolvedNerfConfig:
    """The saved configuration; what else was given on the command line must agree with it, or be harmless."""
    run = checkpoint.parent.parent
    changed = changed_on_resume(given, saved, _CHANGEABLE_ON_RESUME.split(), run)
    changed.setdefault("device", device_here(saved.device, run))
    return dataclasses.replace(saved, **{**changed, "resume": None})


def _describe(trainer: Trainer, path: Path) -> None:
    config, scene = trainer.config, trainer.scene
    held = ", ".join(f"{len(v)} {name}" for name, v in (("val", scene.val), ("test", scene.test)) if v is not None)
    height, width = scene.train.sizes[0].tolist()
    parameters = sum(p.numel() for p in trainer.model.parameters())
    processes = f"{trainer.ranks.count} processes, " if trainer.ranks.count > 1 else ""
    if trainer.steps_done:
        print(f"{path}: continuing at step {trainer.steps_done}")
    if config.video_frames:
        say_if_no_video(path / f"orbit.{config.video_format}")
    print(
        f"{path}: {config.model}, {parameters:,} parameters, {config.steps} steps of up to {config.rays} rays on "
        f"{config.device}, {processes}{trainer.threads.count} threads; {config.scene}: {len(scene.train)} views of "
        f"{width} x {height} to learn from ({held or 'none'} held out), {'bounded' if scene.bounded else 'unbounded'}"
    )
