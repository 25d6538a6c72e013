"""What `growth.py` measures: each curve is one thing, done at growing sizes."""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from memory import high_water, resident
from sdfgan import cameras, ops, raycast
from sdfgan.data.archives import Entry
from sdfgan.data.images import decode
from sdfgan.data.layouts import open_data
from sdfgan.errors import UserError
from sdfgan.fields import Cylinder, FilmSirenSDF, Sphere, Torus
from sdfgan.gan import GanConfig
from sdfgan.gan.batches import Batches
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob
from sdfgan.meshes import marching_cubes, read_mesh
from sdfgan.training.ranks import Ranks, process_group
from torus import torus

_QUERIES = 100_000
_SHARD = 1000  # images of a shard
_SOLID = (Sphere(0.6) - Cylinder(0.25, 1.0)) | Torus(0.62, 0.16)
Record = dict[str, Any]
Run = Callable[[], Any]


@dataclass(frozen=True)
class Curve:
    """One thing, done at growing sizes."""

    about: str
    axis: str
    values: tuple[int, ...]
    make: Callable[[int], Run]  # what is not timed, and gives what is
    quick: int = 2  # values that --quick takes
    threads: bool = False  # they are the axis: the clock is the wall's, in a Python of its own
    examine: Callable[[Any], Record] = lambda _: {}  # further numbers, or others, from what the first run gave


def together(tasks: list[Callable[[], Record]], method: str = "fork") -> Iterator[Record]:
    """What each of some tasks gives, in a process of its own, all at once. Raises UserError where one dies."""
    context = multiprocessing.get_context(method)
    begun = []
    for task in tasks:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_tell, args=(task, there))
        process.start()
        there.close()
        begun.append((process, here))
    for process, here in begun:
        try:
            result = here.recv()
        except EOFError:
            process.join()
            raise UserError(f"a process ended with status {process.exitcode} (-9: it was out of memory)") from None
        process.join()
        if isinstance(result, Exception):
            raise result
        yield result


def _tell(task: Callable[[], Record], there: Connection) -> None:
    try:
        there.send(task())
    except Exception as error:
        there.send(error)


# ----------------------------------------------------------------------------------------------------------- rendering


def _network(width: int, layers: int) -> FilmSirenSDF:
    torch.manual_seed(0)
    return FilmSirenSDF(width=width, trunk_layers=layers - 1, sdf_layers=1, latent_size=16)


def _views(images: int) -> tuple[Tensor, Tensor]:
    angles = torch.linspace(-0.4, 0.9, images), torch.linspace(0, 6, images)
    return cameras.rotate_axes(angles), torch.randn(images, 16, generator=torch.Generator().manual_seed(0))


