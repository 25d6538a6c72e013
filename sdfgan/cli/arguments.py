"""What several sub-commands understand in the same way."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from sdfgan.errors import UserError
from sdfgan.training.files import disk_errors

_MAX_SEEDS = 10_000  # a typing error in a range should not fill the memory


def parse_seeds(texts: str | Sequence[str], flag: str = "--seeds") -> list[int]:
    """Seeds such as "0,3,8-12", or ("0", "3", "8-12"), in the order given. Raises UserError for anything else."""
    text = texts if isinstance(texts, str) else ",".join(texts)
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?", part)
        if found is None:
            raise UserError(f"{flag} must be numbers and ranges such as 0,3,8-12, got {text!r}")
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if last < first:
            raise UserError(f"{flag}: a range must not fall, got {part.strip()}")
        if len(seeds) + last - first >= _MAX_SEEDS:
            raise UserError(f"{flag}: at most {_MAX_SEEDS} at once, got {text!r}")
        seeds += range(first, last + 1)
    return seeds


def run_folder(path: Path) -> Path:
    """The run folder that `path` is, or that the checkpoint `path` belongs to."""
    path = path.absolute()
    return path.parent.parent if path.parent.name == "checkpoints" else path


def output_path(given: Path | None, default: Path, *, folder: bool = False, reads: Sequence[Path] = ()) -> Path:
    """Where results go: a file or folder that the user names may exist, a default one that does becomes NAME-2, -3 ...

    Raises UserError, before any work is done, where it could not be written, and for a file that is one of `reads` or
    in one of these.
    """
    with disk_errors(given or default):
        path = given or _free(default, folder)
        if path.exists() and path.is_dir() != folder:
            raise UserError(f"{path}: is {'a file, expected a folder' if folder else 'a folder, expected a file'}")
        if not folder and path.exists() and not path.is_file():
            raise UserError(f"{path}: is a device or a pipe, expected a file")  # which the new file would replace
        if not folder and path.exists() and any(path.resolve().is_relative_to(read.resolve()) for read in reads):
            raise UserError(f"{path}: is read; name another file to write")
        there = path.absolute() if folder else path.absolute().parent
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            what = "not writable" if there.is_dir() else "not a folder"
            raise UserError(f"{path}: cannot be written: {there} is {what}")
    return path


def _free(path: Path, folder: bool) -> Path:
    stem, suffix = (path.name, "") if folder else (path.stem, path.suffix)
    names = (path.with_name(f"{stem}-{number}{suffix}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], names) if not name.exists())
