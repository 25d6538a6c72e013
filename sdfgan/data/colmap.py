"""COLMAP's sparse models, text and binary: the cameras and poses of photographs.

Format: https://colmap.github.io/format.html. A pose there takes world to camera, and the camera looks along +z with y
down; here it takes camera to world, and the camera looks along -z with y up. Pixel centres agree: (0.5, 0.5).
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import NamedTuple

from sdfgan.data.archives import natural
from sdfgan.errors import UserError
from sdfgan.training.files import read_errors

# Parameters of the camera models that `ops.sample_pixels` has; f and fx, fy are focal lengths.
_FOCAL_1, _FOCAL_2 = ("f", "cx", "cy"), ("fx", "fy", "cx", "cy")
_MODELS: dict[str, tuple[str, ...]] = {
    "SIMPLE_PINHOLE": _FOCAL_1,
    "PINHOLE": _FOCAL_2,
    "SIMPLE_RADIAL": (*_FOCAL_1, "k1"),
    "RADIAL": (*_FOCAL_1, "k1", "k2"),
    "OPENCV": (*_FOCAL_2, "k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": (*_FOCAL_2, "k1", "k2", "k3", "k4"),
    "FULL_OPENCV": (*_FOCAL_2, "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "SIMPLE_RADIAL_FISHEYE": (*_FOCAL_1, "k1"),
    "RADIAL_FISHEYE": (*_FOCAL_1, "k1", "k2"),
    "SIMPLE_FISHEYE": _FOCAL_1,
    "FISHEYE": _FOCAL_2,
}
_MODEL_NAMES = (
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV",
    "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_DIVISION",
    "DIVISION", "SIMPLE_FISHEYE", "FISHEYE", "EUCM", "EQUIRECTANGULAR",
)  # fmt: skip
_LONGEST_NAME = 4096
_LARGEST_SIDE = 2**31


class ColmapCamera(NamedTuple):
    """A camera: the size of its images, and parameters by name (f or fx, fy; cx, cy; k1 to k6, p1, p2)."""

    width: int
    height: int
    parameters: dict[str, float]
    fisheye: bool


class ColmapImage(NamedTuple):
    """A posed photograph: `pose` is `camera_to_world` [3, 4] as lists, in the conventions of this package's cameras."""

    name: str
    camera: ColmapCamera
    pose: list[list[float]]


def find_model(folder: Path) -> tuple[Path, list[ColmapImage], list[str]] | None:
    """The folder of the model in a scene's folder, its photographs and notes; of several the one with the most of them.

    COLMAP writes sparse/0, sparse/1 ... where the photographs fall into parts that nothing connects.
    """
    for place in ("sparse", "colmap/sparse", "."):
        inner = [sub for sub in (folder / place).glob("*") if _is_model(sub)] if place != "." else []
        models = sorted(inner, key=lambda sub: natural(sub.name)) or [folder / place]
        if not _is_model(models[0]):
            continue
        found = {model: read_model(model) for model in models}
        best = max(models, key=lambda model: len(found[model][0]))
        images, notes = found[best]
        others = [f"{model.relative_to(folder)} ({len(found[model][0])})" for model in models if model != best]
        if others:
            notes.append(f"{best}: the model of most photographs, {len(images)}; not used: {', '.join(others)}")
        return best, images, notes
    return None


def _is_model(folder: Path) -> bool:
    return any(all((folder / (name + end)).is_file() for name in ("cameras", "images")) for end in (".bin", ".txt"))


def read_model(folder: Path) -> tuple[list[ColmapImage], list[str]]:
    """The photographs of the model in `folder`, by name, and notes. Raises UserError, naming file and entry."""
    notes: list[str] = []
    if (folder / "cameras.bin").is_file() and (folder / "images.bin").is_file():
        file = folder / "images.bin"
        images = _binary_images(file, _binary_cameras(folder / "cameras.bin"))
    else:
        file = folder / "images.txt"
        images = _text_images(file, _text_cameras(folder / "cameras.txt"), notes)
    names: set[str] = set()
    for image in images:
        if image.name in names:
            raise UserError(f"{file}: there are two poses of {image.name}")
        names.add(image.name)
    return sorted(images, key=lambda image: image.name), notes


def _camera(where: str, model: str, width: int, height: int, values: list[float]) -> ColmapCamera:
    if model not in _MODELS:
        raise UserError(f"{where}: camera model must be one of {', '.join(_MODELS)}, got {model} (undistort first)")
    names = _MODELS[model]
    if len(values) != len(names):
        raise UserError(f"{where}: a {model} camera has {len(names)} parameters, got {len(values)}")
    if not (0 < width < _LARGEST_SIDE and 0 < height < _LARGEST_SIDE):
        raise UserError(f"{where}: width and height must be in (0, 2^31), got {width} and {height}")
    return ColmapCamera(width, height, dict(zip(names, values, strict=True)), model.endswith("FISHEYE"))


