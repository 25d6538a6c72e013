"""Settings of the commands that do not train: as for all commands, the fields are the flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from sdfgan.errors import UserError
from sdfgan.training.config import (
    MAX_CELLS,
    MIN_CELLS,
    AtMost,
    Azimuths,
    Between,
    Colour,
    Config,
    Count,
    Device,
    Elevations,
    Faces,
    FieldOfView,
    Formerly,
    FormerValue,
    Frames,
    Frequency,
    MeshCells,
    Metavar,
    Natural,
    NearFar,
    NotNegative,
    Pixels,
    Positive,
    PowerOfTwo,
    Scale,
    Section,
    ShapesOrMeshes,
    Texels,
    VideoFormat,
    Weight,
)


@dataclass(frozen=True)
class ShapeFlags(Config):
    """Flags of every command that generates shapes from seeds."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    seeds: tuple[str, ...] = ("0-7",)
    """Seeds of the shapes: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    truncation: Annotated[float, Between(-10, 10)] = 1.0
    """Scale of the latents: below 1, shapes are more typical and less varied."""
    psi: Annotated[float, Between(-10, 10)] = 1.0
    """StyleGAN's truncation, of the mapping network's outputs: 0 is the mean shape, 0.7 a usual choice. If a run
    learned several kinds of objects, the mean lies between the kinds, and so do the truncated shapes: 1 keeps them
    apart."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Weights of the generator: the moving average, the slower one, or those of the last step."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True)
class VolumeFlags(Config):
    """Flags of every command that renders, for radiance fields (`--generator pi-gan`, imported pi-GANs)."""

    lock_view_dependence: bool = False
    """Use the colours that a radiance field has when seen from the front, wherever the camera is."""
    samples: Count = 48
    """Coarse samples along each ray of a radiance field, and as many fine ones, placed by importance."""
    ray_step_multiplier: Scale = 1.0
    """Multiplies --samples."""


@dataclass(frozen=True, kw_only=True)
class SceneFlags(Config):
    """Flags of every command that takes a run of train-nerf."""

    data: Path | None = None
    """Where the scene's folder is now, if it was moved after train-nerf."""


@dataclass(frozen=True, kw_only=True)
class MixFlags(Config):
    """Flags of every command that can give shapes other colours."""

    texture_seeds: tuple[str, ...] = ()
    """Seeds of shapes whose colours the shapes get: one for all, or one for each. Default: each has its own."""


@dataclass(frozen=True)
class CameraFlags(VolumeFlags, ShapeFlags):
    """Flags of commands that place the camera."""

    elevation: Annotated[float | None, Between(-90, 90)] = None
    """Elevation of the camera, degrees. Default: the middle of the range that the run was trained with."""
    azimuth_range: Azimuths | None = None
    """Range of the cameras' azimuths, degrees; 0 360: the full circle. Default: the range that the run was trained
    with."""


@dataclass(frozen=True)
class RenderConfig(SceneFlags, MixFlags, CameraFlags):
    """Render what a run has learned: grids, single images, videos; colours, depth or normals.

    Of a run of train-gan its shapes, one for each seed; of train-sdf its one shape; of train-nerf its scene, along the
    orbit that training ends with.
    """

    mode: Annotated[
        Literal["grid", "seeds", "images", "turntable", "orbit", "front", "mix"],
        FormerValue("depth", "--show depth"),
        FormerValue("normals", "--show normals"),
    ] = "grid"
    """grid: one row per seed, seen from several sides. seeds: one view of each. images: the same as separate files.
    Videos of all seeds: turntable goes around, or swings if the run was not trained with views from all sides; orbit
    also moves up and down; front swings to both sides. mix: style mixing, each shape with the colours of each of
    --texture-seeds (default: of --seeds), beside those that they are of."""
    show: Literal["colour", "depth", "normals"] = "colour"
    """What to render, in any mode."""
    resolution: Pixels = 256
    """Side of each image in pixels."""
    frames: Frames = 72
    """Frames of a video."""
    fps: Count = 24
    """Frames per second of a video."""
    azimuth: Annotated[float | None, Between(-360, 360)] = None
    """Azimuth of the camera in modes seeds, images and mix, degrees. Default: 30, or the middle of the azimuths of a
    run that was not trained with views from all sides. In mode front, how far it swings. Default: 30, or half of their
    range."""
    views: Annotated[int, Positive, AtMost(1000)] = 6
    """Number of views of each shape in a grid."""
    output: Path | None = None
    """File to write: .png or .jpg; videos: .mp4, .gif or .webp. Default: renders/MODE.png (videos: .mp4; images: a
    folder) in the run folder, or MODE-2.png ..."""


