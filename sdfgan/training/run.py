"""The folder of a run: configuration, numbers, images, checkpoints; complete in itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Collection
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from torch import Tensor

from sdfgan.errors import UserError
from sdfgan.training.checkpoint import Saved, list_checkpoints, remove_old, remove_partial, set_aside_after
from sdfgan.training.config import flag_of
from sdfgan.training.device import device_here
from sdfgan.training.events import EventLog
from sdfgan.training.files import FolderLock, disk_errors, read_json, write_json, write_text


class RunFolder:
    """config.json, metrics.jsonl, TensorBoard events, samples/, checkpoints/ and summary.json of one training run.

    Only what trains makes one: it opens the logs, and no other process can meanwhile. `resumed_step` continues a run:
    log lines past it, and past the first `log_length` bytes, are dropped, and checkpoints past it are set aside.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], resumed_step: int | None = None, log_length: int | None = None
    ) -> None:
        self.path = path
        if resumed_step is None:
            check_new_run(path)
        with ExitStack() as held:
            self._lock = held.enter_context(FolderLock(path))
            remove_partial(path)
            if resumed_step is not None:
                set_aside_after(path, resumed_step)
                remove_old(path)
            write_json(path / "config.json", config)
            self._drop_lines_after(-1 if resumed_step is None else resumed_step, log_length)
            with disk_errors(path):
                self._metrics = held.enter_context((path / "metrics.jsonl").open("a"))
                self._events = held.enter_context(closing(EventLog(path, resumed_step)))
            self._held = held.pop_all()

    def check(self) -> None:
        """Raises UserError where the folder was moved, or is gone."""
        self._lock.check()

    @property
    def log_length(self) -> int:
        """Bytes of metrics.jsonl by now."""
        return self._metrics.tell()

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Append a line to metrics.jsonl (null for what is not finite) and scalars to TensorBoard."""
        with disk_errors(self.path):
            valid = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            self._metrics.write(json.dumps({"step": step, **valid}) + "\n")
            self._metrics.flush()
            self._events.add_scalars(step, numbers)

    def warn(self, step: int, name: str, message: str) -> None:
        """Say that something is wrong: a line in metrics.jsonl, and text for TensorBoard."""
        with disk_errors(self.path):
            self._metrics.write(json.dumps({"step": step, "warning": name, "message": message}) + "\n")
            self._metrics.flush()
            self._events.add_text(step, "warnings", message)

    def log_image(self, step: int, name: str, image: Tensor) -> None:
        """An image [C, H, W] in [0, 1] for TensorBoard."""
        with disk_errors(self.path):
            self._events.add_image(step, name, image.clamp(0, 1))

    def close(self) -> None:
        """Flush and close the logs."""
        with disk_errors(self.path):
            self._held.close()

    def _drop_lines_after(self, step: int, length: int | None) -> None:
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_bytes()[:length].decode(errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # cut off when the process died
        write_text(path, "".join(kept))


class Summary(dict[str, Any]):
    """What summary.json says of a run that began at `started`, by `time.monotonic`."""

    def __init__(self, started: float, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.started = started

    def write(self, folder: Path) -> None:
        """Write what is known by now, with the seconds that all has taken: images cannot take the numbers with them."""
        self["wall_seconds"] = round(time.monotonic() - self.started, 2)
        write_json(folder / "summary.json", self)


def ended_at(folder: Path) -> int | None:
    """The step at which the run in a folder ended; None where it has not."""
    try:
        steps = read_json(folder / "summary.json")["steps"]
    except (UserError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None


def choose_folder(resumed: Saved | None, given: Path | None, name: str) -> Path:
    """The folder of a run: its own where it is resumed, or what is given, or a new one in runs/. Raises UserError."""
    if resumed is not None:
        return resumed.run
    path = given or next_run_folder(Path("runs"), name)
    check_new_run(path)
    return path


def resumed_config(given: Any, before: Any, checkpoint: Path, changeable: Collection[str], instead: str = "") -> Any:
    """The settings `before` of a run with what may be changed as `given`; see `changed_on_resume`."""
    run = checkpoint.parent.parent
    changed = changed_on_resume(given, before, changeable, run, instead)
    changed.setdefault("device", device_here(before.device, run))
    return dataclasses.replace(before, **{**changed, "resume": None})


def changed_on_resume(
    given: Any, saved: Any, changeable: Collection[str], run: Path, instead: str = ""
) -> dict[str, Any]:
    """Settings given to go on with `run` that differ from its `saved` ones, both of one dataclass.

    Defaults that nobody has given by name count as not given. Raises UserError for what is not `changeable`, ending
    with what to do `instead`.
    """
    changed = {}
    for field in dataclasses.fields(saved):
        value, before = getattr(given, field.name), getattr(saved, field.name)
        if value == before or not given.is_explicit(field.name):
            continue
        if field.name == "output_dir":
            raise UserError(f"--output-dir: a run is continued in its own folder, {run}")
        if field.name not in changeable:
            raise UserError(
                f"{flag_of(field.name)} {value} differs from the run's {before} ({run}): "
                f"a run is continued as it was{instead}"
            )
        changed[field.name] = value
    return changed


def check_new_run(path: Path) -> None:
    """Raises UserError for what cannot become the folder of a new run: a file, or a folder that holds one."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; name a folder for the run")
    if list_checkpoints(path):
        raise UserError(f"{path}: holds a run already; continue it with --resume {path}, or name another folder")


def next_run_folder(parent: Path, name: str) -> Path:
    """The first of parent/name-001, -002 ... that does not exist."""
    return next(path for i in itertools.count(1) if not (path := parent / f"{name}-{i:03d}").exists())
