"""A run of a GAN: images in, a run folder with shapes out.

A batch is cut into chunks of a fixed size. On a CPU chunks run in parallel threads of one torch thread each, and their
gradients are averaged in order: the result is the same for any number of threads. Small images are rendered for all
chunks at once, by kernels that have all threads: in parallel, the many small operations between them would wait for
each other. With several processes each takes its share of the chunks; all draw the same random numbers, so their number
does not matter either.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdfgan.errors import UserError
from sdfgan.gan import shape_sets
from sdfgan.gan.batches import Batches, Fake, View
from sdfgan.gan.config import GanConfig, ResolvedGanConfig
from sdfgan.gan.data import TrainingData, load_training_data, require_silhouettes
from sdfgan.gan.discriminators import update_spectral_norm
from sdfgan.gan.evaluation import image_scores, random_images, real_images
from sdfgan.gan.losses import top_k_weights
from sdfgan.gan.models import config_of, require_alike
from sdfgan.gan.objective import Objective, silhouettes, variety
from sdfgan.gan.poses import PoseLearner
from sdfgan.gan.report import Report, measure_slope, video_file
from sdfgan.gan.state import Gradients, TrainingState
from sdfgan.gan.views import ImageRenderer, ViewRange
from sdfgan.images import image_grid, save_image, warn_if_no_video
from sdfgan.inception import MIN_IMAGES, Inception, find_weights, load_inception
from sdfgan.metrics import sliced_wasserstein
from sdfgan.training.checkpoint import Saved, read_checkpoint
from sdfgan.training.config import is_of_type
from sdfgan.training.device import device_name
from sdfgan.training.graphs import Graphs
from sdfgan.training.health import Health, separate_parts
from sdfgan.training.job import Intervals
from sdfgan.training.loop import run
from sdfgan.training.ranks import Ranks, process_group
from sdfgan.training.run import Summary, choose_folder, resumed_config
from sdfgan.training.steps import Log, as_numbers

_CHANGEABLE_ON_RESUME = (
    "resume", "steps", "device", "dry_run", "evaluate_interval", "inception",
    "view_resolution", "video_frames", "video_format", "mesh_resolution",
)  # fmt: skip
_REALS_LOOKED_AT = 256  # for how many silhouettes of separate parts are real


def train(config: GanConfig) -> dict[str, Any]:
    """Train, or continue, the run that `config` describes; returns what `summary.json` says.

    Under torchrun every process calls this; the first one writes. Raises UserError for bad settings, data and
    checkpoints; SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the run has been saved.
    """
    source = config.resume or config.load_dir
    found = None if source is None else read_checkpoint(source)
    if found is not None and "imported_from" in found.state:
        raise UserError(f"{source}: was imported, without a discriminator: it cannot be trained")
    resumed = None if config.resume is None else found
    if resumed is not None:
        config = _resumed_config(config, config_of(resumed), resumed.folder, resumed.state["step"])
    config = config.resolved()
    if found is not None and resumed is None:
        require_alike(config, found)
    config = dataclasses.replace(config, output_dir=choose_folder(resumed, config.output_dir, "gan"), resume=None)
    with process_group(torch.device(config.device)) as ranks:
        inception = _inception(config, ranks)
        if config.data is None and not ranks.first:
            ranks.wait()  # the first process fills the cache that the others read
        data = load_training_data(config, verbose=ranks.first)
        if resumed is None:
            require_silhouettes(config, data, ranks.first)
        if config.data is None and ranks.first:
            ranks.wait()
        config = dataclasses.replace(config, mirror=config.mirror and data.mirror)
        with closing(GanJob(config, data, ranks, inception)) as job:
            if found is not None and resumed is None:
                job.load_networks(found)
            return run(job, resumed)


class GanJob(TrainingState):
    """A GAN, the images that it learns from, and what it is evaluated by."""

    def __init__(
        self,
        config: ResolvedGanConfig,
        data: TrainingData,
        ranks: Ranks | None = None,
        inception: Inception | None = None,
    ) -> None:
        """`config` is resolved."""
        super().__init__(config, ranks, data.poses)
        self.data, self.inception = data, None if inception is None else inception.to(self.device)
        self.root = config.output_dir or Path()
        self.runs = {self.root: config}
        self.dry_run = config.dry_run
        self.every = Intervals(
            sample=config.sample_interval, evaluate=config.evaluate_interval, checkpoint=config.checkpoint_interval
        )
        self.health, self._knows_reals = Health(), False
        renderer = ImageRenderer(self.average, self.fov, self.threads.map)
        self.report = Report(self.average, config, renderer, ViewRange.of(self.poses), self.root)
        self.start: dict[str, float] | None = None  # scores before the first step, if there are any
        self.scores: dict[str, float] | None = None  # those measured last

    # ------------------------------------------------------------------------------------------------------- a step

    def step(self) -> dict[str, float]:
        """One update of the generator, and as many as are set of the discriminator."""
        objective = Objective.at(self.config, self.steps_done)
        config = objective.config
        if self.mirror_is_due:
            self.find_mirror()
            if self.ranks.first and self.mirror is not None:
                side = round(math.degrees(math.atan2(self.mirror.x, self.mirror.z))) % 180
                print(f"\nstep {self.steps_done}: left and right, at azimuths {side} and {side + 180}, are alike now")
        batches = Batches(config, self.random, self.device, self.ranks)
        self.set_learning_rates(config)
        if self.room is not None:
            self.room.keep_while(config)

        def render(part: Sequence[Fake]) -> list[Fake]:
            return objective.render(self.generator, part, self.room)

        for index in range(config.discriminator_steps):
            fakes = batches.fakes(self.generator, self.poses)
            parts = [fakes] if self.renders_at_once else [[fake] for fake in fakes]
            # One rendering serves both updates, unless its graph would take too much memory.
            keep_graph = index == config.discriminator_steps - 1 and not self.config.recompute
            parts = self.threads.map(render if keep_graph else torch.no_grad()(render), parts)
            fakes = [fake for part in parts for fake in part]
            of_discriminator = self._update_discriminator(objective, batches, fakes)
        numbers = of_discriminator | self._update_generator(objective, batches, parts)
        if self.pose_learner is not None:
            numbers |= self._learn_poses(self.pose_learner, objective, fakes)
        log = self._read(numbers)
        self.update_averages()
        self.steps_done += 1
        self.adjust_augmentation(log, config)
        log["learning_rate"] = self.optimizer_g.param_groups[0]["lr"]
        if config.precision == "fp16":
            log["loss_scale"] = self.updates.loss_scale
        return log

    def _read(self, log: Log) -> dict[str, float]:
        """A step's numbers: its log, whether its gradients were finite, and whether its samples found room."""
        numbers, norms = as_numbers(torch.stack([value.float() for value in log.values()]), self.updates.norms)
        read = dict(zip(log, numbers, strict=True)) | {
            "skipped": float(not self.updates.settle(norms, self.steps_done))
        }
        if self.room is not None:
            read["samples_lost"] = float(self.room.settle())
        return read

    def _update_discriminator(self, objective: Objective, batches: Batches, fakes: list[Fake]) -> Log:
        config, graphs = objective.config, self._graphs(objective)
        reals = batches.reals(self.data.train)
        if self.loss.spectral_norm:
            update_spectral_norm(self.discriminator)
        shares: Sequence[Tensor | None] = [None] * len(fakes)
        if self.loss.gradient_penalty:
            shares = batches.shares()

        def compare(*inputs: Tensor) -> tuple[Log, Gradients]:
            loss, log = objective.discriminator_loss(self.discriminator, *inputs)
            return log, self._gradients([loss * self.updates.loss_scale], self.discriminator)

        def chunk(
            fake: Fake, reals: Tensor, fake_view: View, real_view: View, share: Tensor | None
        ) -> tuple[Log, Gradients]:
            seen = objective.see(fake.images(config.channels).detach(), fake_view), objective.see(reals, real_view)
            inputs = [*seen, fake.latents, fake.axes, *([] if share is None else [share.to(reals)])]
            if graphs is None:
                return compare(*inputs)
            log, gradients = graphs(("discriminator", objective.r1_weight), compare, *inputs)
            if batches.chunks > 1:  # the next one overwrites them
                log, gradients = {name: value.clone() for name, value in log.items()}, [g.clone() for g in gradients]
            return log, gradients

        fake_views, real_views = (batches.views(self.augmented, objective.noise) for _ in range(2))
        compared = self.threads.map(chunk, fakes, reals, fake_views, real_views, shares)
        log = self._mean([numbers for numbers, _ in compared])
        clip = config.gradient_clip_discriminator or math.inf
        norm = self.apply("discriminator", [gradients for _, gradients in compared], clip)
        seen = torch.cat([fake.images(config.channels).detach() for fake in fakes])
        alpha = torch.cat([fake.made.alpha.detach() for fake in fakes if fake.made is not None])
        log |= self._mean([silhouettes(alpha, config.channels)])
        means = [self.ranks.gather(images.mean((2, 3))) for images in (seen, torch.cat(reals))]
        return log | {"variety": variety(*means), "gradient_norm_d": norm}

    def _update_generator(self, objective: Objective, batches: Batches, parts: list[list[Fake]]) -> Log:
        config, graphs, scale = objective.config, self._graphs(objective), self.updates.loss_scale
        views = batches.views(self.augmented, objective.noise)
        fakes = [fake for part in parts for fake in part]

        def adversarial(*inputs: Tensor) -> tuple[Tensor, Log]:
            return objective.adversarial_loss(self.discriminator, *inputs)

        def image_gradient(fake: Fake, images: Tensor, view: View, weights: Tensor | None) -> tuple[Log, Tensor]:
            """The log of a chunk, and the gradient of its loss by its images."""
            images = images.detach().requires_grad_()
            inputs = [objective.see(images, view), fake.latents, fake.axes, *([] if weights is None else [weights])]
            if graphs is None:
                loss, log = adversarial(*inputs)
            else:
                loss, log = graphs.loss("generator", adversarial, *inputs)
                log = {name: value.clone() for name, value in log.items()} if batches.chunks > 1 else log
            return log, torch.autograd.grad(loss * scale, images)[0]

        def improve(part: Sequence[tuple[Fake, View, Tensor | None]]) -> tuple[list[Log], Gradients]:
            made, views, weights = (list(column) for column in zip(*part, strict=True))
            if made[0].made is None or not made[0].made.rgb.requires_grad:
                made = objective.render(self.generator, made, self.room)
            images = [fake.images(config.channels) for fake in made]
            in_threads = self.threads.map if len(part) > 1 else map  # who has one chunk is one of these threads
            by_images = list(in_threads(image_gradient, made, images, views, weights))
            shapes = [objective.shape_loss(fake) for fake in made]
            losses, shares = [loss for loss, _ in shapes], [gradient / len(part) for _, gradient in by_images]
            shares += [torch.full_like(loss, scale / len(part)) for loss in losses]
            logs = [{**log, **more} for (log, _), (_, more) in zip(by_images, shapes, strict=True)]
            return logs, self._gradients([*images, *losses], self.generator, shares)

        weights: Sequence[Tensor | None] = [None] * len(fakes)
        if config.top_k_interval:
            logits = self._logits(objective, fakes, views)
            chosen = top_k_weights(logits, self.steps_done, config.top_k_interval, config.top_k_floor)
            weights = [weight for (weight,) in batches.mine(chosen)]
        chunks = iter(zip(fakes, views, weights, strict=True))
        improved = self.threads.map(improve, [list(islice(chunks, len(part))) for part in parts])
        log = self._mean([numbers for logs, _ in improved for numbers in logs])
        norm = self.apply("generator", [gradients for _, gradients in improved], config.gradient_clip)
        return log | {"gradient_norm_g": norm}

    def _logits(self, objective: Objective, fakes: list[Fake], views: Sequence[View]) -> Tensor:
        """The discriminator's logits of the fakes of all processes."""

        @torch.no_grad()  # the mode does not reach other threads by itself
        def some(fake: Fake, view: View) -> Tensor:
            seen = objective.see(fake.images(objective.config.channels), view)
            return objective.verdict(self.discriminator, seen).logit

        return self.ranks.gather(torch.cat(self.threads.map(some, fakes, views)))

    def _learn_poses(self, learner: PoseLearner, objective: Objective, fakes: list[Fake]) -> Log:
        """Let the poses follow the discriminator's verdicts on the fakes."""
        logits = self._logits(objective, fakes, [View(None, None)] * len(fakes))
        axes = self.ranks.gather(torch.cat([fake.axes for fake in fakes]))
        learner.learn(logits, axes, self.learning_rate_factor(objective.config))
        return {"pose_spread": learner.spread}

    def _graphs(self, objective: Objective) -> Graphs | None:
        """The recordings of the discriminator's part. One is of one fade; and fp16's scale must reach into it."""
        if self.graphs is None or objective.fade < 1 or objective.config.precision == "fp16":
            return None
        self.graphs.keep_while(objective.config)
        return self.graphs

    def _gradients(self, outputs: list[Tensor], module: nn.Module, shares: list[Tensor] | None = None) -> Gradients:
        """Those of a module's parameters of the outputs, which count by their `shares`; None: 1 each."""
        which = [i for i, output in enumerate(outputs) if output.requires_grad]
        of = None if shares is None else [shares[i] for i in which]
        options = {"allow_unused": True, "materialize_grads": True}
        return torch.autograd.grad([outputs[i] for i in which], list(module.parameters()), of, **options)

    def _mean(self, logs: Sequence[Log]) -> Log:
        """The logs of all chunks of all processes, averaged."""
        names = list(logs[0])
        means = torch.stack([torch.stack([log[name] for name in names]).float() for log in logs]).mean(0)
        return dict(zip(names, self.ranks.average([means])[0].unbind(), strict=True))

    # ------------------------------------------------------------------------------------------------- looking at it

    def load_state(self, saved: Saved) -> None:
        """See `Job.load_state`."""
        super().load_state(saved)
        start = saved.state.get("start")
        if start is not None and not (isinstance(start, dict) and all(is_of_type(v, float) for v in start.values())):
            raise UserError(f"{saved.folder}: start must be scores by name, got {start!r:.50}")
        self.start = start

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Job.state`."""
        tensors, values = super().state()
        return tensors, {"start": self.start, **values}

    def describe(self) -> None:
        """What is learnt from what."""
        config = self.config.at(self.steps_done)
        parameters = [sum(p.numel() for p in network.parameters()) for network in (self.generator, self.discriminator)]
        processes = f"{self.ranks.count} processes, " if self.ranks.count > 1 else ""
        stages = f" ({len(self.config.stages)} stages)" if len(self.config.stages) > 1 else ""
        if config.video_frames:
            warn_if_no_video(video_file(self.root, config))
        if config.load_dir is not None and self.steps_done == 0:
            print(
                f"networks of {config.load_dir}, from step 0; to continue that run instead: --resume {config.load_dir}"
            )
        if config.poses == "learned":
            elevation, azimuth = (f"{low:g} {high:g}" for low, high in (config.elevation, config.azimuth))
            print(f"poses are learned within --elevation {elevation} and --azimuth {azimuth}, shown in poses.svg")
        print(
            f"{self.root}: {config.steps} steps of {config.batch_size} images at {config.resolution} px{stages} on "
            f"{device_name(self.device)}, {processes}{self.threads.count} threads; {len(self.data.train)} images to "
            f"learn from; {parameters[0]:,} parameters in the generator, {parameters[1]:,} in the discriminator"
        )

    def begin(self) -> None:
        """Fit what some generators need before, and show what is learnt from."""
        if self.config.load_dir is None:
            self.precondition()
        if self.ranks.first:
            save_image(self.root / "samples" / "real.png", image_grid(self._reals(64), 16)[:3])

    def status(self, numbers: dict[str, float]) -> str:
        """See `Job.status`."""
        return f"D {numbers['loss_d']:.3f}  G {numbers['loss_g']:.3f}  eikonal {numbers['eikonal']:.3f}"

    def samples(self, file: Path) -> Tensor:
        """A grid of twelve shapes, each seen from four sides."""
        resolution = self.now.resolution
        if self.config.channels == 4 and not self._knows_reals:
            self.health.note({"real_blobs": separate_parts(self._reals(_REALS_LOOKED_AT)[:, 3:])})
            self._knows_reals = True
        self._show_poses()
        grid, blobs = self.report.samples(resolution)
        self.health.note({"blobs": blobs})
        save_image(file, grid)
        return grid

    def _show_poses(self) -> None:
        """Draw the poses that are learned, within their ranges."""
        if self.pose_learner is not None:
            self.pose_learner.histogram.save_image(self.root / "poses.svg")

    def evaluate(self) -> Sequence[dict[str, float]]:
        """Distances of the averaged generator to held-out images; nothing where too few are held out."""
        count, now = len(self.data.held_out) // 2, self.now
        if count == 0:
            return ()
        fakes = random_images(self.average, now, self.poses, count, map_=self.threads.map, ranks=self.ranks)
        if not self.ranks.first:
            return ()
        self.scores = image_scores(fakes, real_images(self.data.held_out, count, now), self.inception)
        if self.config.evaluate_shapes:
            measure_slope(self.average)
            self.scores |= self._shape_scores(self.config.evaluate_shapes)
        if self.steps_done == 0:
            self.start = self.scores
        return [{f"evaluation/{name}": value for name, value in self.scores.items()}]

    def _shape_scores(self, count: int) -> dict[str, float]:
        made = shape_sets.generate(self.average, self.config, count)
        true, others = (shape_sets.built_in(count, self.config.shapes, shape_sets.SEED + i) for i in (0, 1))
        return shape_sets.set_scores(made, true, others)

    def results(self) -> dict[str, Any]:
        """What the summary says about distances to held-out images."""
        half, now, start, end = len(self.data.held_out) // 2, self.now, self.start, self.scores
        floor = None
        if half:
            floor = sliced_wasserstein(*real_images(self.data.held_out, 2 * half, now).split(half))
        # At another resolution distances are others: those of a curriculum that grows cannot be compared.
        comparable = start is not None and self.config.at(0).resolution == now.resolution
        return {
            "sliced_wasserstein": {
                "images": half,
                "resolution": now.resolution,
                "start": start["swd"] if start is not None and comparable else None,
                "end": end and end["swd"],
                "floor": floor,
                "ratio": end["swd"] / floor if end is not None and floor else None,
            },
            "evaluation": end,
            "mirror": None if self.mirror is None else self.mirror._asdict(),
        }

    def finish(self, summary: Summary) -> dict[str, Any]:
        """Make images and meshes."""
        summary |= self.results()
        summary.write(self.root)
        self._show_poses()
        summary |= self.report.final_images()
        summary.write(self.root)
        if self.config.symmetric_from is not None and self.mirror is None:
            print(f"left and right differ: no plane of symmetry was clear from step {self.config.symmetric_from} on")
        made = [Path(summary[name]).name for name in ("grid", "turntable") if summary[name]]
        made += [*(["meshes"] if summary["meshes"] else []), "summary.json"]
        print(f"done: open {self.root}/report.html, or look at {', '.join(made)} there")
        return summary

    @property
    def now(self) -> ResolvedGanConfig:
        """The settings of the last step that was made."""
        return self.config.at(max(0, self.steps_done - 1))

    def _reals(self, most: int) -> Tensor:
        """Some images [N, C, R, R] in [0, 1] that are learnt from, at the resolution of now."""
        resolution = self.now.resolution
        return self.data.train.batch(torch.arange(min(most, len(self.data.train))), resolution).float() / 255


def _inception(config: ResolvedGanConfig, ranks: Ranks) -> Inception | None:
    """The network that evaluations use, where there are weights: in the first process, which evaluates."""
    weights = find_weights(config.inception)
    if weights is None or not ranks.first or config.evaluate_images < MIN_IMAGES:
        return None
    return load_inception(weights)


def _resumed_config(given: GanConfig, before: ResolvedGanConfig, checkpoint: Path, done: int) -> ResolvedGanConfig:
    """The settings of a run with `done` steps; what else was given on the command line must agree with them."""
    moved = () if before.data is None else ("data",)  # the same images may be elsewhere now
    instead = "; use --load-dir to start another from it"
    config = resumed_config(given, before, checkpoint, (*_CHANGEABLE_ON_RESUME, *moved), instead)
    if config.steps < done:
        raise UserError(f"--steps {config.steps}: {checkpoint} has {done} behind it already")
    return config
