"""Scenes as posed images: Blender's NeRF format, transforms.json of instant-ngp and nerfstudio, COLMAP models.

Cameras are those of `sdfgan.cameras`, in coordinates in which the scene has a fixed size (`Scene.to_file` undoes that):
bounded     Blender's format with alpha: the file's cube [-1.5, 1.5]^3, or scene_scale times it, becomes [-1, 1]^3
unbounded   all others: what the cameras look at is the origin, all of them are in the unit ball, nothing has an end
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan.data.archives import SUFFIXES, natural
from sdfgan.data.colmap import find_model
from sdfgan.data.images import decode_mask, decode_whole
from sdfgan.data.transforms import Frame, inside, lens_of, number, read_frames, transforms
from sdfgan.errors import UserError
from sdfgan.ops.pixels import PixelViews, pixel_views, sample_pixels
from sdfgan.training.files import write_json

_OBJECT_SIDE = 1.5  # half of it, in the units of Blender's scenes
_HELD_OUT_EVERY = 8  # photograph, where the files name no split, as in mip-NeRF 360
_MAX_IMAGE_BYTES = 16 * 2**30
_OPENCV_TERMS = 4  # k1, k2, p1, p2: of most lenses there are no more
# Sides of an image: the focal length of a pinhole that sees 169 degrees; if shorter, it is in other units.
_SHORTEST = 0.05
_FARTHEST_ASIDE = math.radians(85)  # what a lens sees so far from its axis, a pinhole can see too
_AXES = torch.eye(3, dtype=torch.float64, device="cpu")
_MAX_SPREAD = 1e6  # of cameras' distances from their middle: the farthest by the median
_LOOKS = 64  # along each side of an image, at how far its lens sees


@dataclass(frozen=True)
class Views:
    """N posed images, of any sizes."""

    names: list[str]
    pixels: Tensor  # [P, 4] uint8, premultiplied RGBA of all pixels of all images, row by row
    sizes: Tensor  # [N, 2] int64, height and width
    cameras: PixelViews

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: list[int]) -> Views:
        """Some of the views."""
        cameras, sizes = self.cameras, self.sizes[indices]

        def of_pixels(values: Tensor) -> Tensor:
            return torch.cat([values[cameras.starts[i] : cameras.starts[i + 1]] for i in indices])

        lens, fisheye = (None if part is None else part[indices] for part in (cameras.distortion, cameras.fisheye))
        mask = None if cameras.mask is None else of_pixels(cameras.mask)
        poses, intrinsics = cameras.camera_to_world[indices], cameras.intrinsics[indices]
        chosen = pixel_views(poses, intrinsics, sizes, lens, fisheye, mask)
        return Views([self.names[i] for i in indices], of_pixels(self.pixels), sizes, chosen)

    def to(self, device: torch.device) -> Views:
        """The same on a device."""
        moved = {name: part.to(device) for name, part in self.cameras._asdict().items() if part is not None}
        return Views(self.names, self.pixels.to(device), self.sizes.to(device), PixelViews(**moved))

    def image(self, index: int, background: Tensor) -> Tensor:
        """One image [3, H, W] float32 on a background [3]."""
        start, end = self.cameras.starts[index : index + 2].tolist()
        pixels = self.pixels[start:end].float() / 255
        image = pixels[:, :3] + (1 - pixels[:, 3:]) * background
        return image.view(*self.sizes[index].tolist(), 3).permute(2, 0, 1)

    def pinholes(self) -> tuple[PixelViews, Tensor] | None:
        """Pinhole cameras that see what these see, and their sizes [N, 2]; None where a lens sees to its side.

        They are the cameras themselves where there is no lens.
        """
        cameras = self.cameras
        if cameras.distortion is None:
            return cameras, self.sizes
        intrinsics, sizes = cameras.intrinsics.clone(), self.sizes.clone()
        for index, (height, width) in enumerate(self.sizes.tolist()):
            rows, columns = (
                torch.linspace(0, side - 1, min(side, _LOOKS), device=sizes.device, dtype=torch.float32).round().long()
                for side in (height, width)
            )
            pixels = cameras.starts[index] + (rows[:, None] * width + columns).flatten()
            seen = sample_pixels(cameras._replace(mask=None), pixels).directions
            right, up, back = (seen[seen.isfinite().all(1)] @ cameras.camera_to_world[index, :, :3]).unbind(1)
            if len(back) == 0:
                continue  # a lens that shows nothing
            if back.max() > -math.cos(_FARTHEST_ASIDE):
                return None
            fx, fy = intrinsics[index, :2]
            across, down = fx * right / -back, fy * up / back  # pixels from the principal point
            low = torch.stack((across.min(), down.min())).floor() - 1
            high = torch.stack((across.max(), down.max())).ceil() + 1
            intrinsics[index, 2:] = -low
            sizes[index] = (high - low).flip(0).long()
        return pixel_views(cameras.camera_to_world, intrinsics, sizes), sizes


class Scene(NamedTuple):
    """What was found at a path."""

    path: Path
    train: Views
    val: Views | None
    test: Views | None
    has_alpha: bool  # whether the images show an object on nothing
    bounded: bool  # whether everything is in the cube [-1, 1]^3
    to_file: Tensor  # [3, 4] float64: similarity from scene coordinates to the file's, both y up
    notes: tuple[str, ...] = ()  # what the files say and nothing uses, and what was left out
    frames: tuple[Frame, ...] = ()  # of all views, each with its split; a split's are in its views' order


def load_scene(
    path: Path,
    *,
    image_scale: float = 1.0,
    scene_scale: float = 1.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scene:
    """The scene in a folder.

    It holds transforms_train.json (and _val, _test: Blender's format), or transforms.json, or a COLMAP model (sparse/0
    with images/; of several models the largest). Where the files name no split, every eighth image is for validation;
    where they list files for validation or tests only, the others are for training. `Scene.notes` has what the files
    say and nothing uses.

    Args:
        image_scale: images are reduced to this share of their sides, at most 1.
        scene_scale: share of the half side (1.5) of the cube around an object, or of the farthest camera's distance.

    Raises:
        UserError: naming file and frame, for anything missing, malformed, not finite or outside the folder.
    """
    if not 0 < image_scale <= 1:
        raise UserError(f"--image-scale must be in (0, 1], got {image_scale}")
    if not 0 < scene_scale < math.inf:
        raise UserError(f"--scene-scale must be positive, got {scene_scale}")
    frames, notes = _frames(path)
    if not frames:
        raise UserError(f"{path}: the scene has 0 frames")
    poses = torch.stack([frame.pose for frame in frames])
    images, has_alpha = _read_images(frames, image_scale, on_progress)
    masks = _read_masks(frames, images, image_scale)
    bounded = has_alpha and (path / "transforms_train.json").is_file()
    if not bounded:
        _check_positions(frames)
    to_file = _box(scene_scale) if bounded else _surroundings(poses, scene_scale)
    poses = _into_scene(poses, to_file).float()
    if not (poses.isfinite().all() and to_file.isfinite().all()):
        raise _too_far(frames[max(range(len(frames)), key=lambda i: frames[i].pose[:, 3].abs().max().item())])
    views = _views(frames, images, masks, poses, image_scale)
    splits = [frame.split for frame in frames]
    if not any(splits):
        splits = ["val" if i % _HELD_OUT_EVERY == _HELD_OUT_EVERY // 2 else "train" for i in range(len(frames))]
    parts = {name: [i for i, split in enumerate(splits) if split == name] for name in ("train", "val", "test")}
    if not parts["train"]:
        raise UserError(f"{path}: 0 frames to train with")
    val, test = (views.select(parts[name]) if parts[name] else None for name in ("val", "test"))
    found = tuple(frame._replace(split=split) for frame, split in zip(frames, splits, strict=True))
    return Scene(path, views.select(parts["train"]), val, test, has_alpha, bounded, to_file, tuple(notes), found)


def write_cameras(scene: Scene, folder: Path) -> Path:
    """Write the cameras of a scene as a transforms file into `folder`: the path of it.

    It takes the place of the one in the scene's folder, where the paths in it begin: transforms_train.json if there is
    one, with the training images alone, else transforms.json, with all images and the lists of their splits.
    """
    name = "transforms_train.json" if (scene.path / "transforms_train.json").is_file() else "transforms.json"
    frames = [frame for frame in scene.frames if frame.split == "train" or name == "transforms.json"]
    write_json(folder / name, transforms(frames, scene.path, splits=name == "transforms.json"))
    return folder / name


def _frames(path: Path) -> tuple[list[Frame], list[str]]:
    """The frames in a scene's folder, and notes."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of a scene")
    if (path / "transforms_train.json").is_file():
        found = [path / f"transforms_{split}.json" for split in ("train", "val", "test")]
        parts = [read_frames(file, file.stem[11:]) for file in found if file.is_file()]
        return [frame for frames, _ in parts for frame in frames], [note for _, notes in parts for note in notes]
    if (path / "transforms.json").is_file():
        return read_frames(path / "transforms.json")
    return _colmap_frames(path)


