"""Folders and zips of pictures as one tensor of square, premultiplied RGBA images.

Pictures with transparency are padded to a square with transparency, so that nothing of the object is lost;
opaque ones are cropped to their central square. Values are taken as they are stored: sRGB stays sRGB.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sdfgan.errors import UserError

Colour = tuple[float, float, float]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".tga")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA")  # decoders that run no other program
_MOST_BYTES = 256 * 2**20  # of one unpacked entry of a zip: more is no photograph but a bomb
_MATTE_LOW, _MATTE_HIGH = 0.05, 0.15  # distances from the background: surely background, surely object


class ImageSet(NamedTuple):
    """The pictures that could be read, in natural order of their names, and those that could not."""

    images: Tensor  # [N, 4, H, W] uint8, premultiplied RGBA: no colour exceeds its alpha
    skipped: list[tuple[str, str]]  # name and reason


class _Entry(NamedTuple):
    name: str  # relative to the folder or the zip
    open: Callable[[], BinaryIO]


def load_images(
    path: str | os.PathLike[str],
    resolution: int,
    *,
    background: Colour | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """All pictures in a folder (any depth) or a zip, as squares of side `resolution`.

    Any size, aspect, EXIF orientation and mode: RGB, RGBA, grey, palette, CMYK, 16 bit (reduced to 8).
    Resampling is antialiased and premultiplied. Hidden files and other kinds of files are ignored; a zip is read
    in place, and entries that point out of it are skipped. One bad picture is skipped, with its reason.

    Args:
        background: RGB in [0, 1] of the plain background of opaque pictures, which becomes transparent. With d
            the largest difference of a pixel c from it in any channel, alpha = clamp((d - 0.05) / 0.1, 0, 1), and
            the premultiplied colour is c - (1 - alpha) * background, clamped to [0, alpha]. Parts of the object
            in that colour vanish too.
        on_progress: called with the number of pictures done and their total.

    Raises:
        UserError: nothing is there, the zip is damaged, or no picture can be read; the message names `path`.
        ValueError: `resolution` is less than 1.
    """
    if resolution < 1:
        raise ValueError(f"load_images: resolution must be at least 1, got {resolution}")
    if background is not None and (len(background) != 3 or not all(0 <= value <= 1 for value in background)):
        raise UserError(f"background: must be three numbers in 0..1, got {background}")
    path = Path(path)
    with _entries(path) as (entries, skipped):
        images = np.empty((len(entries), resolution, resolution, 4), np.uint8)
        count = 0

        def read(entry: _Entry) -> np.ndarray | str:
            return _read(entry, resolution, background)

        Image.init()  # loads the decoders here, once, rather than in every thread
        with _bombs_are_errors(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for done, (entry, result) in enumerate(zip(entries, pool.map(read, entries), strict=True), 1):
                if isinstance(result, str):
                    skipped.append((entry.name, result))
                else:
                    images[count] = result
                    count += 1
                if on_progress is not None:
                    on_progress(done, len(entries))
    if count == 0 and skipped:
        name, reason = skipped[0]
        raise UserError(f"{path}: no readable picture: {len(skipped)} skipped, the first: {name} ({reason})")
    if count == 0:
        raise UserError(f"{path}: no pictures in it (looked for {' '.join(SUFFIXES)})")
    return ImageSet(torch.from_numpy(images[:count]).permute(0, 3, 1, 2).contiguous(), skipped)


# ----------------------------------------------------------------------------------------- finding pictures


@contextmanager
def _entries(path: Path) -> Iterator[tuple[list[_Entry], list[tuple[str, str]]]]:
    """The pictures of a folder or zip, in natural order, and the entries that are refused."""
    if path.is_dir():
        yield _folder_entries(path), []
    elif not path.exists():
        raise UserError(f"{path}: no such folder or zip")
    elif path.suffix.lower() != ".zip":
        raise UserError(f"{path}: expected a folder or a .zip of pictures")
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path}: not a readable zip: {_one_line(error)}") from error
        with archive:
            yield _zip_entries(archive)


def _folder_entries(root: Path) -> list[_Entry]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error

    found = []
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            file = Path(folder, name)
            if _is_picture(name) and file.is_file():
                found.append(_Entry(file.relative_to(root).as_posix(), partial(_open, file)))
    return sorted(found, key=lambda entry: _natural(entry.name))


def _zip_entries(archive: zipfile.ZipFile) -> tuple[list[_Entry], list[tuple[str, str]]]:
    found, refused = [], []
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if info.is_dir():
            continue
        if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in parts:
            refused.append((info.filename, "its name points out of the zip"))
        elif any(part.startswith(".") for part in parts) or not _is_picture(name):
            continue
        elif info.file_size > _MOST_BYTES:
            refused.append((info.filename, f"unpacks to {info.file_size} bytes, more than {_MOST_BYTES}"))
        else:
            # The size is the archive's claim, but zipfile never unpacks more than is claimed.
            found.append(_Entry(info.filename, partial(_unpack, archive, info)))
    return sorted(found, key=lambda entry: _natural(entry.name)), refused


def _open(file: Path) -> BinaryIO:
    return file.open("rb")


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    return BytesIO(archive.read(info))


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _natural(name: str) -> list[str | int]:
    """A sort key in which picture 10 comes after picture 9."""
    pieces = re.split("([0-9]+)", name)  # text and numbers in turn
    return [int(piece) if index % 2 else piece.lower() for index, piece in enumerate(pieces)]


# ---------------------------------------------------------------------------------------- reading a picture


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Pictures above Pillow's limit on pixels raise, instead of being decoded with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _read(entry: _Entry, resolution: int, background: Colour | None) -> np.ndarray | str:
    """A picture [resolution, resolution, 4], or the reason why there is none."""
    try:
        with entry.open() as file:
            if not file.read(1):
                return "empty file"
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                return _square(_premultiplied(image), resolution, background)
    except UnidentifiedImageError:
        return "not a picture"
    except Exception as error:  # decoders raise almost anything on damaged data
        return _one_line(error)


def _premultiplied(image: Image.Image) -> Image.Image:
    """The upright picture in mode RGBa: colours times alpha, so that resampling leaves no fringe at edges."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        values = np.asarray(image).astype(np.float32) / 257
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    return image.convert("RGBA").convert("RGBa")


