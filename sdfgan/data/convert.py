"""Writing data sets: as a zip or folder in StyleGAN's layout (with labels), or as a WebDataset shard (.tar)."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdfgan.errors import UserError
from sdfgan.training.files import PARTIAL, FolderLock, disk_errors, sync

_FILES_PER_FOLDER = 1000
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same images give the same bytes

Write = Callable[[str, bytes], None]


def image_name(index: int) -> str:
    """StyleGAN's name of the index-th image: names of a data set's own never reach the output."""
    return f"{index // _FILES_PER_FOLDER:05d}/img{index:08d}.png"


def encode(premultiplied: np.ndarray) -> bytes:
    """An image [R, R, 4] uint8, premultiplied, as the bytes of a PNG with straight alpha, or RGB if it is opaque."""
    image = Image.frombytes("RGBa", premultiplied.shape[1::-1], np.ascontiguousarray(premultiplied).tobytes())
    straight = image.convert("RGBA")
    if (premultiplied[..., 3] == 255).all():
        straight = straight.convert("RGB")
    buffer = io.BytesIO()
    straight.save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def writer(path: Path) -> Iterator[Write]:
    """A function `write(name, bytes)` into a new .zip, .tar or folder, which appears whole or not at all.

    It is made in the folder `path`.partial, which no other process can use meanwhile.
    """
    suffix = path.suffix.lower()
    if suffix not in _OPENERS:
        raise UserError(f"{path}: must be a .zip, a .tar or a folder without a suffix")
    _require_new(path)
    work = path.with_name(path.name + PARTIAL)
    with FolderLock(work):
        try:
            held = ExitStack()
            with disk_errors(path):
                _require_new(path)  # nor has one that has ended made it meanwhile
                made = work / path.name
                shutil.rmtree(made, ignore_errors=True)  # of one that was killed
                write = held.enter_context(_OPENERS[suffix](made))
            try:
                yield partial(_write, path, write)
            except BaseException:  # of whatever kind: it may be of what is printed meanwhile
                with suppress(OSError):
                    held.close()
                raise
            with disk_errors(path):
                held.close()
                if made.is_dir():
                    os.sync()  # everything at once: each file by itself takes a disk's time
                else:
                    sync(made)
                os.replace(made, path)
                sync(path.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _write(path: Path, write: Write, name: str, data: bytes) -> None:
    with disk_errors(path):
        write(name, data)


def is_written(path: Path) -> bool:
    """Whether `writer` has made `path`; removes the folder, empty by then, that it leaves where it is killed after."""
    if not path.exists():
        return False
    with suppress(OSError):
        path.with_name(path.name + PARTIAL).rmdir()
    return True


def _require_new(path: Path) -> None:
    if is_written(path):
        raise UserError(f"{path}: exists; name a new .zip, .tar or folder")


@contextmanager
def _zip(path: Path) -> Iterator[Write]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        yield lambda name, data: archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


@contextmanager
def _tar(path: Path) -> Iterator[Write]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        yield add


@contextmanager
def _folder(path: Path) -> Iterator[Write]:
    path.mkdir()

    def put(name: str, data: bytes) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)

    yield put


_OPENERS = {".zip": _zip, ".tar": _tar, "": _folder}


def dataset_json(labels: dict[str, Any], cropped: bool = False) -> bytes:
    """StyleGAN's dataset.json; `cropped` tells `layouts.is_cropped` that a layout's crop has been done."""
    pairs = [[name, label] for name, label in labels.items()] or None
    return json.dumps({"labels": pairs, **({"cropped": True} if cropped else {})}).encode()