def _image(
    where: str, name: str, camera: int, pose: tuple[float, ...], cameras: dict[int, ColmapCamera]
) -> ColmapImage:
    """`pose` is a quaternion w, x, y, z and a translation, world to camera."""
    if camera not in cameras:
        raise UserError(f"{where}: {name}: there is no camera {camera}")
    w, x, y, z, *translation = pose
    length = math.sqrt(w * w + x * x + y * y + z * z)
    if not all(map(math.isfinite, pose)) or not length > 1e-9:
        raise UserError(f"{where}: {name}: the pose must be a quaternion and a translation, got {pose}")
    w, x, y, z = (part / length for part in (w, x, y, z))
    rotation = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )  # rows: the camera's axes right, down, forward in the world
    right, down, forward = rotation
    position = [-sum(rotation[row][i] * translation[row] for row in range(3)) for i in range(3)]
    return ColmapImage(name, cameras[camera], [[right[i], -down[i], -forward[i], position[i]] for i in range(3)])


# ------------------------------------------------------------------------------------------------------------ binary


class _Reader:
    """Numbers from a little-endian binary file; its counts are believed only as far as the file reaches."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        with read_errors(path):
            self.data = memoryview(path.read_bytes())

    def take(self, layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        self.skip(size)
        return struct.unpack_from("<" + layout, self.data, self.at - size)

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise UserError(f"{self.path}: truncated: {size} more bytes expected at byte {self.at} of {len(self.data)}")
        self.at += size

    def count(self, smallest: int) -> int:
        """A number of entries of at least `smallest` bytes each."""
        (count,) = self.take("Q")
        if count * smallest > len(self.data) - self.at:
            raise UserError(f"{self.path}: truncated: {count} entries do not fit into {len(self.data)} bytes")
        return count

    def end(self) -> None:
        if self.at != len(self.data):
            raise UserError(f"{self.path}: {len(self.data) - self.at} bytes after the last entry that it declares")

    def name(self) -> str:
        raw = bytes(self.data[self.at : self.at + _LONGEST_NAME])
        end = raw.find(b"\0")
        if end < 0:
            raise UserError(f"{self.path}: truncated: the name at byte {self.at} does not end")
        name = raw[:end].decode("utf-8", "replace")
        if any(character < " " for character in name):
            raise UserError(f"{self.path}: the name at byte {self.at} has control characters: {name!r}")
        self.at += end + 1
        return name


def _binary_cameras(path: Path) -> dict[int, ColmapCamera]:
    reader, cameras = _Reader(path), {}
    for _ in range(reader.count(24)):
        number, model, width, height = reader.take("iiQQ")
        name = _MODEL_NAMES[model] if 0 <= model < len(_MODEL_NAMES) else f"number {model}"
        where = f"{path}: camera {number}"
        values = list(reader.take(f"{len(_MODELS.get(name, ()))}d"))
        if number in cameras:
            raise UserError(f"{where} is there twice")
        cameras[number] = _camera(where, name, width, height, values)
    reader.end()
    return cameras


def _binary_images(path: Path, cameras: dict[int, ColmapCamera]) -> list[ColmapImage]:
    reader, images = _Reader(path), []
    for _ in range(reader.count(73)):
        _, *pose, camera = reader.take("i7di")
        images.append(_image(str(path), reader.name(), camera, tuple(pose), cameras))
        reader.skip(24 * reader.count(24))  # the points seen in it
    reader.end()
    return images


# -------------------------------------------------------------------------------------------------------------- text


def _text(path: Path) -> str:
    try:
        with read_errors(path):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from error


def _lines(text: str) -> list[tuple[int, str]]:
    """Numbered lines without comments and empty ones."""
    lines = [(i, line.strip()) for i, line in enumerate(text.split("\n"), 1)]
    return [(i, line) for i, line in lines if line and not line.startswith("#")]


def _text_cameras(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for i, line in _lines(_text(path)):
        try:
            number, model, width, height, *values = line.split()
            key, size, numbers = int(number), (int(width), int(height)), [float(value) for value in values]
        except ValueError:
            raise UserError(f"{path}: line {i}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS") from None
        if key in cameras:
            raise UserError(f"{path}: line {i}: camera {key} is there twice")
        cameras[key] = _camera(f"{path}: line {i}", model, *size, numbers)
    return cameras


def _text_images(path: Path, cameras: dict[int, ColmapCamera], notes: list[str]) -> list[ColmapImage]:
    """The line after an image's has the points seen in it; it may be empty, or not there at all."""
    images: list[ColmapImage] = []
    text, points_may_follow = _text(path), False
    for i, line in _lines(text):
        if points_may_follow and _is_points(line):
            points_may_follow = False
            continue
        try:
            _, *numbers, camera, name = line.split(maxsplit=9)
            pose, key = tuple(float(number) for number in numbers), int(camera)
        except ValueError:
            raise UserError(f"{path}: line {i}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME") from None
        if len(pose) != 7:
            raise UserError(f"{path}: line {i}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
        images.append(_image(f"{path}: line {i}", name, key, pose, cameras))
        points_may_follow = True
    declared = re.search(r"^#\s*Number of images:\s*(\d+)", text, re.MULTILINE)
    if declared and int(declared[1]) != len(images):
        notes.append(f"{path}: its head says {int(declared[1])} images, and there are {len(images)}")
    return images


def _is_points(line: str) -> bool:
    """Whether a line is X Y POINT3D_ID X Y POINT3D_ID ..., which an image's line is not, even where it is cut short."""
    words = line.split()
    if len(words) % 3:
        return False
    try:
        _ = [int(word) for word in words[2::3]]  # of a cut image's line these are parts of its pose
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False