def _square(image: Image.Image, resolution: int, background: Colour | None) -> np.ndarray:
    transparent = bool((np.asarray(image)[..., 3] < 255).any())
    if background is not None and not transparent:
        # At four times the resolution edges come out soft, and a large photograph costs little.
        image = _without_background(image.reduce(max(1, max(image.size) // (4 * resolution))), background)
        transparent = True
    width, height = image.size
    if transparent:
        longer = max(width, height)
        size = (max(1, round(width * resolution / longer)), max(1, round(height * resolution / longer)))
        inside = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=4.0)
        image = Image.new("RGBa", (resolution, resolution))
        image.paste(inside, ((resolution - size[0]) // 2, (resolution - size[1]) // 2))
    else:
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box, reducing_gap=4.0)
    pixels = np.array(image)
    pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])  # Lanczos overshoots
    return pixels


def _without_background(image: Image.Image, background: Colour) -> Image.Image:
    colour = np.asarray(image)[..., :3].astype(np.float32) / 255
    behind = np.asarray(background, np.float32)
    distance = np.abs(colour - behind).max(-1, keepdims=True)
    alpha = ((distance - _MATTE_LOW) / (_MATTE_HIGH - _MATTE_LOW)).clip(0, 1)
    premultiplied = (colour - (1 - alpha) * behind).clip(0, alpha)
    pixels = (np.concatenate((premultiplied, alpha), -1) * 255).round().astype(np.uint8)
    return Image.frombytes("RGBa", image.size, pixels.tobytes())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
