"""Images and videos as files, and numbers as colours to look at."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sdfgan.checks import check_number, check_whole
from sdfgan.errors import UserError
from sdfgan.training.files import atomic_file, disk_errors

VIDEO_SUFFIXES = (".mp4", ".gif", ".webp")
VideoFormat = Literal["mp4", "gif", "webp"]
Show = Literal["colour", "depth", "normals"]  # of a rendering
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")  # of 8 bits
DEEP_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")  # grey, of 16 or 32 bits
_HALF_A_STEP = 1 / 510  # of 8 bits
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # a TIFF's tags
_SPREAD = {"L;2": 85, "L;4": 17}  # factors from grey of few bits to 8, by how Pillow calls a PNG's pixels
_MAX_PIXELS = 2**29  # of an animation in memory, over all frames
_SHORTEST_FRAME = 20.0  # milliseconds: browsers slow down what is faster
_WEBP_QUALITY = 85


class UnreadableImage(Exception):
    """A sound image of a kind that is not read; the text says why."""


def to_bytes(image: Tensor) -> np.ndarray:
    """An image [C, H, W] in [0, 1] as uint8 [H, W, C]."""
    if not isinstance(image, Tensor) or image.dim() != 3:
        got = f"{list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"image must be a Tensor [C, H, W], got {got}; of a batch, image_grid makes one")
    return (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def to_rgba(image: Image.Image, opened: Image.Image | None = None) -> Image.Image:
    """An image as RGBA of 8 bits; grey of more bits, or of numbers in [0, 1], is scaled. `opened`: as its file has it.

    Raises UnreadableImage for other kinds.
    """
    opened = image if opened is None else opened
    load(opened)
    if opened.mode in DEEP_MODES:
        image = _of_8_bits(image, _white(opened), is_inverted(opened))
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def load(image: Image.Image) -> None:
    """Decode an image that has been opened, if it is not yet, with the transparent value of a PNG right.

    Pillow spreads grey of 2 and 4 bits over 8, but not that value; and takes the upper half of colours of 16 bits.

    Raises UnreadableImage for kinds that are not read.
    """
    if image.mode not in (*MODES, *DEEP_MODES):
        raise UnreadableImage(f"images of mode {image.mode} are not read")
    tiles: Any = getattr(image, "tile", None) if image.format == "PNG" else None  # none once decoded
    pixels = tiles[0].args if tiles else None
    if "transparency" in image.info and pixels == "RGB;16B":
        raise UnreadableImage("a transparent colour of 16 bits a channel is not read; an alpha channel is")
    if "transparency" in image.info and pixels in _SPREAD:
        image.info["transparency"] *= _SPREAD[pixels]
    image.load()


def is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF of more than 8 bits; others are turned by Pillow."""
    return image.mode in DEEP_MODES and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC, 1) == 0


def _white(image: Image.Image) -> float:
    """The value of white in a grey image of 16 or 32 bits, or of numbers in [0, 1]."""
    if image.mode == "F":
        return 1.0
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # whose 16 bits are read into 32
        raise UnreadableImage("integers of 8 or 16 bits without sign are read, got 32 bits or signed ones")
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]  # a camera's TIFF may have 10, 12 or 14
    return 2.0**bits - 1


def _of_8_bits(image: Image.Image, white: float, inverted: bool) -> Image.Image:
    """Grey from 0 to `white`, or if `inverted` from that to 0, which Pillow would clip to 8 bits, as L or LA."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        low, high = values.min(), values.max()
        if not (low >= -_HALF_A_STEP and high <= 1 + _HALF_A_STEP):  # nor where something is not a number
            raise UnreadableImage(f"floating-point values must be in 0..1, got {low:g} to {high:g}")
    shown = white - values if inverted else values
    result = Image.fromarray((shown * (255 / white)).round().clip(0, 255).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        result.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return result


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] of colours in [0, 1] as images have them, by sRGB's transfer function (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """The inverse of `to_linear`."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def on_white(rgba: Tensor) -> Tensor:
    """Colours [B, 3, H, W] of premultiplied images [B, 4, H, W] on white."""
    return rgba[:, :3] + 1 - rgba[:, 3:]