def _colmap_frames(root: Path) -> tuple[list[Frame], list[str]]:
    found = find_model(root)
    if found is None:
        raise UserError(f"{root}: expected transforms_train.json, transforms.json or a COLMAP model in sparse/0")
    model, images, notes = found
    if not images:
        raise UserError(f"{model}: the scene has 0 frames")
    up = torch.tensor([[row[1] for row in image.pose] for image in images], dtype=torch.float64, device="cpu").mean(0)
    upright = _rotation_to_up(up)
    folder = root / "images" if (root / "images").is_dir() else root
    result = []
    for image in images:
        where = f"{model}: image {image.name}"
        given = {name: number(value, name, where) for name, value in image.camera.parameters.items()}
        fx, fy = (given["f"], given["f"]) if "f" in given else (given["fx"], given["fy"])
        intrinsics = {"w": float(image.camera.width), "h": float(image.camera.height), "fl_x": fx, "fl_y": fy}
        intrinsics |= {"cx": given["cx"], "cy": given["cy"]}
        lens = lens_of(given, image.camera.fisheye, series=image.camera.fisheye)
        pose = upright @ torch.tensor(image.pose, dtype=torch.float64, device="cpu")
        result.append(Frame(where, inside(folder, image.name, where), pose, intrinsics, lens))
    used = {frame.path.resolve() for frame in result}
    if folder != root:
        rest = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.resolve() not in used]
        if rest:
            notes.append(f"{model}: {len(rest)} images in {folder} have no pose and are left out")
    return sorted(result, key=lambda frame: natural(frame.path.as_posix())), notes


