"""Folders, zips and tars of images as one tensor of square, premultiplied RGBA images.

Images with transparency are padded to a square with transparency, so that nothing of the object is lost;
opaque ones are cropped to their central square. Values are taken as they are stored: sRGB stays sRGB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sdfgan.data.archives import SUFFIXES, Entry, open_archive
from sdfgan.errors import UserError, one_line
from sdfgan.images import DEEP_MODES, is_inverted, load, to_rgba

T = TypeVar("T")
Colour = tuple[float, float, float]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA")  # decoders that run no other program
_KINDS = {  # beginnings of sound images that are not read
    b"II*\0": "a TIFF of a kind that is", b"MM\0*": "a TIFF of a kind that is", b"v/1\x01": "OpenEXR is",
    b"#?RADIANCE": "Radiance HDR is", b"8BPS": "Photoshop's format is",
}  # fmt: skip
_MATTE_LOW, _MATTE_HIGH = 0.05, 0.15  # distances from the background: surely background, surely object


class ImageSet(NamedTuple):
    """The images that could be read, in natural order of their names, and those that could not."""

    images: Tensor  # [N, 4, H, W] uint8, premultiplied RGBA: no colour exceeds its alpha
    skipped: list[tuple[str, str]]  # name and reason


def load_images(
    path: str | os.PathLike[str],
    resolution: int,
    *,
    background: Colour | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """All images in a folder (any depth) or a zip, as squares of side `resolution`.

    Any size, aspect, EXIF orientation and mode: RGB, RGBA, grey, palette, CMYK, 16 bit (reduced to 8), grey
    floating-point numbers in [0, 1]; other values are refused rather than guessed at.
    Resampling is antialiased and premultiplied. Hidden files and other kinds of files are ignored; a zip is read
    in place, and entries that point out of it are skipped. One bad or animated image is skipped, with its reason.

    Args:
        background: RGB in [0, 1] of the plain background of opaque images, which becomes transparent. With d
            the largest difference of a pixel c from it in any channel, alpha = clamp((d - 0.05) / 0.1, 0, 1), and
            the premultiplied colour is c - (1 - alpha) * background, clamped to [0, alpha]. Parts of the object
            in that colour vanish too.
        on_progress: called with the number of images done and their total.

    Raises:
        UserError: nothing is there, the zip is damaged, or no image can be read; the message names `path`.
        ValueError: `resolution` is less than 1.
    """
    if resolution < 1:
        raise ValueError(f"load_images: resolution must be at least 1, got {resolution}")
    check_background(background)
    path = Path(path)
    archive = open_archive(path)
    images, good, skipped = decode_all(archive.images, resolution, background=background, on_progress=on_progress)
    skipped = archive.refused + skipped
    require_some(path, len(good), skipped)
    return ImageSet(images, skipped)


def check_background(background: Sequence[float] | None) -> None:
    """Raises UserError for a background colour that is not RGB in [0, 1]."""
    if background is not None and (len(background) != 3 or not all(0 <= value <= 1 for value in background)):
        raise UserError(f"--background must be RGB in 0..1, got {' '.join(f'{value:g}' for value in background)}")


def require_some(path: Path, count: int, skipped: list[tuple[str, str]]) -> None:
    """Raises UserError, with a reason, where no image could be read."""
    if count == 0 and skipped:
        name, reason = skipped[0]
        raise UserError(f"{path}: no readable image: {len(skipped)} skipped, the first: {name} ({reason})")
    if count == 0:
        raise UserError(f"{path}: no images in it (looked for {' '.join(SUFFIXES)})")


def decode_all(
    entries: list[Entry],
    resolution: int,
    *,
    background: Colour | None = None,
    crop: float = 1.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, list[int], list[tuple[str, str]]]:
    """Images [n, 4, R, R] of entries that can be read, the indices of those, and names and reasons of the rest."""
    images = np.empty((len(entries), resolution, resolution, 4), np.uint8)
    good: list[int] = []
    skipped = []
    Image.init()  # loads the decoders here, once, rather than in every thread
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda entry: decode(entry, resolution, background, crop), entries)
        for index, result in enumerate(results):
            if isinstance(result, str):
                skipped.append((entries[index].name, result))
            else:
                images[len(good)] = result
                good.append(index)
            if on_progress is not None:
                on_progress(index + 1, len(entries))
    return torch.from_numpy(images[: len(good)]).permute(0, 3, 1, 2).contiguous(), good, skipped


# ---------------------------------------------------------------------------------------- reading an image


def decode(entry: Entry, resolution: int, background: Colour | None = None, crop: float = 1.0) -> np.ndarray | str:
    """An image [resolution, resolution, 4], or the reason why there is none.

    `crop` is the side of the central square that is kept of an opaque image, as a share of its shorter side.
    """
    try:
        with entry.open() as file:
            head = file.read(12)
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:  # reads the header alone
                return _refused(image) or _square(_premultiplied(image, turn=True), resolution, background, crop)
    except UnidentifiedImageError:
        return _no_image(head)
    except Exception as error:  # decoders raise almost anything on damaged data
        return one_line(error)


def decode_whole(path: Path, scale: float = 1.0) -> tuple[np.ndarray, bool] | str:
    """An image [H, W, 4] uint8, premultiplied RGBA, and whether it has an alpha channel; or why there is none.

    Pixels stay where the file has them, as camera poses need it: no crop, no EXIF rotation. `scale` at most 1.
    """

    def read(image: Image.Image) -> tuple[np.ndarray, bool]:
        has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        image = _premultiplied(image)
        if scale != 1:
            image = image.resize(_reduced(image, scale), Image.Resampling.BOX, reducing_gap=None)
        return np.array(image), has_alpha

    return _opened(path, read)


def decode_mask(path: Path, scale: float = 1.0) -> np.ndarray | str:
    """A mask [H, W] bool, reduced as `decode_whole` reduces its image; or why there is none.

    It is set where the file is neither 0 in all of its colours nor transparent, and after reducing where all of its
    pixels are.
    """

    def read(image: Image.Image) -> np.ndarray:
        load(image)
        is_plain = image.mode in (*DEEP_MODES, "L", "1") and not is_inverted(image)
        values = np.asarray(image if is_plain else to_rgba(image))
        mask = values != 0 if values.ndim == 2 else (values[..., :3] != 0).any(-1) & (values[..., 3] != 0)
        if scale != 1:
            share = Image.fromarray(mask.astype(np.float32)).resize(_reduced(image, scale), Image.Resampling.BOX)
            mask = np.asarray(share) > 1 - 1e-4
        return mask

    return _opened(path, read)


def _reduced(image: Image.Image, scale: float) -> tuple[int, int]:
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _opened(path: Path, read: Callable[[Image.Image], T]) -> T | str:
    """What is read of an image file; or why nothing is."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return _refused(image) or read(image)
    except FileNotFoundError:
        return "no such file"
    except UnidentifiedImageError:
        return _no_image(path.read_bytes()[:12])
    except Exception as error:  # decoders raise almost anything on damaged data
        return one_line(error)


