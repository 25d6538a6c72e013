"""The built-in training sets: images of procedurally made coloured shapes, seen from random sides.

Seven classes of solids, or a family of things (`families`), of random sizes and colours, lit from the camera by
(n . l + 1) / 2, premultiplied on black, averaged over 2 x 2 samples per pixel. The images of a seed are the same on
any number of threads.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import cameras
from sdfgan.data.families import FAMILIES, uniform, vivid
from sdfgan.fields import AnalyticField, Box, Cone, Cylinder, Ellipsoid, RoundedBox, SmoothUnion, Torus
from sdfgan.fields.analytic import vector_length
from sdfgan.training.files import PARTIAL, share

SHAPE_CLASSES = ("ellipsoid", "box", "rounded_box", "cylinder", "cone", "torus", "compound")
SHAPE_FAMILIES = {"solids": SHAPE_CLASSES, **{name: tuple(classes) for name, classes in FAMILIES.items()}}
DEFAULT_POSES = cameras.Uniform(elevation=(math.radians(10), math.radians(30)), azimuth=(0.0, 2 * math.pi))

_VERSION = 2  # part of the cache key: raise it when the images of a seed change
_RAYS_PER_CHUNK = 2**18  # a constant, so that chunks do not depend on the number of threads
_MAX_STEPS = 96
_DAY = 86400.0  # seconds
_BALL = 0.97  # every shape fits into a ball of this radius
_log = logging.getLogger(__name__)


class ShapeSet(NamedTuple):
    """Images and what they show."""

    images: Tensor  # [N, 4, H, W] uint8, premultiplied RGBA
    labels: Tensor  # [N] int64, index into SHAPE_FAMILIES[family]


class _Chunk(NamedTuple):
    """Some images of one class, to be rendered together."""

    field: AnalyticField
    bound: Tensor  # [B] radius of a ball around the origin that holds the shape
    elevation: Tensor  # [B]
    azimuth: Tensor  # [B]


# ----------------------------------------------------------------------------------------------------- shapes


def _sizes(n: int, generator: torch.Generator, *ranges: tuple[float, float]) -> Tensor:
    return torch.stack([uniform(n, low, high, generator) for low, high in ranges], -1)  # [n, len(ranges)]


def _box_size(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half sizes [n, 3] of boxes within the ball, and their half diagonals [n]."""
    half_size = _sizes(n, generator, (0.28, 0.58), (0.28, 0.6), (0.28, 0.58))
    half_size = half_size * (_BALL / half_size.norm(dim=-1, keepdim=True)).clamp(max=1)
    return half_size, half_size.norm(dim=-1)


def _compound(n: int, generator: torch.Generator, on_cylinder: bool) -> tuple[AnalyticField, Tensor]:
    """An upright ellipsoid grown together with a cylinder or a rounded box below it, in two colours."""
    fillet = 0.12
    foot = _sizes(n, generator, (0.22, 0.55), (0.12, 0.3), (0.22, 0.55))
    drop = uniform(n, 0.28, 0.38, generator)
    radii = _sizes(n, generator, (0.2, 0.4), (0.25, 0.45), (0.2, 0.4))
    rounding = uniform(n, 0.08, 0.12, generator)
    across = foot[:, 0] if on_cylinder else foot[:, [0, 2]].norm(dim=-1)
    below, above = torch.hypot(across, drop + foot[:, 1]), 0.7 * drop + radii.amax(-1)
    bound = torch.maximum(below, above) + fillet / 4
    shrink = (_BALL / bound).clamp(max=1)
    foot, radii = foot * shrink[:, None], radii * shrink[:, None]
    drop, rounding = drop * shrink, rounding * shrink
    down = torch.zeros(n, 3)
    down[:, 1] = -drop
    base = Cylinder(foot[:, 0], foot[:, 1]) if on_cylinder else RoundedBox(foot, rounding)
    top = Ellipsoid(radii).translated(-0.7 * down).coloured(vivid(n, generator))
    return SmoothUnion(base.translated(down).coloured(vivid(n, generator)), top, fillet), bound.clamp(max=1)


