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
        "Train a GAN that learns 3D shapes from images alone.",
        "sdfgan.gan.config:GanConfig",
        "sdfgan.gan:train",
        (
            ("", "the built-in set of chairs, five to nine minutes on two CPU cores"),
            ("--data photos/ --background 1 1 1", "your own images, on white"),
            ("--data renders.zip --resolution 64 --output-dir runs/mine", "a zip of images with alpha"),
            ("--curriculum growing", "growing resolution: 32, 64, then 128 pixels; or a JSON file of your own"),
            ("--resume runs/gan-001", "continue a run"),
        ),
    ),
    "train-nerf": Command(
        "Train a radiance field of one scene from posed images: NeRF and its successors.",
        "sdfgan.nerf.config:NerfConfig",
        "sdfgan.nerf:train",
        (
            ("--data lego/", "a hash grid: minutes on a CPU; Blender's format, transforms.json or COLMAP"),
            ("--data garden/ --image-scale 0.25 --render-depth", "photographs, reduced; also a video of depth"),
            ("--data helmet/ --model ref-nerf --render-normal", "reflections; also nerf, mip-nerf, mip-nerf-360"),
            ("--resume runs/nerf-001", "continue a run"),
        ),
    ),
    "train-sdf": Command(
        "Fit a neural signed-distance field to a mesh, or to each mesh of a folder.",
        "sdfgan.sdf.config:SdfConfig",
        "sdfgan.cli.train_sdf:run",
        (
            ("part.stl", "the medium preset: a model and a mesh made from it, in seconds"),
            (
                "part.stl --preset high --show-vis 1 --output-dir runs/part",
                "finer, with slices, error maps and a video",
            ),
            ("parts/ --preset low --output-dir runs/parts", "every mesh of a folder; run it again to continue"),
            ("part.stl --dam-arch 1 --scaler PowerTransformer", "the network of Neural Implicit Tools"),
            ("--resume runs/part", "continue a run"),
        ),
    ),
    "render": Command(
        "Render images and turntable videos of what a run has learned.",
        "sdfgan.cli.flags:RenderConfig",
        "sdfgan.cli.render:run",
        (
            ("runs/gan-001", "a grid: one shape per row, seen from six sides"),
            ("runs/gan-001 --mode turntable --seeds 0-8 --frames 120", "a video of nine turning shapes"),
            ("runs/gan-001 --mode images --seeds 0-99 --psi 0.7", "a hundred typical shapes as files"),
            ("runs/gan-001 --show normals --seeds 3,5 --output normals.png", "surface normals of two shapes"),
            ("runs/gan-001 --mode mix --seeds 0-3 --texture-seeds 4-9", "shapes with the colours of others"),
            ("runs/sdf-001 --mode turntable", "a video of what train-sdf learned, or train-nerf"),
        ),
    ),
    "interpolate": Command(
        "Make a video that interpolates between shapes.",
        "sdfgan.cli.flags:InterpolateConfig",
        "sdfgan.cli.interpolate:run",
        (
            ("runs/gan-001 --seeds 0,3,5", "from shape 0 to 3 to 5 and back"),
            ("runs/gan-001 --space z --turns 0 --frames 48", "in latent space, from a fixed camera"),
        ),
    ),
    "invert": Command(
        "Find the shape and the camera of an image (GAN inversion).",
        "sdfgan.cli.flags:InvertConfig",
        "sdfgan.cli.invert:run",
        (
            ("runs/gan-001 photo.png", "mesh, videos and FiLM codes of the object in an image with alpha"),
            ("runs/gan-001 photo.jpg --background 1 1 1 --starts 16", "on white, from more starting points"),
        ),
    ),
    "evaluate": Command(
        "Measure how far a trained generator's images and shapes are from real ones.",
        "sdfgan.cli.flags:EvaluateConfig",
        "sdfgan.cli.evaluate:run",
        (
            ("runs/gan-001", "sliced-Wasserstein distance; with Inception weights also FID, KID, precision, recall"),
            ("runs/gan-001 --shapes 105 --images 5000", "also MMD, coverage and 1-NNA of its shapes"),
        ),
    ),
    "dataset check": Command(
        "Read a data set, and report what is in it and what is bad.",
        "sdfgan.cli.flags:CheckConfig",
        "sdfgan.cli.dataset:run",
        (("photos/", "read everything, report what is bad"),),
    ),
    "dataset preview": Command(
        "A contact sheet of a data set, as training sees it.",
        "sdfgan.cli.flags:PreviewConfig",
        "sdfgan.cli.dataset:run",
        (("photos.zip sheet.png", "64 images"),),
    ),
    "dataset convert": Command(
        "Resize and crop a data set into a zip, tar or folder for training.",
        "sdfgan.cli.flags:ConvertConfig",
        "sdfgan.cli.dataset:run",
        (("ShapeNet/03001627 chairs.zip --resolution 64 --views-per-object 4", "ShapeNet renderings as a zip"),),
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
        "Import a generator trained by dfr or pi-GAN.",
        "sdfgan.cli.flags:ImportWeightsConfig",
        "sdfgan.cli.import_weights:run",
        (
            ("generator.safetensors runs/imported", "then: sdfgan extract-mesh runs/imported"),
            ("faces.pth runs/faces --curriculum celeba", "a pi-GAN, with the cameras it was trained with"),
        ),
    ),
    "extract-mesh": Command(
        "Extract coloured meshes (GLB, OBJ, PLY, STL) or volumes (.mrc) of what a run has learned.",
        "sdfgan.cli.flags:ExtractMeshConfig",
        "sdfgan.cli.extract_mesh:run",
        (
            ("runs/gan-001", "three meshes for any 3D viewer"),
            ("runs/gan-001 --seeds 0-999 --format stl", "a thousand shapes"),
            ("runs/gan-001 --seeds 7 --mesh-resolution 256 --format ply", "one shape, finer"),
            ("runs/nerf-001 --mesh-resolution 256", "the mesh of a scene, finer than training makes it"),
        ),
    ),
    "fit-image": Command(
        "Inverse rendering: fit a field to images of a mesh.",
        "sdfgan.inverse.config:FitImageConfig",
        "sdfgan.inverse:train",
        (("model.obj --minutes 10", "a network fitted to 24 views of a mesh: images, video, mesh, metrics"),),
    ),
    "view": Command(
        "Show any result in the browser, also while it trains: turn it, change it, save images and meshes.",
        "sdfgan.cli.flags:ViewConfig",
        "sdfgan.cli.view:run",
        (
            ("runs/gan-001", "shapes of a generator; a run that is still training is followed"),
            ("part.glb", "a mesh"),
            ("runs/nerf-001 --host 0.0.0.0 --port 8000", "a scene, for everyone in the network"),
        ),
    ),
    "report": Command(
        "Write a page about a run, or one that compares several.",
        "sdfgan.cli.flags:ReportConfig",
        "sdfgan.cli.report:run",
        (
            ("runs/gan-001", "report.html in the run's folder; finished runs have one already"),
            ("runs/gan-001 runs/gan-002 --output both.html", "images, numbers and curves side by side"),
        ),
    ),
    "doctor": Command(
        "Check the installation: compiler, GPU, each kernel, speed, disk; and say what to do.",
        "sdfgan.cli.flags:DoctorConfig",
        "sdfgan.cli.doctor:run",
        (("", "a line for each finding, and a block for a bug report; status 1 if something is broken"),),
    ),
    "info": Command(
        "Show versions, the native build, threads and devices.",
        "sdfgan.cli.flags:InfoConfig",
        "sdfgan.cli.info:run",
        (("", "as text"), ("--json", "as JSON")),
    ),
}