def _no_image(head: bytes) -> str:
    """Why there is no image in a file with this beginning, which no decoder takes."""
    if not head:
        return "empty file"
    kinds = [kind for start, kind in _KINDS.items() if head.startswith(start)]
    kinds += ["HEIF or AVIF is"] if head[4:8] == b"ftyp" else []
    return f"{kinds[0]} not read: convert it to PNG" if kinds else "not an image"


def _refused(image: Image.Image) -> str | None:
    """Why an image is not to be decoded, by its header. Other pages of TIFFs and JPEGs are copies, or previews."""
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        return f"{image.width} x {image.height} pixels are more than {Image.MAX_IMAGE_PIXELS}"
    frames = getattr(image, "n_frames", 1) if image.format in ("GIF", "PNG", "WEBP") else 1
    return f"animated: {frames} frames, and an image has one" if frames > 1 else None


def _premultiplied(image: Image.Image, turn: bool = False) -> Image.Image:
    """The image in mode RGBa: colours times alpha, so that resampling leaves no fringe at edges.

    `turn`: as its EXIF data say.
    """
    load(image)
    upright = ImageOps.exif_transpose(image) if turn else image
    return to_rgba(upright, image).convert("RGBa")


def _square(image: Image.Image, resolution: int, background: Colour | None, crop: float) -> np.ndarray:
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
        side = min(width, height) * crop
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