def random_shapes(
    name: str, n: int, generator: torch.Generator, *, on_cylinder: bool = True
) -> tuple[AnalyticField, Tensor]:
    """`n` random shapes of one class, as one field with a row of parameters per image.

    Args:
        name: a class of any family of SHAPE_FAMILIES.
        generator: a CPU generator.
        on_cylinder: whether compounds stand on cylinders or on rounded boxes.

    Returns:
        The coloured field, and the radius [n] of a ball around the origin that holds each shape.
    """
    made = next((classes[name] for classes in FAMILIES.values() if name in classes), None)
    if made is not None:
        return made(n, generator, name)
    if name not in SHAPE_CLASSES:
        known = ", ".join(name for classes in SHAPE_FAMILIES.values() for name in classes)
        raise ValueError(f"random_shapes: name must be one of {known}, got {name!r}")
    field: AnalyticField
    if name == "ellipsoid":
        radii = _sizes(n, generator, (0.28, 0.7), (0.28, 0.7), (0.28, 0.7))
        field, bound = Ellipsoid(radii), radii.amax(-1)
    elif name == "box":
        half_size, bound = _box_size(n, generator)
        field = Box(half_size)
    elif name == "rounded_box":
        half_size, bound = _box_size(n, generator)
        field = RoundedBox(half_size, uniform(n, 0.08, 0.2, generator))
    elif name == "cylinder":
        radius, half_height = _sizes(n, generator, (0.22, 0.55), (0.25, 0.65)).unbind(-1)
        field, bound = Cylinder(radius, half_height), torch.hypot(radius, half_height)
    elif name == "cone":
        radius, half_height = _sizes(n, generator, (0.35, 0.6), (0.35, 0.62)).unbind(-1)
        field, bound = Cone(radius, torch.full((n,), 0.03), half_height), torch.hypot(radius, half_height)
    elif name == "torus":
        major, minor = _sizes(n, generator, (0.38, 0.58), (0.12, 0.24)).unbind(-1)
        field, bound = Torus(major, minor), major + minor
    else:
        return _compound(n, generator, on_cylinder)
    return field.coloured(vivid(n, generator)), bound


# -------------------------------------------------------------------------------------------------- rendering