def _rotation_to_up(up: Tensor) -> Tensor:
    """A rotation [3, 3] that takes `up` to +y; the identity where there is no such direction."""
    if up.norm() < 1e-6:
        return _AXES
    y = F.normalize(up, dim=0)
    side = _AXES[y.abs().argmin()]
    z = F.normalize(torch.linalg.cross(side, y), dim=0)
    return torch.stack((torch.linalg.cross(y, z), y, z))


# ---------------------------------------------------------------------------------------------------------- images


def _read_images(
    frames: list[Frame], scale: float, on_progress: Callable[[int, int], None] | None
) -> tuple[list[np.ndarray], bool]:
    """All images [H, W, 4], and whether they have alpha."""
    images: list[np.ndarray] = []
    alphas: list[bool] = []
    size = 0
    with ThreadPoolExecutor(8) as pool:
        for frame, found in zip(frames, pool.map(lambda f: decode_whole(f.path, scale), frames), strict=True):
            if isinstance(found, str):
                raise UserError(f"{frame.where}: {frame.path}: {found}")
            size += found[0].nbytes
            if size > _MAX_IMAGE_BYTES:
                raise UserError(
                    f"{frame.where}: the images take more than {_MAX_IMAGE_BYTES >> 30} GiB: reduce them, for "
                    "example with --image-scale 0.5"
                )
            images.append(found[0])
            alphas.append(found[1])
            if on_progress is not None:
                on_progress(len(images), len(frames))
    if any(alphas) and not all(alphas):
        bad = frames[alphas.index(False)]
        raise UserError(f"{bad.where}: {bad.path} has no alpha, but other images have: all of a scene must, or none")
    return images, all(alphas)


def _read_masks(frames: list[Frame], images: list[np.ndarray], scale: float) -> Tensor | None:
    """[P] bool: pixels that are to be learnt from; None where no frame has a mask. Hides the others in `images`."""
    if not any(frame.mask for frame in frames):
        return None
    masks = [np.ones(image.shape[:2], bool) for image in images]
    for index, frame in enumerate(frames):
        if frame.mask is None:
            continue
        found = decode_mask(frame.mask, scale)
        if isinstance(found, str):
            raise UserError(f"{frame.where}: {frame.mask}: {found}")
        if found.shape != masks[index].shape:
            height, width = masks[index].shape
            size = f"{found.shape[1]} x {found.shape[0]} pixels, its image {width} x {height}"
            raise UserError(f"{frame.where}: {frame.mask} is {size}")
        masks[index] = found
        images[index][~found] = 0
    return torch.cat([torch.from_numpy(mask).flatten() for mask in masks])


def _views(frames: list[Frame], images: list[np.ndarray], mask: Tensor | None, poses: Tensor, scale: float) -> Views:
    sizes = torch.tensor([image.shape[:2] for image in images], device="cpu")
    found = zip(frames, sizes.tolist(), strict=True)
    rows = [_intrinsics(frame, height, width, scale) for frame, (height, width) in found]
    intrinsics = torch.tensor(rows, dtype=torch.float32, device="cpu")
    factors = torch.tensor([frame.lens.factors for frame in frames], dtype=torch.float32, device="cpu")
    fisheyes = torch.tensor([frame.lens.fisheye for frame in frames], device="cpu")
    if not factors[:, _OPENCV_TERMS:].any() and not fisheyes.any():
        factors = factors[:, :_OPENCV_TERMS].contiguous()
    # Whoever finds a lens asks which pixels have a ray; so must they where there are masks.
    lens = factors if factors.any() or fisheyes.any() or mask is not None else None
    cameras = pixel_views(poses, intrinsics, sizes, lens, fisheyes if fisheyes.any() else None, mask)
    pixels = torch.cat([torch.from_numpy(image).view(-1, 4) for image in images])
    return Views([frame.path.name for frame in frames], pixels, sizes, cameras)