def save_image(path: str | Path, image: Tensor) -> None:
    """Write an image [1, 3 or 4, H, W] in [0, 1] in the format of the suffix, atomically.

    Raises UserError for a suffix that names no format, or one that cannot hold the channels.
    """
    path, pixels = Path(path), to_bytes(image)
    if pixels.shape[2] not in (1, 3, 4):
        raise ValueError(f"image must be [1, 3 or 4, H, W], got {list(image.shape)}")
    written = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    known = Image.registered_extensions().get(path.suffix.lower())
    if known not in Image.SAVE:
        raise UserError(f"{path}: the suffix must be that of an image, such as .png or .jpg")
    with atomic_file(path) as partial:
        written.save(partial, known)


def image_grid(images: Tensor, columns: int, fill: float = 0.0) -> Tensor:
    """Images [N, C, H, W] as one [C, rows * H, columns * W], row by row; `fill` is the rest of the last row."""
    if images.dim() != 4:
        raise ValueError(f"image_grid: images must be [N, C, H, W], got {list(images.shape)}")
    check_whole("image_grid", 1, columns=columns)
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, rows * columns - count), value=fill)
    tiles = filled.view(rows, columns, channels, height, width)
    return tiles.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)


class NoVideo(UserError):
    """A video was wanted where none can be written; its message says what is missing or too large."""


def video_problem(path: Path) -> str | None:
    """Why a video cannot be written to `path`, in a line; None if it can. UserError for another suffix."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"{path}: a video is written as {', '.join(VIDEO_SUFFIXES[:-1])} or {VIDEO_SUFFIXES[-1]}")
    if path.suffix.lower() != ".mp4":
        return None
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return f"{path}: not written: videos need ffmpeg (pip install imageio-ffmpeg)"
    return None


def require_video(path: Path) -> None:
    """Raises NoVideo where a video cannot be written to `path`."""
    if (problem := video_problem(path)) is not None:
        raise NoVideo(problem)


def warn_if_no_video(path: Path) -> None:
    """Before long work that ends with a video: print a line if it will not be there."""
    if (problem := video_problem(path)) is not None:
        print(f"{problem.replace('not written', 'will not be written')}, or choose --video-format gif or webp")


def video_if_possible(path: Path, write: Callable[[Path], None]) -> Path | None:
    """`path`, once `write(path)` has made the video; None, and a printed line, where no video can be written."""
    try:
        write(path)
    except NoVideo as problem:
        print(problem)
        return None
    return path


class _GivenUp(Exception):
    """A file is not wanted any more."""


class VideoWriter:
    """A video that frames [3, H, W] in [0, 1] are added to; it appears when its block ends well.

    .mp4 is H.264 by ffmpeg (NoVideo where that is missing), which needs even sides: an odd frame gets one more row or
    column of black. .gif (256 colours, durations in hundredths of a second) and .webp need no ffmpeg; their frames are
    in memory until the end, and NoVideo says when they are too many.
    """

    def __init__(self, path: str | Path, fps: int = 24) -> None:
        check_number("VideoWriter: fps", fps)
        if not fps > 0:
            raise ValueError(f"VideoWriter: fps must be positive, got {fps}")
        self.path = Path(path)
        self._file = atomic_file(self.path)
        self._fps = fps
        self._frames: list[Image.Image] = []
        self._ffmpeg: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VideoWriter:
        require_video(self.path)
        self._partial = self._file.__enter__()
        return self

    def add(self, frame: Tensor) -> None:
        """Append a frame [3, H, W]."""
        if frame.dim() != 3 or frame.shape[0] != 3:
            raise ValueError(f"VideoWriter.add: frame must be [3, H, W], got {list(frame.shape)}")
        if self.path.suffix.lower() == ".mp4":
            with disk_errors(self.path):
                self._pipe(to_bytes(F.pad(frame, (0, frame.shape[2] % 2, 0, frame.shape[1] % 2))))
            return
        image = Image.fromarray(to_bytes(frame))
        self._frames.append(image.quantize() if self.path.suffix.lower() == ".gif" else image)
        check_animation(self.path, len(self._frames) * image.width * image.height)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._save()
        except Exception:
            self._file.__exit__(*sys.exc_info())
            raise
        finally:
            if self._ffmpeg is not None:
                if self._ffmpeg.poll() is None:  # of a video that is given up
                    self._ffmpeg.kill()
                    self._ffmpeg.communicate()
                self._stderr.close()
        if kind is None:
            self._file.__exit__(None, None, None)
        else:  # an error of the block, such as of a stream that it prints to, is not the file's
            with suppress(_GivenUp):
                self._file.__exit__(_GivenUp, _GivenUp(), None)

    def _pipe(self, pixels: np.ndarray) -> None:
        """Hand a frame [H, W, 3] to ffmpeg, which the first one starts."""
        if self._ffmpeg is None:
            import imageio_ffmpeg

            self._shape = pixels.shape
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            source = ["-f", "rawvideo", "-s", size, "-pix_fmt", "rgb24", "-r", f"{self._fps:.02f}", "-i", "-"]
            coded = ["-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", "10", "-v", "error"]
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", *source, *coded, str(self._partial.absolute())]
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
            self._ffmpeg = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._stderr, start_new_session=True
            )  # a session of its own, in which Ctrl-C does not reach it
        if pixels.shape != self._shape:  # ffmpeg is handed bytes, and cannot tell
            raise ValueError(f"VideoWriter.add: frames must be of one size, {self._shape[:2]}, got {pixels.shape[:2]}")
        assert self._ffmpeg.stdin is not None
        try:
            self._ffmpeg.stdin.write(pixels.tobytes())
        except BrokenPipeError:  # it has ended
            self._save()

    def _save(self) -> None:
        """Have the file written. Raises UserError where that fails, as imageio's writer does not."""
        if self.path.suffix.lower() != ".mp4":
            self._save_animation()
            return
        if self._ffmpeg is None:
            raise ValueError(f"VideoWriter: no frame was added to {self.path}")
        self._ffmpeg.communicate()
        if self._ffmpeg.returncode != 0:
            self._stderr.seek(0)
            messages = self._stderr.read().decode(errors="replace").splitlines()
            if any("No space left" in line for line in messages):
                raise OSError(errno.ENOSPC, "No space left on device")
            raise UserError(
                f"{self.path}: cannot be written: ffmpeg failed: {messages[-1] if messages else 'it was killed'}"
            )

    def _save_animation(self) -> None:
        if not self._frames:
            raise ValueError(f"VideoWriter: no frame was added to {self.path}")
        first, *others = self._frames
        duration = max(1000 / self._fps, _SHORTEST_FRAME)
        first.save(self._partial, save_all=True, append_images=others, duration=duration, loop=0, quality=_WEBP_QUALITY)


