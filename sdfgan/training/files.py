"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdfgan.errors import UserError

if TYPE_CHECKING:  # commands read and write files before they need torch
    from torch import Tensor

PARTIAL = ".partial"  # suffix of what is still being written
_LARGEST = 1e300  # number of a curve: differences are finite


def write_json(path: Path, values: Any) -> None:
    """Write `values` as JSON, atomically. Raises UserError where the file cannot be written."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def parse_json(data: bytes) -> Any:
    """What JSON in UTF-8, 16 or 32 says. Raises ValueError, whose text says where it is none."""
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_objects(lines: bytes) -> Iterator[dict[str, Any]]:
    """The objects of metrics.jsonl, one a line; what is cut off, as where a run was killed, is passed over."""
    for line in lines.splitlines():
        with suppress(ValueError, RecursionError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def add_to_curves(curves: dict[str, list[tuple[float, float]]], objects: Iterable[dict[str, Any]]) -> None:
    """Append the numbers of such objects, each with its step, by their names."""
    for found in objects:
        numbers = {name: x for name, x in found.items() if type(x) in (int, float) and abs(x) < _LARGEST}
        step = numbers.pop("step", None)
        for name, value in numbers.items() if step is not None else ():
            curves.setdefault(name, []).append((step, value))


def read_json(path: Path) -> Any:
    """What a JSON file says. Raises UserError, naming it."""
    try:
        with read_errors(path):
            return parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically; bytes of names that are no text are escaped. Raises UserError."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a .safetensors atomically; its own `save_file` leaves a .tmpXXXXXX where it is killed. Raises UserError."""
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    with atomic_file(path) as partial:
        partial.write_bytes(data)


class FolderLock:
    """A folder, made if need be, that this process alone writes to until `close`, or until it ends in whatever way.

    Raises UserError where another process does. A file system without locks, as some networks' are, does not tell.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = self._is_there()  # not one that another process removed before it let go
        except BlockingIOError:
            is_ours = False
        except OSError:
            is_ours = True  # there are no locks
        if not is_ours:
            self.close()
            raise UserError(f"{folder}: another process is writing to it; let it end, or name another folder")

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.folder), os.fstat(self._handle))
        except OSError:
            return False

    def check(self) -> None:
        """Raises UserError where the folder is no longer at its path: what is written there would be apart from it."""
        if not self._is_there():
            raise UserError(
                f"{self.folder}: was moved, removed or replaced meanwhile, so nothing more is saved; what was saved "
                "before is where it was moved to"
            )

    def close(self) -> None:
        """Let others write to it."""
        os.close(self._handle)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to, with the suffix of `path`, that becomes `path` if all goes well and vanishes if not."""
    partial = path.with_name(f".{path.stem}{PARTIAL}{path.suffix}")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            sync(partial)
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` if all goes well and vanishes if not; an older `path` is replaced."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with disk_errors(path):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for file in partial.iterdir():
                share(file)
                sync(file)
            sync(partial)
            older = path.with_name(f"{path.name}.older{PARTIAL}")
            shutil.rmtree(older, ignore_errors=True)
            if path.exists():
                os.rename(path, older)
            os.rename(partial, path)
            sync(path.parent)
            shutil.rmtree(older, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def share(path: Path) -> None:
    """Give a file whose writer made it for its owner alone, as safetensors and mkstemp do, the mode of new files."""
    if path.is_file() and not path.stat().st_mode & 0o077:
        usual = path.with_name(f".mode-{path.name}{PARTIAL}")
        usual.touch()  # as the umask, or the folder, has it
        try:
            path.chmod(usual.stat().st_mode & 0o777)
        finally:
            usual.unlink()


def sync(path: Path) -> None:
    """Have the system put a file's bytes, or a folder's entries, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be read into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


class FullDisk(UserError):
    """There is no space left on a disk, so that nothing more can be done."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: no space left on the disk; everything saved before is intact")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FullDisk(path) from error
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # which says only in words what the system said
            raise
        if any(f"(os error {number})" in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
            raise FullDisk(path) from error
        raise UserError(f"{path}: cannot be written: {error}") from error