@dataclass(frozen=True)
class InterpolateConfig(CameraFlags):
    """Make a video that interpolates from shape to shape and back to the first."""

    seeds: tuple[str, ...] = ("0-3",)
    """Seeds of the shapes to pass through: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    space: Literal["w", "z"] = "w"
    """Where to interpolate: w, linearly in the mapping network's outputs (FiLM codes); z, latents along great
    circles."""
    frames: Frames = 24
    """Frames from one shape to the next."""
    fps: Count = 24
    """Frames per second."""
    turns: Annotated[float | None, Between(-1000, 1000)] = None
    """Turns of the camera around the shapes in total; 0: it stands still. Default: one, or within the azimuths of a run
    that was not trained with views from all sides."""
    azimuth: Annotated[float | None, Between(-360, 360)] = None
    """Azimuth at which the camera starts, degrees. Default: 30, or the middle of the run's azimuths as above."""
    show: Literal["colour", "depth", "normals"] = "colour"
    """What to render."""
    resolution: Pixels = 256
    """Side of the video in pixels."""
    output: Path | None = None
    """File to write: .mp4, .gif or .webp. Default: renders/interpolation.mp4 in the run folder, or
    interpolation-2.mp4 ..."""


@dataclass(frozen=True)
class ExtractMeshConfig(SceneFlags, MixFlags, ShapeFlags):
    """Extract coloured meshes of what a run has learned by marching cubes; or volumes.

    Of a run of train-gan its shapes, one for each seed, in world units; of train-sdf and train-nerf a single one, in
    the coordinates of the file that was learned from.
    """

    seeds: tuple[str, ...] = ("0-2",)
    """Seeds of the shapes: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    mesh_resolution: Annotated[int, Between(MIN_CELLS, MAX_CELLS), Formerly("resolution")] = 128
    """Grid cells along each side of the box from -1 to 1."""
    format: Literal["glb", "obj", "ply", "stl", "mrc"] = "glb"
    """File format; glb, obj and ply hold colours. mrc: the field sampled on the grid and negated, so that the surface
    is at level 0 and the inside above it."""
    faces: Faces = 0
    """Maximum number of triangles of the mesh, which is then simplified; 0: all. Needs the extra sdfgan[meshes]."""
    texture_resolution: Texels = 0
    """Side in texels of the texture of the mesh (GLB); 0: colours at its vertices instead. Needs the extra
    sdfgan[meshes]."""
    output_dir: Path | None = None
    """Folder to write shape-SEED.FORMAT to (train-sdf, train-nerf: mesh.FORMAT). Default: meshes in the run folder, or
    meshes-2 ..."""


@dataclass(frozen=True)
class InvertConfig(VolumeFlags):
    """Find the shape and the camera of an image: mesh, videos, codes, and the image beside its reconstruction.

    The image is prepared as the training images were. With alpha, or on a plain background (--background, or the
    run's), it is padded to a square. Of an opaque photograph, for runs trained on RGB (--channels 3), the central
    square is taken, for --data-layout celeba 0.8 of it; all of it is then compared, without a silhouette.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """An image of one object, with alpha or on a plain background; for runs with --channels 3 any photograph."""
    background: Colour | None = None
    """Plain background colour (RGB in 0..1) of an opaque image. Default: the run's."""
    resolution: Annotated[int, Between(4, 8192)] = 32
    """Side in pixels at which images are compared, and again at a quarter of it."""
    candidates: Annotated[int, Positive, AtMost(10**6)] = 512
    """Random shapes and cameras to start from."""
    starts: Annotated[int, Positive, AtMost(10**5)] = 8
    """Number of the best candidates that are optimised together."""
    latent_steps: Count = 80
    """Steps that optimise the latents of all starts."""
    code_steps: Count = 120
    """Steps that optimise the FiLM codes of the best."""
    mask_weight: Annotated[float, Between(0, 1e6)] = 1.0
    """Weight of the silhouette loss relative to the colour loss."""
    perceptual_weight: Annotated[float, Between(0, 1e6), Formerly("perceptual")] = 0.0
    """Weight of a perceptual loss on early Inception features; needs the weights, as FID does."""
    inception: Path | None = None
    """Inception weights. Default: $SDFGAN_INCEPTION, or the file in the cache folder."""
    seed: Natural = 0
    """Random seed of the candidates."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Weights of the generator: the moving average, the slower one, or those of the last step."""
    mesh_resolution: MeshCells = 128
    """Grid cells per axis of the mesh; 0: none."""
    view_resolution: Pixels = 256
    """Side of images and videos in pixels."""
    frames: Annotated[int, NotNegative, AtMost(10**6)] = 72
    """Frames of the turntable; 0: no videos."""
    video_format: VideoFormat = "mp4"
    """Format of videos: mp4 needs ffmpeg; gif and webp do not, and play in web pages."""
    output_dir: Path | None = None
    """Output folder. Default: inverted/IMAGE in the run folder, or IMAGE-2 ..."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Measure a trained generator: sliced-Wasserstein distance; with Inception weights FID, KID, precision and recall;
    with --shapes MMD, coverage and 1-NNA of its shapes against the built-in set's or a folder of meshes; with
    --poses how far the poses that it learned are from true ones."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    images: Annotated[int, Positive, AtMost(10**7)] = 2000
    """Generated and real images, each. Scores are comparable only for equal numbers."""
    real: Path | None = None
    """Real images. Default: those held out from the run; for the built-in set, newly rendered ones."""
    inception: Path | None = None
    """Inception weights, .safetensors or .pth. Default: $SDFGAN_INCEPTION, or the file in the cache folder."""
    shapes: Annotated[int | Path, ShapesOrMeshes, Metavar("N|MESHES")] = 0
    """True shapes for MMD, coverage and 1-NNA of as many generated ones: a folder of meshes, best of objects that the
    run has not seen; or, for runs on the built-in set, a number, such as 105. 0: none."""
    training_shapes: Annotated[Path | None, Metavar("MESHES")] = None
    """With --shapes MESHES: the meshes whose images were learned from. Gives the floor of the scores, and novelty: how
    far generated shapes are from the nearest of them, with an image of some."""
    up: Literal["y", "z"] = "y"
    """The axis of these meshes that points up."""
    poses: Annotated[Path | None, Metavar("DATA")] = None
    """A data set whose poses are known (poses.json ...): KL and Jensen-Shannon divergence, in nats, of those that a run
    with --poses learned has learned, over its bins, at the turn of the shapes where they agree best."""
    psi: Annotated[float, Between(-10, 10)] = 1.0
    """Truncation towards the mean shape, which lies between the kinds of objects if the run learned several. Scores are
    usually reported for 1, no truncation."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Weights of the generator: the moving average, the slower one, or those of the last step."""
    seed: Natural = 77  # gan.evaluation.SEED
    """Random seed of latents, poses and true shapes."""
    output: Path | None = None
    """JSON file to write. Default: evaluation-STEP.json in the run folder, or evaluation-STEP-2.json ..."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""

    def check(self) -> None:
        """See `Config.check`."""
        for flag, given in (("--training-shapes", self.training_shapes is not None), ("--up", self.up != "y")):
            if given and not isinstance(self.shapes, Path):
                raise UserError(f"{flag} is for meshes that shapes are compared with: give --shapes MESHES too")


@dataclass(frozen=True, kw_only=True)
class DatasetFlags(Config):
    """Flags of every action on a data set."""

    action: ClassVar[str]
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder, zip, tar or folder of tars."""
    resolution: Pixels = 128
    """Side in pixels of the images that are read or written."""
    layout: Literal["auto", "plain", "shapenet", "celeba", "cats", "carla"] = "auto"
    """How images are organised and cropped; see train-gan --data-layout."""
    background: Colour | None = None
    """Plain background colour (RGB in 0..1) of opaque images: it becomes transparent."""
    views_per_object: Natural = 0
    """Number of randomly chosen renderings of each ShapeNet object; 0: all."""
    max_images: Annotated[Count | None, Formerly("most")] = None
    """Maximum number of images, chosen at random."""
    seed: Natural = 0
    """Random seed of these choices."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig(DatasetFlags):
    """Read everything, and report what is in it and what is bad."""

    action: ClassVar = "check"
    strict: bool = False
    """Bad images are an error (status 2), after everything has been reported."""


@dataclass(frozen=True, kw_only=True)
class PreviewConfig(DatasetFlags):
    """Write a contact sheet of images as training sees them."""

    action: ClassVar = "preview"
    output: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")] = None
    """A new .png or .jpg. Default: preview.png, or preview-2.png ..."""
    max_images: Annotated[Count | None, Formerly("most")] = 64
    """Maximum number of images, chosen at random."""


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(DatasetFlags):
    """Write the images that can be read, resized and cropped, in StyleGAN's layout with labels and poses."""

    action: ClassVar = "convert"
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """A .zip, a .tar or a new folder."""


@dataclass(frozen=True, kw_only=True)
class RenderSetConfig(Config):
    """Render a training set from meshes: random views of each, with poses, labels and objects held out.

    Colours come from textures, materials and vertices, as the files have them. A run that was stopped continues when
    the same command is given again.
    """

    meshes: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MESHES")]
    """A folder of GLB, glTF, OBJ, PLY, STL or OFF files, or one of these. Its folders, if there are several, are
    classes and become labels. Files whose names are alike up to "--" (a--1.glb, a--2.glb) are one object."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """A new .zip, .tar or folder, in StyleGAN's layout with dataset.json (labels) and poses.json."""
    views: Annotated[int, Positive, AtMost(10_000), Section("Images")] = 24
    """Images of each mesh, each from a random side."""
    resolution: Pixels = 64
    """Side of the images."""
    supersample: Annotated[int, Positive, AtMost(16)] = 4
    """Rays per pixel, along a side."""
    background: Colour | None = None
    """Colour behind the objects. Default: none; the images are transparent, with soft edges."""
    light: Literal["headlight", "random"] = "headlight"
    """headlight: from the camera. random: another light for each image, from the viewer's side, and ambient light."""
    held_out: Annotated[float, Between(0, 1)] = 0.0
    """Share of the objects that go to OUTPUT-held-out instead, whole."""
    seed: Natural = 0
    """Random seed of poses, lights and what is held out."""
    up: Annotated[Literal["y", "z"], Section("Camera")] = "y"
    """The axis of the files that points up."""
    poses: Literal["uniform", "gaussian", "truncated_gaussian", "spherical_uniform", "hybrid", "fixed"] = "uniform"
    """Distribution of camera poses; see train-gan."""
    elevation: Elevations = (10.0, 30.0)
    """Range of the cameras' elevations (angles above the horizon), degrees."""
    azimuth: Azimuths = (0.0, 360.0)
    """Range of the cameras' azimuths (angles around the vertical axis; 0 is the front), degrees."""
    fov: FieldOfView = 25.0
    """Field of view, degrees."""


@dataclass(frozen=True)
class ReportConfig(Config):
    """Write report.html of a run, or one page that compares several; it needs no other file and no network."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run folders of train-gan, train-sdf or train-nerf, finished or not."""
    output: Path | None = None
    """File to write. Default: report.html in the run's folder; for several runs in this folder, or report-2.html ..."""


@dataclass(frozen=True)
class ImportWeightsConfig(Config):
    """Import the state dictionary of a generator of dfr or pi-GAN, for render, extract-mesh and the other commands."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """State dictionary: .safetensors, or a torch file of tensors and plain values only. Nothing is unpickled."""
    output_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """New run folder."""
    kind: Literal["auto", "dfr", "pi-gan"] = "auto"
    """Project it comes from. auto: recognised by the names of the tensors."""
    curriculum: str | None = None
    """What it was trained with (celeba, cats, carla, dfr or a JSON file): decides the cameras of invert and evaluate,
    and how evaluate --real crops. Default: dfr; for pi-GAN celeba, or carla with --no-box-warp."""
    poses: str | None = None
    """Distribution of camera poses; overrides the curriculum's; see train-gan."""
    elevation: Elevations | None = None
    """Range of elevations, degrees; overrides the curriculum's."""
    azimuth: Azimuths | None = None
    """Range of azimuths, degrees; overrides the curriculum's; 0 is the front."""
    fov: FieldOfView | None = None
    """Field of view, degrees; overrides the curriculum's."""
    near_far: NearFar | None = None
    """pi-GAN's ray_start and ray_end, between which rays sample the field; overrides the curriculum's."""
    resolution: Annotated[int | None, PowerOfTwo, AtMost(1024)] = None
    """Side of its images in pixels; overrides that at the end of the curriculum."""
    level: Weight = 10.0
    """Density of the surface that extract-mesh takes from pi-GAN's radiance field; images are rendered from the
    volume."""
    omega_first: Frequency = 5.0
    """Frequency of dfr's first layer."""
    omega_hidden: Frequency = 15.0
    """Frequency of dfr's other layers."""
    box_warp: bool = True
    """Whether the pi-GAN is one of the spatial variants, whose coordinates are scaled by 2 / 0.24 (carla's is not)."""


@dataclass(frozen=True)
class ViewConfig(Config):
    """Show any result in the browser: a trained generator, a fitted mesh, a radiance field, a mesh. A run that is still
    training is followed: new checkpoints and numbers appear as they are written. Needs the extra sdfgan[viewer].
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Run folder (its newest checkpoint is shown), checkpoint folder, model.safetensors or mesh file."""
    host: str = "127.0.0.1"
    """Address to listen at. By default only this machine can see the page; 0.0.0.0: whoever reaches this machine can,
    without a password."""
    port: Annotated[int | None, Between(0, 65535)] = None
    """Port to listen at; 0: any. Default: 8080, or the next that is free."""
    resolution: Literal[256, 512, 768, 1024] = 512
    """Height in pixels of the image when nothing moves; the page can change it."""
    mesh_resolution: Annotated[int, Between(MIN_CELLS, MAX_CELLS)] = 128
    """Grid cells along each side of the box from -1 to 1, for meshes to download."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Weights of a generator: the moving average, the slower one, or those of the last step."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class DoctorConfig(Config):
    """Check this installation: versions, compiler, GPU, every kernel on every device, speed, disk and cache.

    Exit status 1 if something is broken; each finding that is not ok says what to do. The end is for a bug report.
    """

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class InfoConfig(Config):
    """Show versions, what the native build holds, threads and devices."""

    json: bool = False
    """Print JSON."""