def check_animation(path: Path, pixels: int) -> None:
    """Raises NoVideo if a video of so many pixels, over all frames, cannot be a file of this kind."""
    if path.suffix.lower() != ".mp4" and pixels > _MAX_PIXELS:
        raise NoVideo(f"{path}: {pixels:,} pixels are too many for a {path.suffix}: make fewer, or an .mp4")


def colour_depth(depth: Tensor, span: tuple[float, float] | None = None) -> Tensor:
    """Depth [B, 1, H, W] as grey [B, 3, H, W]: near is white, far is dark, nothing (infinite) is black.

    `span` is (near, far); by default, what occurs.
    """
    if depth.dim() != 4 or depth.shape[1] != 1:
        raise ValueError(f"colour_depth: depth must be [B, 1, H, W], got {list(depth.shape)}")
    seen = depth.isfinite()
    if not seen.any():
        return torch.zeros_like(depth).expand(-1, 3, -1, -1)
    near, far = span or (depth[seen].min().item(), depth[seen].max().item())
    grey = (1 - 0.8 * (depth - near) / max(far - near, 1e-6)).clamp(0.2, 1)
    return torch.where(seen, grey, 0.0).expand(-1, 3, -1, -1)


def colour_normals(normals: Tensor, alpha: Tensor) -> Tensor:
    """World normals [B, 3, H, W] as colours: x, y, z from -1..1 to red, green, blue; black where alpha is 0."""
    return (normals + 1) / 2 * alpha