def _trace(chunk: _Chunk, side: int, fov: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sphere-traces a chunk at side x side rays: ray ids [K], points [3, K] and image rows [K] of all hits.

    Vectors are kept as [3, K], so that each component is contiguous: the fields' arithmetic is by component.
    """
    axes = cameras.rotate_axes((chunk.elevation, chunk.azimuth))  # [B, 3, 3]
    distance, rays_per_image = cameras.camera_distance(fov), side * side
    # An orbit camera's rays are those of the camera on +z, rotated.
    grid = cameras.ray_grid(torch.eye(3)[None], side, fov=fov)[1].view(rays_per_image, 3)
    closest = -distance * grid[:, 2]  # [S] where a ray is closest to the origin
    half = closest.square() - distance**2 + chunk.bound[:, None].square()  # [B, S] half chord^2
    ray = (half.flatten() > 0).nonzero().squeeze(1)
    image, pixel = ray // rays_per_image, ray % rays_per_image
    half, closest = half.flatten().index_select(0, ray).sqrt(), closest.index_select(0, pixel)
    t, far = closest - half, closest + half
    origin = (axes[:, 2] * distance).T.contiguous().index_select(1, image)  # [3, K]
    direction = torch.einsum("bij,si->jbs", axes, grid).flatten(1).index_select(1, ray)
    threshold = 0.25 / side  # an eighth of a sample's width
    done = []
    for step in range(_MAX_STEPS):
        points = origin + t * direction
        value = chunk.field.sdf(points.T, image=image)
        if step % 4 == 3:  # dropping rays costs about as much as a step
            hit = value <= threshold
            ended = hit.nonzero().squeeze(1)
            done.append([v.index_select(-1, ended) for v in (ray, points, image)])
            alive = ((t < far) & ~hit).nonzero().squeeze(1)
            if len(alive) == 0:
                break
            state = (ray, image, origin, direction, t, far, value)
            ray, image, origin, direction, t, far, value = (v.index_select(-1, alive) for v in state)
        t = t + value  # even an ellipsoid's bound is below the distance outside
    ray, points, image = (torch.cat(parts, -1) for parts in zip(*done, strict=True))
    return ray, points, image


@torch.no_grad()
def _render(chunk: _Chunk, resolution: int, samples: int, fov: float) -> Tensor:
    """Images [B, 4, resolution, resolution] uint8 of a chunk."""
    side, count = resolution * samples, len(chunk.bound)
    ray, points, image = _trace(chunk, side, fov)
    order = image.argsort(stable=True)  # fields may rely on sorted images
    ray, points, image = ray[order], points[:, order], image[order]
    _, gradient = chunk.field.sdf_and_gradient(points.T, image=image)
    light = cameras.rotate_axes((chunk.elevation, chunk.azimuth))[:, 2].index_select(0, image)  # [K, 3]
    illumination = ((gradient * light).sum(-1) / vector_length(gradient) + 1) / 2
    canvas = torch.zeros(4, count * side * side)
    canvas[:3, ray] = illumination * chunk.field.rgb(points.T, image=image).T
    canvas[3, ray] = 1.0
    images = F.avg_pool2d(canvas.view(4, count, side, side), samples)
    return (images * 255).round_().to(torch.uint8).transpose(0, 1)


def _chunks(
    count: int, rays_per_image: int, poses: cameras.PoseDistribution, generator: torch.Generator, family: str
) -> Iterator[tuple[int, _Chunk]]:
    """The random shapes and poses of `count` images, class by class, with the label of each chunk."""
    names = SHAPE_FAMILIES[family]
    most = max(1, _RAYS_PER_CHUNK // rays_per_image)
    for label, name in enumerate(names):
        wanted = len(range(label, count, len(names)))
        size = most if name != "compound" else min(most, wanted // 2 + 1)  # so that both kinds occur
        for index, start in enumerate(range(0, wanted, size)):
            n = min(size, wanted - start)
            field, bound = random_shapes(name, n, generator, on_cylinder=index % 2 == 0)
            yield label, _Chunk(field, bound, *poses.sample(n, generator))


def render_shapes(
    count: int,
    resolution: int,
    *,
    seed: int = 0,
    poses: cameras.PoseDistribution = DEFAULT_POSES,
    samples: int = 2,
    fov: float = cameras.DEFAULT_FOV,
    family: str = "solids",
    on_progress: Callable[[int, int], None] | None = None,
) -> ShapeSet:
    """Renders `count` images of random shapes of a family on the CPU, in shuffled order, equally many of each class.

    Args:
        resolution: pixels per side; `samples` x `samples` rays per pixel.
        seed: the same seed gives the same images, whatever the number of threads (torch.get_num_threads()).
        poses: where the orbit cameras are; azimuth all round and elevation 10 to 30 degrees by default.
        fov: field of view in radians.
        family: a key of SHAPE_FAMILIES.
        on_progress: called with (images done, count) from the calling thread.
    """
    if count < 0 or resolution < 1 or samples < 1:
        raise ValueError(
            f"render_shapes: count must be >= 0, resolution and samples >= 1, got {count}, {resolution} and {samples}"
        )
    generator = torch.Generator().manual_seed(seed)
    chunks = list(_chunks(count, (resolution * samples) ** 2, poses, generator, family))
    images = torch.empty(count, 4, resolution, resolution, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.int64)
    threads, done = torch.get_num_threads(), 0
    # One thread of torch in each worker: chunks are small, and torch sets its number of threads per process.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            rendered = pool.map(lambda chunk: _render(chunk[1], resolution, samples, fov), chunks)
            for (label, _), some in zip(chunks, rendered, strict=True):
                images[done : done + len(some)] = some
                labels[done : done + len(some)] = label
                done += len(some)
                if on_progress is not None:
                    on_progress(done, count)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
    order = torch.randperm(count, generator=generator)
    return ShapeSet(images[order], labels[order])


# ------------------------------------------------------------------------------------------------------ cache


def default_cache_folder() -> Path:
    if "SDFGAN_CACHE" in os.environ:
        return Path(os.environ["SDFGAN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdfgan"


def _read(path: Path, count: int, resolution: int) -> ShapeSet | None:
    """The set in a cache file, or None where there is none or it is damaged (the archive holds checksums)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _log.warning("%s: damaged (%s), making it again", path, error)
        return None
    if images.shape != (count, 4, resolution, resolution) or images.dtype != np.uint8 or labels.shape != (count,):
        _log.warning("%s: not the expected set, making it again", path)
        return None
    return ShapeSet(torch.from_numpy(images), torch.from_numpy(labels))


def _write(path: Path, shapes: ShapeSet) -> None:
    """Writes a cache file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.stem}*{PARTIAL}"):  # of a process that was killed
        with suppress(FileNotFoundError):  # as soon as its process is done with it
            if time.time() - old.stat().st_mtime > _DAY:
                old.unlink()
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, images=shapes.images.numpy(), labels=shapes.labels.numpy())
            file.flush()
            os.fsync(file.fileno())
        share(Path(partial))
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def shape_set(
    count: int,
    resolution: int,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    family: str = "solids",
    on_progress: Callable[[int, int], None] | None = None,
) -> ShapeSet:
    """`render_shapes(count, resolution, seed=seed, family=family)`, kept on disk for the next time.

    The cache is `cache_dir`, or $SDFGAN_CACHE, or `sdfgan` in $XDG_CACHE_HOME or ~/.cache. A damaged file is
    made again; where nothing can be written, a RuntimeWarning says so and the set is returned all the same.
    """
    folder = default_cache_folder() if cache_dir is None else Path(cache_dir)
    kind = "shapes" if family == "solids" else family
    path = folder / f"{kind}-v{_VERSION}-{resolution}px-{count}-seed{seed}.npz"
    shapes = _read(path, count, resolution)
    if shapes is not None:
        return shapes
    shapes = render_shapes(count, resolution, seed=seed, family=family, on_progress=on_progress)
    try:
        _write(path, shapes)
    except OSError as error:
        warnings.warn(f"shape_set: cannot keep the images in {path}: {error}", RuntimeWarning, stacklevel=2)
    return shapes
