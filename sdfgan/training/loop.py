"""The training loop, the only one: run folder, resumption, signals, log, intervals and processes of every `Job`."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from sdfgan.errors import UserError
from sdfgan.training.checkpoint import Saved, elapsed_seconds, list_checkpoints, log_so_far, save_checkpoint
from sdfgan.training.device import device_name
from sdfgan.training.interrupt import StopSignals, resumable
from sdfgan.training.job import Job
from sdfgan.training.progress import progress
from sdfgan.training.report import write_report
from sdfgan.training.run import RunFolder, Summary, ended_at
from sdfgan.training.steps import Numbers

_KEPT = 0.95  # of a smoothed number at each step


def run(job: Job, saved: Saved | None = None) -> dict[str, Any]:
    """Train, or go on from `saved`, and finish; returns what `summary.json` says, in all but the first process nothing.

    Raises SystemExit(128 + signal) after Ctrl-C or SIGTERM, when the job has been saved. One that does not save, or has
    no run folder, is ended by them at once.
    """
    elapsed = 0.0
    if saved is not None:
        job.load_state(saved)
        elapsed = elapsed_seconds(saved.state, saved.folder)
    if job.ranks.first and job.verbose:
        if saved is not None:
            print(f"{job.root}: continuing at step {job.steps_done}")
        job.describe()
    if job.dry_run:
        if job.ranks.first:
            print("dry run: everything is in place; no run was written")
        return {"dry_run": True, "config": next(iter(job.runs.values())).to_json()}
    with (
        resumable(job.root, lambda: any(list_checkpoints(path) for path in job.runs)),
        closing(_Run(job, saved)) as running,  # which claims the folders, before anything is written there
    ):
        if saved is None:
            job.begin()
        job.ranks.broadcast(job.modules)  # processes on unlike machines may not have begun alike to the last bit
        running.start(elapsed)
        if saved is None:
            running.evaluate()
        running.train()
        summary = running.summary()
        job.ranks.part()  # the others need not wait for what the first one makes now
        if not job.ranks.first:
            return {}
        results = job.finish(summary)
        for path in job.runs if job.verbose else ():  # of many meshes, each page would hold the same scripts again
            try:
                write_report(path)
            except UserError as error:  # all else is done
                print(f"no report: {error}")
        return results


class _Run:
    """A job at work in its folders, which only the first process has."""

    def __init__(self, job: Job, saved: Saved | None) -> None:
        self.job, self.first = job, job.ranks.first
        self.saves = job.saves and bool(job.runs)
        self.checkpoint = None if saved is None else saved.folder
        self.saved_at = -1 if saved is None else job.steps_done
        # Numbers of the steps since the last line of the log.
        lengths, self.recent = ([], {}) if saved is None else log_so_far(saved.state, saved.folder)
        step, own = None if saved is None else job.steps_done, job.runs.items() if self.first else ()
        with ExitStack() as opened:
            self.folders = [
                opened.enter_context(closing(RunFolder(path, config.to_json(), step, self._kept(path, length))))
                for (path, config), length in zip_longest(own, lengths[: len(own)])
            ]
            self._opened = opened.pop_all()
        self.smooth: Numbers = {}

    def _kept(self, folder: Path, length: int | None) -> int | None:
        """How much of the log stays: of a run that had ended here and is made longer, also its last evaluation."""
        longer = self.job.steps_done < self.job.steps
        return None if longer and ended_at(folder) == self.job.steps_done else length

    def start(self, elapsed: float) -> None:
        """From now on count the time, of which so many seconds had been taken before."""
        self.saved_when = time.monotonic()
        self.started = self.saved_when - elapsed

    def train(self) -> None:
        """All steps that are left, and a checkpoint of the last."""
        job, every = self.job, self.job.every
        stopping = StopSignals() if self.saves else nullcontext()
        with stopping as stop, progress(job.total, job.label, job.done, self.first and job.verbose) as bar:
            while job.done < job.total:
                numbers = job.step()
                step, done = job.steps_done, job.done
                if self.first:
                    self.note(step, numbers, done >= job.total)
                    bar.advance(done - bar.done, job.status(self.smooth))
                if _is_due(step, every.sample) and self.first:
                    self.sample(step)
                if _is_due(step, every.evaluate) and done < job.total:
                    self.evaluate()
                late = time.monotonic() - self.saved_when > every.checkpoint_seconds
                if late or (_is_due(step, every.checkpoint) and done < job.total):
                    self.save()
                received = job.ranks.largest(0 if stop is None else stop.received or 0, job.device)
                if received:
                    self.save()
                    if self.first:
                        print(
                            f"\nstopped at step {step} of {job.steps} and saved; continue with --resume {job.root} "
                            f"({self.checkpoint and self.checkpoint.name})"
                        )
                    raise SystemExit(128 + received)
            if time.monotonic() - self.saved_when >= every.worth_saving:
                self.save()  # before anything that can fail, or be interrupted

    def note(self, step: int, numbers: Numbers, last: bool) -> None:
        """Log the means of a step's numbers and of those before it, and what they say about the run's health."""
        for name, value in numbers.items():
            old = self.smooth.get(name, math.nan)
            self.smooth[name] = _KEPT * old + (1 - _KEPT) * value if math.isfinite(old) else value
            if math.isfinite(value):  # some are not measured at every step, or not finite: fp16 overflows
                self.recent.setdefault(name, []).append(value)
        if _is_due(step, self.job.every.log) or (last and self.job.every.log):
            means = {name: sum(values) / len(values) for name, values in self.recent.items()}
            self.recent = {}
            for folder in self.folders:
                folder.log(step, means)
        for warning in () if self.job.health is None else self.job.health.check(step, numbers):
            for folder in self.folders:
                folder.warn(step, warning.name, warning.message)
            print(f"\nstep {step}: {warning.message}", flush=True)

    def sample(self, step: int) -> None:
        """An image in samples/ and the log."""
        folder = self.folders[0]
        folder.check()
        image = self.job.samples(folder.path / "samples" / f"step-{step:07d}.png")
        if image is not None:
            folder.log_image(step, "samples", image)

    def evaluate(self) -> None:
        """Log what is measured; all processes may have to take part."""
        for folder, numbers in zip(self.folders, self.job.evaluate(), strict=False):
            if numbers:
                folder.log(self.job.steps_done, numbers)

    def save(self) -> None:
        """A checkpoint of what is not saved yet, written by the first process."""
        job = self.job
        if self.saved_at == job.steps_done or not self.saves:
            return
        job.ranks.check_same(job.modules, job.steps_done)
        self.check()
        self.saved_at, self.saved_when = job.steps_done, time.monotonic()
        if self.first:
            path, config = next(iter(job.runs.items()))
            tensors, state = job.state()
            header = {"kind": job.kind, "config": config.to_json(), "elapsed_seconds": time.monotonic() - self.started}
            header["log"] = {"lengths": [folder.log_length for folder in self.folders], "since": self.recent}
            self.checkpoint = save_checkpoint(path, job.steps_done, tensors, {**header, **state})

    def summary(self) -> Summary:
        """What all runs have in their summary.json, after the last evaluation."""
        job, seconds = self.job, time.monotonic() - self.started
        self.check()
        self.evaluate()
        return Summary(
            self.started,
            {
                "kind": job.kind,
                **({"command": job.command(job.root)} if job.root in job.runs else {}),
                "steps": job.steps_done,
                "device": device_name(job.device),
                "processes": job.ranks.count,
                "threads": torch.get_num_threads() if job.threads is None else job.threads.count,
                "torch": torch.__version__,
                "training_seconds": round(seconds, 2),
                "checkpoint": self.checkpoint and str(self.checkpoint),
            },
        )

    def check(self) -> None:
        """Raises UserError where a folder was moved: what were written there would be no part of the run."""
        for folder in self.folders:
            folder.check()

    def close(self) -> None:
        """Close the logs."""
        self._opened.close()


def _is_due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