def _intrinsics(frame: Frame, height: int, width: int, scale: float) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of an image of this size, whose sides are `scale` times the file's."""
    given, where = frame.intrinsics, frame.where
    said_width, said_height = given.get("w", width / scale), given.get("h", height / scale)
    if min(said_width, said_height) < 1 or abs(said_width / said_height * height / width - 1) > 1.5 / min(
        height, width
    ):
        raise UserError(
            f"{where}: {frame.path} is {width} x {height} pixels, which does not fit w and h, "
            f"{said_width:g} x {said_height:g}"
        )
    # The files' numbers may be for a larger version of the image.
    x_scale, y_scale = width / said_width, height / said_height
    if "fl_x" in given:
        fx = given["fl_x"] * x_scale
    elif "camera_angle_x" in given:
        fx = width / 2 / math.tan(_angle(given["camera_angle_x"], "camera_angle_x", where) / 2)
    elif "fl_y" in given:
        fx = given["fl_y"] * y_scale  # square pixels
    elif "camera_angle_y" in given:
        fx = height / 2 / math.tan(_angle(given["camera_angle_y"], "camera_angle_y", where) / 2)
    else:
        raise UserError(f"{where}: no focal length: fl_x or camera_angle_x is needed")
    if "fl_y" in given:
        fy = given["fl_y"] * y_scale
    elif "camera_angle_y" in given and "fl_x" not in given:
        fy = height / 2 / math.tan(_angle(given["camera_angle_y"], "camera_angle_y", where) / 2)
    else:
        fy = fx  # square pixels
    if not (fx > 0 and fy > 0):
        raise UserError(f"{where}: singular intrinsics: focal lengths must be positive, got {fx:g} and {fy:g}")
    if min(fx / width, fy / height) < _SHORTEST and not frame.lens.fisheye:
        raise UserError(
            f"{where}: focal lengths must be in pixels, got {fx:g} and {fy:g} for {width} x {height} pixels, an angle "
            "of view near 180 degrees"
        )
    return fx, fy, given.get("cx", said_width / 2) * x_scale, given.get("cy", said_height / 2) * y_scale


def _angle(value: float, name: str, where: str) -> float:
    if not 0 < value < math.pi:
        raise UserError(f"{where}: singular intrinsics: {name} must be in (0, pi), got {value:g}")
    return value


# ---------------------------------------------------------------------------------------------------------- the place


def _check_positions(frames: list[Frame]) -> None:
    """Raises UserError for a camera so far from the others that these would be at one place in float32."""
    position = torch.stack([frame.pose[:, 3] for frame in frames])
    away = (position - position.median(0).values).abs().amax(1)
    if away.max() > _MAX_SPREAD * away.median() > 0:
        raise _too_far(frames[int(away.argmax())], f"more than {_MAX_SPREAD:g} times as far away as others")


def _too_far(frame: Frame, how: str = "farther than numbers go") -> UserError:
    return UserError(f"{frame.where}: the camera is too far away: its position is {frame.pose[:, 3].tolist()}, {how}")


def _box(scene_scale: float) -> Tensor:
    """The similarity [3, 4] from the cube [-1, 1]^3 to that of an object."""
    return F.pad(_AXES * _OBJECT_SIDE * scene_scale, (0, 1))


def _surroundings(poses: Tensor, scene_scale: float) -> Tensor:
    """The similarity [3, 4] from scene to file for cameras [N, 3, 4]: what they look at becomes the origin.

    That is the point nearest to all optical axes by least squares; the farthest camera is then at distance
    1 / scene_scale.
    """
    position, axis = poses[:, :, 3], F.normalize(poses[:, :, 2], dim=1)
    across = _AXES - axis[:, :, None] * axis[:, None]  # projections off the axes
    # Parallel axes meet nowhere: then the point is pulled to the cameras' middle.
    matrix = across.mean(0) + 1e-6 * _AXES
    target = (across @ position[:, :, None]).mean(0)[:, 0] + 1e-6 * position.mean(0)
    centre = torch.linalg.solve(matrix, target)
    radius = (position - centre).norm(dim=1).max().clamp(min=1e-6) * scene_scale
    return torch.cat((radius * _AXES, centre[:, None]), 1)


def _into_scene(poses: Tensor, to_file: Tensor) -> Tensor:
    """Cameras [N, 3, 4] of the file in scene coordinates."""
    position = (poses[:, :, 3] - to_file[:, 3]) / to_file[0, 0]
    return torch.cat((poses[:, :, :3], position[:, :, None]), 2)
