"""The commands: where their settings and functions are, and examples of them."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A sub-command: a function of a configuration, whose fields are the flags. Both are named by `module:name`."""

    summary: str
    config: str  # a module that imports nothing slow
    function: str
    examples: tuple[tuple[str, str], ...]  # arguments, and what they do

    def load_config(self) -> type:
        """The type of the configuration."""
        found: type = pkgutil.resolve_name(self.config)
        return found

    def load_function(self) -> Callable[[Any], Any]:
        """What does it, with all that it needs."""
        found: Callable[[Any], Any] = pkgutil.resolve_name(self.function)
        return found


COMMANDS = {
    "train-gan": Command(
        "Learn 3D shapes from pictures alone.",
        "sdfgan.gan.config:GanConfig",
        "sdfgan.gan:train",
        (
            ("", "the built-in set of coloured solids, about nine minutes on two CPU cores"),
            ("--data photos/ --background 1 1 1", "your own pictures, on white"),
            ("--data renders.zip --resolution 64 --output-dir runs/mine", "a zip of pictures with alpha"),
            ("--curriculum growing", "finer pictures: 32, 64, then 128 pixels; or a JSON file of your own"),
            ("--resume runs/gan-001", "continue where a run was stopped"),
        ),
    ),
    "train-nerf": Command(
        "Learn one scene from posed pictures: NeRF and its family.",
        "sdfgan.nerf.config:NerfConfig",
        "sdfgan.nerf:train",
        (
            ("--data lego/", "a hash grid: minutes on a CPU; Blender's format, transforms.json or COLMAP"),
            ("--data garden/ --image-scale 0.25 --render-depth", "photographs, reduced; also a video of depth"),
            ("--data helmet/ --model ref-nerf --render-normal", "reflections; nerf, mip-nerf, mip-nerf-360 likewise"),
            ("--resume runs/nerf-001", "continue where a run was stopped"),
        ),
    ),
    "train-sdf": Command(
        "A mesh, or each mesh of a folder, as a neural signed-distance field.",
        "sdfgan.sdf.config:SdfConfig",
        "sdfgan.cli.train_sdf:run",
        (
            ("part.stl", "the medium preset: a model and a mesh made from it, in seconds"),
            (
                "part.stl --preset high --show-vis 1 --output-dir runs/part",
                "finer, with slices, error maps and a video",
            ),
            ("parts/ --preset low --output-dir runs/parts", "every mesh of a folder; run it again to go on"),
            ("part.stl --dam-arch 1 --scaler PowerTransformer", "the network of Neural Implicit Tools"),
            ("--resume runs/part", "continue where a run was stopped"),
        ),
    ),
    "render": Command(
        "Pictures and turntable videos of a trained generator's shapes.",
        "sdfgan.cli.flags:RenderConfig",
        "sdfgan.cli.render:run",
        (
            ("runs/gan-001", "a grid: one shape per row, seen from six sides"),
            ("runs/gan-001 --mode turntable --seeds 0-8 --frames 120", "a video of nine turning shapes"),
            ("runs/gan-001 --mode images --seeds 0-99 --psi 0.7", "a hundred typical shapes as files"),
            ("runs/gan-001 --mode normals --seeds 3,5 --output normals.png", "surface normals of two shapes"),
        ),
    ),
    "interpolate": Command(
        "A video in which one shape becomes the next.",
        "sdfgan.cli.flags:InterpolateConfig",
        "sdfgan.cli.interpolate:run",
        (
            ("runs/gan-001 --seeds 0,3,5", "from shape 0 to 3 to 5 and back"),
            ("runs/gan-001 --space z --turns 0 --frames 48", "in the space of latents, from one side"),
        ),
    ),
    "invert": Command(
        "The shape and the camera behind a picture.",
        "sdfgan.cli.flags:InvertConfig",
        "sdfgan.cli.invert:run",
        (
            ("runs/gan-001 photo.png", "mesh, videos and codes of what is in a picture with alpha"),
            ("runs/gan-001 photo.jpg --background 1 1 1 --starts 16", "on white, trying harder"),
        ),
    ),
    "evaluate": Command(
        "Distances of a trained generator's pictures and shapes to real ones.",
        "sdfgan.cli.flags:EvaluateConfig",
        "sdfgan.cli.evaluate:run",
        (
            ("runs/gan-001", "sliced-Wasserstein distance; with Inception weights at hand FID, KID, precision, recall"),
            ("runs/gan-001 --shapes 105 --images 5000", "also MMD, coverage and 1-NNA of its shapes"),
        ),
    ),
    "dataset check": Command(
        "Read a set of images, and report what is there and what is bad.",
        "sdfgan.cli.flags:CheckConfig",
        "sdfgan.cli.dataset:run",
        (("photos/", "read everything, report what is bad"),),
    ),
    "dataset preview": Command(
        "A sheet of a set's images as training sees them.",
        "sdfgan.cli.flags:PreviewConfig",
        "sdfgan.cli.dataset:run",
        (("photos.zip sheet.png", "64 images"),),
    ),
    "dataset convert": Command(
        "Resize and crop a set of images to a zip, tar or folder for training.",
        "sdfgan.cli.flags:ConvertConfig",
        "sdfgan.cli.dataset:run",
        (
            (
                "ShapeNet/03001627 chairs.zip --resolution 64 --views-per-object 4",
                "ShapeNet renderings as a zip",
            ),
        ),
    ),
    "dataset render": Command(
        "Render a training set from meshes: random views, poses, labels, objects held out.",
        "sdfgan.cli.flags:RenderSetConfig",
        "sdfgan.cli.dataset_render:run",
        (
            ("chairs/ chairs.zip", "24 views of 64 x 64 pixels of each mesh in a folder"),
            ("scans/ scans.zip --views 100 --resolution 128 --light random --held-out 0.1 --up z", "a larger set"),
        ),
    ),
    "import-weights": Command(
        "Use a generator that dfr or pi-GAN trained.",
        "sdfgan.cli.flags:ImportWeightsConfig",
        "sdfgan.cli.import_weights:run",
        (
            ("generator.safetensors runs/imported", "then: sdfgan extract-mesh runs/imported"),
            ("faces.pth runs/faces --curriculum celeba", "a pi-GAN, and the cameras it was trained with"),
        ),
    ),
    "extract-mesh": Command(
        "Coloured meshes (GLB, OBJ, PLY, STL) or volumes (.mrc) of a trained generator's shapes.",
        "sdfgan.cli.flags:ExtractMeshConfig",
        "sdfgan.cli.extract_mesh:run",
        (
            ("runs/gan-001", "three meshes for any 3D viewer"),
            ("runs/gan-001 --seeds 0-999 --format stl", "a thousand shapes"),
            ("runs/gan-001 --seeds 7 --mesh-resolution 256 --format ply", "one shape, finer"),
        ),
    ),
    "fit-image": Command(
        "Inverse rendering: fit a field to pictures of a mesh, or a scene's parameters to its pictures.",
        "sdfgan.inverse.config:FitImageConfig",
        "sdfgan.inverse:train",
        (
            ("model.obj --minutes 10", "24 views of a mesh, fitted by a network: pictures, video, mesh, metrics"),
            ("csg", "pose, sizes, colours and blend of two balls, from a wrong start"),
        ),
    ),
    "info": Command(
        "Versions, the native build, threads and devices.",
        "sdfgan.cli.flags:InfoConfig",
        "sdfgan.cli.info:run",
        (("", "to read"), ("--json", "for programs")),
    ),
}
