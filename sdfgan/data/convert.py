"""Writing data sets: as a zip or folder in StyleGAN's layout (with labels), or as a WebDataset shard (.tar)."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdfgan.errors import UserError
from sdfgan.training.files import atomic_file, atomic_folder

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
    """A function `write(name, bytes)` into a new .zip, .tar or folder, which appears whole or not at all."""
    if path.exists():
        raise UserError(f"{path}: exists; name a new .zip, .tar or folder")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with atomic_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            yield lambda name, data: archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    elif suffix == ".tar":
        with atomic_file(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:

            def add(name: str, data: bytes) -> None:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

            yield add
    elif suffix == "":
        with atomic_folder(path) as folder:

            def put(name: str, data: bytes) -> None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)

            yield put
    else:
        raise UserError(f"{path}: must be a .zip, a .tar or a folder without a suffix")


def dataset_json(labels: dict[str, Any], cropped: bool = False) -> bytes:
    """StyleGAN's dataset.json; `cropped` tells `layouts.is_cropped` that a layout's crop has been done."""
    pairs = [[name, label] for name, label in labels.items()] or None
    return json.dumps({"labels": pairs, **({"cropped": True} if cropped else {})}).encode()