def multiscale(images: int = 4, side: int = 64, width: int = 64, layers: int = 4) -> Run:
    field, (axes, latents) = _network(width, layers), _views(images)
    return lambda: raycast.multiscale(axes, (side // 4, 4), latents, field)


def _render(images: int = 4, side: int = 64, width: int = 64, layers: int = 4) -> Run:
    field, (axes, latents) = _network(width, layers), _views(images)

    def run() -> None:
        raycast.render(sdf=field, axes=axes, latents=latents, resolution=side).rgba.square().mean().backward()
        field.zero_grad()

    return run


def gan_step(side: int = 32, batch: int = 16, **options: Any) -> Run:
    job = _gan(side, batch, **options)
    job.step()  # the only one of the first eight with R1
    return job.step


def _gan(side: int, batch: int, ranks: Any = None, **options: Any) -> GanJob:
    config = GanConfig(device="cpu", resolution=side, batch_size=batch, **options)
    images = torch.randint(256, (64, 4, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return GanJob(config.resolved(), TrainingData.of(images), ranks)


def _threaded(make: Callable[[], Run], threads: int) -> Run:
    torch.set_num_threads(threads)
    return make()


# -------------------------------------------------------------------------------------------------------------- meshes


def _torus(faces: int) -> tuple[Tensor, Tensor]:
    around = round(faces**0.5)
    return torus(around, max(3, round(faces / 2 / around)))


def _tree(faces: int) -> Run:
    return partial(ops.mesh_tree, *_torus(faces))


def _distances(faces: int) -> Run:
    tree, random = _tree(faces)(), torch.Generator().manual_seed(0)
    near = tree.vertices[torch.randint(len(tree.vertices), (_QUERIES,), generator=random)]
    return partial(ops.mesh_distance, tree, near + 0.02 * torch.randn(_QUERIES, 3, generator=random))


def _reading(suffix: str, faces: int) -> Run:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, f"torus{suffix}")
    _WRITERS[suffix](path, *(part.numpy() for part in _torus(faces)))
    kept = folder  # until this process ends
    return lambda: (kept, read_mesh(path))


def _write_ply(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, faces
    path.write_bytes(head.encode() + vertices.astype("<f4").tobytes() + rows.tobytes())


def _write_stl(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    rows = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["corners"] = vertices[faces]
    path.write_bytes(bytes(80) + len(faces).to_bytes(4, "little") + rows.tobytes())


def _write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    with path.open("w") as file:
        np.savetxt(file, vertices, "v %.6f %.6f %.6f")
        np.savetxt(file, faces + 1, "f %d %d %d")


_WRITERS = {".ply": _write_ply, ".stl": _write_stl, ".obj": _write_obj}


def _extraction(cells: int) -> Run:
    return lambda: marching_cubes(_SOLID, resolution=cells)


# -------------------------------------------------------------------------------------------- training sets, processes


def _opening(images: int) -> Run:
    """A folder of WebDataset shards, all of which are links to one."""
    folder = tempfile.TemporaryDirectory()
    root, kept = Path(folder.name), folder
    pictures, first = root / "pictures", root / "set" / "shard-0000000.tar"
    pictures.mkdir()
    first.parent.mkdir()
    random = np.random.default_rng(0)
    with tarfile.open(first, "w", format=tarfile.USTAR_FORMAT) as shard:
        for index in range(min(images, _SHARD)):
            path = pictures / f"{index:05d}.png"
            Image.fromarray(random.integers(256, size=(32, 32, 4), dtype=np.uint8)).save(path)
            shard.add(path, path.name)
    for number in range(1, images // _SHARD):
        os.link(first, first.with_name(f"shard-{number:07d}.tar"))
    return lambda: (kept, open_data(first.parent, 32, cache="none"))


def _batches(answer: Any) -> Record:
    """What a batch of 64 of the images takes that have been opened, from wherever they are."""
    images, times = answer[1].images, []
    for seed in range(6):
        chosen = torch.randint(len(images), (64,), generator=torch.Generator().manual_seed(seed))
        begin = time.process_time()
        images.batch(chosen, 32)
        times.append(time.process_time() - begin)
    return {"batch_s": statistics.median(times[1:])}


TINY = {
    "chunk_size": 2, "width": 16, "mapping_width": 16, "latent_size": 8, "march_steps": 12,
    "discriminator_channels": 8, "discriminator_max_channels": 16,
}  # fmt: skip


def _processes(count: int) -> Run:
    """Steps of a tiny GAN in processes that talk by gloo; each tells what its steps took."""

    def run() -> list[Record]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return list(together([partial(_rank, rank, count, port) for rank in range(count)]))

    return run


def _rank(rank: int, count: int, port: int) -> Record:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    before = resident()
    with process_group(torch.device("cpu")) as ranks:
        job = _gan(16, 16, ranks, **TINY)
        job.step()
        begin = time.process_time()
        for _ in range(6):
            job.step()
        return {"step": (time.process_time() - begin) / 6, "bytes": high_water() - before}


def _whole_step(answer: list[Record]) -> Record:
    """All processes' time of a step, and the memory of one."""
    largest = max(result["bytes"] for result in answer)
    return {"median_s": sum(result["step"] for result in answer), "rounds": 6, "megabytes": largest / 2**20}


def _drawing(batch: int) -> Run:
    """What each of batch / 32 processes draws of a step: all latents, cameras and points; it takes its share."""
    job = _gan(64, batch)
    batches = Batches(job.config, job.random, job.device, Ranks(0, max(1, batch // 32)))
    return lambda: batches.fakes(job.generator, job.poses)


def _decoding(side: int) -> Run:
    """Sixteen PNG files of images with alpha, rendered with 64 x 64 pixels and enlarged, are read as 64 x 64."""
    axes = cameras.rotate_axes((torch.full((16,), 0.4), torch.linspace(0, 6, 16)))
    image = (raycast.render(sdf=_SOLID, axes=axes, resolution=64).rgba * 255).byte().movedim(1, 3)
    files = []
    for pixels in image.numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).resize((side, side)).save(file, "png")
        files.append(file.getvalue())
    entries = [Entry(f"{number}.png", partial(io.BytesIO, data)) for number, data in enumerate(files)]

    def run() -> Record:
        decoded = [decode(entry, 64) for entry in entries]
        if any(isinstance(one, str) for one in decoded):
            raise RuntimeError(f"an image that was just written cannot be read: {decoded}")
        return {"images": len(files), "bytes": sum(map(len, files)) / len(files)}

    return run


_BATCHES, _SIDES, _WIDTHS, _LAYERS = (1, 2, 4, 8, 16, 32), (32, 64, 128, 256, 512), (32, 64, 128, 256), (2, 4, 8, 16)
_FACES = tuple(10**power for power in range(3, 8))
CURVES = {
    "multiscale images": Curve("trace 64 x 64", "images", _BATCHES, lambda x: multiscale(images=x)),
    "multiscale side": Curve("trace 4 images", "pixels a side", _SIDES, lambda x: multiscale(side=x)),
    "multiscale width": Curve("trace 4 x 64 x 64", "width", _WIDTHS, lambda x: multiscale(width=x)),
    "multiscale layers": Curve("trace 4 x 64 x 64", "layers", _LAYERS, lambda x: multiscale(layers=x)),
    "render images": Curve("image with gradient, 64 x 64", "images", _BATCHES, lambda x: _render(images=x)),
    "render side": Curve("4 images with gradient", "pixels a side", _SIDES, lambda x: _render(side=x)),
    "render width": Curve("4 x 64 x 64 with gradient", "width", _WIDTHS, lambda x: _render(width=x)),
    "render layers": Curve("4 x 64 x 64 with gradient", "layers", _LAYERS, lambda x: _render(layers=x)),
    "gan side": Curve("step of a GAN, 8 images", "pixels a side", (16, 32, 64, 128), lambda x: gan_step(x, 8)),
    "gan batch": Curve("step of a GAN, 32 x 32", "images", (4, 8, 16, 32, 64), lambda x: gan_step(32, x)),
    "threads multiscale": Curve(
        "trace 16 x 64 x 64", "threads", (1, 2), partial(_threaded, partial(multiscale, 16)), threads=True
    ),
    "threads render": Curve(
        "16 x 64 x 64 with gradient", "threads", (1, 2), partial(_threaded, partial(_render, 16)), threads=True
    ),
    "threads gan": Curve("step of a GAN, 16 x 32 x 32", "threads", (1, 2), partial(_threaded, gan_step), threads=True),
    "mesh tree": Curve("`mesh_tree`", "faces", _FACES, _tree),
    "mesh distance": Curve("`mesh_distance` of 100,000 points", "faces", _FACES, _distances),
    "read ply": Curve("read a binary PLY", "faces", _FACES, partial(_reading, ".ply")),
    "read stl": Curve("read a binary STL", "faces", _FACES, partial(_reading, ".stl")),
    "read obj": Curve("read an OBJ", "faces", _FACES[:-1], partial(_reading, ".obj")),
    "grid": Curve("`marching_cubes`", "cells a side", (64, 128, 256, 512, 1024), _extraction),
    "set": Curve(
        "open WebDataset shards", "images", tuple(10**power for power in range(3, 7)), _opening, examine=_batches
    ),
    "decode": Curve(
        "decode 16 PNG files as 64 x 64", "pixels a side", (64, 128, 256, 512), _decoding, examine=lambda result: result
    ),
    "draw": Curve(
        "draw what a step of a GAN is made of, in each process", "images of all processes", (32, 256, 2048), _drawing
    ),
    "processes": Curve("tiny step of a GAN, all processes", "processes", (1, 2, 4, 8), _processes, examine=_whole_step),
}
