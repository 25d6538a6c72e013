"""Folders, zips and tars (WebDataset shards) as one thing: files by name, each of which can be opened at any time.

Nothing is ever unpacked to disk: entries are read in place, by name, so no name can lead out of an archive.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sdfgan.errors import UserError, one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".tga")
NOT_READ = (  # images of other kinds
    ".exr", ".hdr", ".pfm", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".dds", ".pam", ".qoi", ".ico",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf",
)  # fmt: skip
_TABLES = (".csv", ".tsv", ".xml", ".yaml", ".yml", ".mat", ".npy", ".npz", ".pkl", ".pickle", ".h5", ".parquet")
_PACKED = (".zip", ".rar", ".7z", ".gz", ".tgz", ".lmdb", ".tfrecords")  # in a folder or archive: not opened
_SIDE_SUFFIXES = (".json", ".txt", ".cls", *_TABLES, *_PACKED, *NOT_READ)  # labels, poses, and what is counted
_ENCRYPTED = 1  # the bit of an entry's flags
MAX_BYTES = 256 * 2**20  # of one unpacked entry: more is no photograph but a bomb


class Entry(NamedTuple):
    """A file in an archive."""

    name: str  # relative to the folder or archive, with slashes
    open: Callable[[], BinaryIO]

    def read(self) -> bytes:
        """All of it."""
        with self.open() as file:
            return file.read(MAX_BYTES)


@dataclass(frozen=True)
class Archive:
    """What is in a folder, zip or tar."""

    images: list[Entry]  # in natural order of their names
    side: dict[str, Entry]  # .json, .txt and .cls files, tables, archives, and images of kinds that are not read
    refused: list[tuple[str, str]]  # names and reasons

    @cached_property
    def names(self) -> set[str]:
        """Those of the images."""
        return {entry.name for entry in self.images}

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The names of images by the same without their suffixes."""
        found: dict[str, list[str]] = {}
        for entry in self.images:
            found.setdefault(entry.name.rsplit(".", 1)[0], []).append(entry.name)
        return found


def open_archive(path: Path) -> Archive:
    """The files of a folder (any depth), a .zip, a .tar or a folder of .tar shards. Raises UserError, naming `path`."""
    if path.is_dir():
        shards = sorted(path.glob("*.tar"), key=lambda shard: natural(shard.name))
        found, refused = _folder(path)
        for shard in shards:
            more, bad = _tar(shard, f"{shard.name}/")
            found.extend(more)
            refused.extend(bad)
    elif not path.exists():
        raise UserError(f"{path}: no such folder, zip or tar")
    elif path.suffix.lower() == ".zip":
        found, refused = _zip(path)
    elif path.suffix.lower() == ".tar":
        found, refused = _tar(path, "")
    else:
        raise UserError(
            f"{path}: expected a folder, a .zip or a .tar of images (compressed tars cannot be read in place)"
        )
    images = [entry for entry in found if _is(entry.name, SUFFIXES)]
    if any(natural(one.name) > natural(next_one.name) for one, next_one in pairwise(images)):  # keys take much memory
        images.sort(key=lambda entry: natural(entry.name))
    side = {entry.name: entry for entry in found if _is(entry.name, _SIDE_SUFFIXES)}
    return Archive(images, side, refused)


def natural(name: str) -> list[str | int]:
    """A sort key in which image 10 comes after image 9."""
    pieces = re.split("([0-9]+)", name)  # text and numbers in turn
    return [int(piece) if index % 2 else piece.lower() for index, piece in enumerate(pieces)]


def _is(name: str, suffixes: tuple[str, ...]) -> bool:
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(suffixes)


def _wanted(name: str) -> bool:
    hidden = any(part.startswith(".") and part != "." for part in name.split("/"))
    return _is(name, SUFFIXES + _SIDE_SUFFIXES) and not hidden


def _refusal(name: str, size: int) -> str | None:
    """Why an archive's entry is not read, if so."""
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        return "its name points out of the archive"
    if size > MAX_BYTES:
        return f"unpacks to {size} bytes, more than {MAX_BYTES}"
    return None


# ------------------------------------------------------------------------------------------------------------- kinds


def _folder(root: Path) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Also what links lead to, each folder once."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error

    found: list[Entry] = []
    refused: list[tuple[str, str]] = []
    top = Path(os.path.realpath(root))
    visited = {str(top)}
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        kept = []
        for name in sorted(subfolders):
            real = os.path.realpath(Path(folder, name))
            # What lies here keeps its own name, which labels and poses may have.
            elsewhere = not Path(folder, name).is_symlink() or not _is_shown_in(top, Path(real))
            if name.startswith(".") or real in visited or top.is_relative_to(real) or not elsewhere:
                continue
            kept.append(name)
            visited.add(real)
        subfolders[:] = kept
        for name in names:
            file = Path(folder, name)
            if not _is(name, SUFFIXES + _SIDE_SUFFIXES):
                continue
            if file.is_file():
                found.append(Entry(file.relative_to(root).as_posix(), partial(_open, file)))
            elif file.is_symlink() and _is(name, SUFFIXES):
                refused.append((file.relative_to(root).as_posix(), "a link to no file"))
    return found, refused


def _is_shown_in(top: Path, folder: Path) -> bool:
    return folder.is_relative_to(top) and not any(part.startswith(".") for part in folder.relative_to(top).parts)


class _Zip:
    """A zip of which each process reads through a file of its own: copies of one share its position in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._process = zipfile.ZipFile(path), os.getpid()

    def infos(self) -> list[zipfile.ZipInfo]:
        """The entries, folders too."""
        return self._file.infolist()

    def unpack(self, info: zipfile.ZipInfo) -> BinaryIO:
        """The content of an entry."""
        if self._process != os.getpid():  # after a fork, as of a DataLoader's worker
            self._file, self._process = zipfile.ZipFile(self._path), os.getpid()
        return BytesIO(self._file.read(info))

    def __reduce__(self) -> tuple[type[_Zip], tuple[Path]]:
        """Other processes open the file again."""
        return type(self), (self._path,)


def _zip(path: Path) -> tuple[list[Entry], list[tuple[str, str]]]:
    try:
        archive = _Zip(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: not a readable zip: {one_line(error)}") from error
    found: list[Entry] = []
    refused: list[tuple[str, str]] = []
    for info in archive.infos():
        name = info.filename.replace("\\", "/")
        reason = _refusal(name, info.file_size)
        if reason is None and info.flag_bits & _ENCRYPTED and _wanted(name):
            reason = "is encrypted"
        if info.is_dir() or (reason is None and not _wanted(name)):
            continue
        if reason is not None:
            refused.append((info.filename, reason))
        else:
            # The size is the archive's claim, but zipfile never unpacks more than is claimed.
            found.append(Entry(name, partial(archive.unpack, info)))
    return found, refused


def _tar(path: Path, prefix: str) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The files of an uncompressed tar, each by where it lies in the file."""
    found: list[Entry] = []
    refused: list[tuple[str, str]] = []
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep all
                reason = _refusal(member.name, member.size)
                if not member.isreg() or (reason is None and not _wanted(member.name)):
                    continue
                if reason is not None:
                    refused.append((member.name, reason))
                else:
                    found.append(Entry(prefix + member.name, partial(_slice, path, member.offset_data, member.size)))
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable tar: {one_line(error)}") from error
    return found, refused


def _open(file: Path) -> BinaryIO:
    return file.open("rb")


def _slice(path: Path, start: int, size: int) -> BinaryIO:
    with path.open("rb") as file:
        file.seek(start)
        return BytesIO(file.read(size))
