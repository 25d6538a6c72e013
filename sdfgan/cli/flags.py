"""The settings of the commands that are no training: as of all commands the fields are the flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

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
    FieldOfView,
    Formerly,
    Frames,
    MeshCells,
    Natural,
    NearFar,
    NotNegative,
    Pixels,
    Positive,
    PowerOfTwo,
    Scale,
    Section,
    VideoFormat,
    Weight,
)


@dataclass(frozen=True)
class ShapeFlags(Config):
    """Flags of every command that makes shapes of seeds."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    seeds: tuple[str, ...] = ("0-7",)
    """Which shapes: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    truncation: Annotated[float, Between(-10, 10)] = 1.0
    """Scale of the latents: less than 1 gives more typical, less varied shapes."""
    psi: Annotated[float, Between(-10, 10)] = 1.0
    """The same in the space of the mapping network's outputs: 0 is the mean shape, 0.7 a usual choice. Of a run that
    learned several kinds of objects the mean lies between the kinds, and so do the shapes: 1 keeps them apart."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Which generator: the moving average, the slower one, or what was last trained."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True)
class VolumeFlags(Config):
    """Flags of every command that makes pictures, for radiance fields (`--generator pi-gan`, imported pi-GANs)."""

    lock_view_dependence: bool = False
    """Colours of a radiance field as seen from the front, wherever the camera is."""
    samples: Count = 48
    """Samples along each ray of a radiance field, and as many again where those found something."""
    ray_step_multiplier: Scale = 1.0
    """Multiplies --samples."""


@dataclass(frozen=True)
class CameraFlags(VolumeFlags, ShapeFlags):
    """Flags of commands that choose where the camera stands."""

    elevation: Annotated[float | None, Between(-90, 90)] = None
    """Height of the camera above the horizon, degrees. Default: the middle of those that the run learned from."""
    azimuth_range: Azimuths | None = None
    """Azimuths in which cameras stay, degrees; 0 360: all round. Default: those that the run learned from."""


@dataclass(frozen=True)
class RenderConfig(CameraFlags):
    """Render shapes of a trained generator: sheets, single pictures, videos; colours, depth or normals."""

    mode: Literal["grid", "seeds", "images", "turntable", "orbit", "front", "depth", "normals"] = "grid"
    """grid: one row per seed, seen from several sides. seeds: one picture of each. images: the same as files.
    Videos of all seeds: turntable goes round, or swings where the run has not learned from all round; orbit also goes
    up and down; front swings to both sides. depth, normals: a grid of these."""
    show: Literal["colour", "depth", "normals"] = "colour"
    """What is shown, in any mode but depth and normals."""
    resolution: Pixels = 256
    """Side of each picture in pixels."""
    frames: Frames = 72
    """Frames of a video."""
    fps: Count = 24
    """Frames per second of a video."""
    azimuth: Annotated[float | None, Between(-360, 360)] = None
    """Where the camera stands in modes seeds and images, and how far it swings in front, degrees. Default: 30; of a run
    that has not learned from all round the middle of its azimuths, and as far as they go."""
    views: Annotated[int, Positive, AtMost(1000)] = 6
    """ViewRange from which each shape is seen in a grid."""
    output: Path | None = None
    """File to write: .png or .jpg; videos: .mp4, .gif or .webp. Default: renders/MODE.png (videos: .mp4; images: a
    folder) in the run folder, or MODE-2.png ..."""


@dataclass(frozen=True)
class InterpolateConfig(CameraFlags):
    """Make a video that goes from shape to shape and back to the first."""

    seeds: tuple[str, ...] = ("0-3",)
    """The shapes to go through: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    space: Literal["w", "z"] = "w"
    """Where to go straight: w, the mapping network's outputs (FiLM codes); z, the latents, along great circles."""
    frames: Frames = 24
    """Frames from one shape to the next."""
    fps: Count = 24
    """Frames per second."""
    turns: Annotated[float | None, Between(-1000, 1000)] = None
    """How often the camera goes round in all; 0: it stands still. Default: once, or within the azimuths of a run that
    has not learned from all round."""
    azimuth: Annotated[float | None, Between(-360, 360)] = None
    """Where the camera starts, degrees. Default: 30; of a run that has not learned from all round the middle."""
    show: Literal["colour", "depth", "normals"] = "colour"
    """What is shown."""
    resolution: Pixels = 256
    """Side of the video in pixels."""
    output: Path | None = None
    """File to write: .mp4, .gif or .webp. Default: renders/interpolation.mp4 in the run folder, or
    interpolation-2.mp4 ..."""


@dataclass(frozen=True)
class ExtractMeshConfig(ShapeFlags):
    """Extract coloured meshes of shapes of a trained generator, in world units, by marching cubes; or volumes."""

    seeds: tuple[str, ...] = ("0-2",)
    """Which shapes: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    mesh_resolution: Annotated[int, Between(MIN_CELLS, MAX_CELLS), Formerly("resolution")] = 128
    """Grid cells along each side of the box from -1 to 1."""
    format: Literal["glb", "obj", "ply", "stl", "mrc"] = "glb"
    """File format; glb, obj and ply hold the colours. mrc: the field itself on the grid, negated, so that the surface
    is at level 0 and the inside above it."""
    output_dir: Path | None = None
    """Folder to write shape-SEED.FORMAT to. Default: meshes in the run folder, or meshes-2 ..."""


@dataclass(frozen=True)
class InvertConfig(VolumeFlags):
    """Find the shape and the camera of a picture: mesh, videos, codes and the picture beside what was found.

    The picture is prepared as the run's were. With alpha, or on a plain background (--background, or the run's), it is
    padded to a square. Of an opaque photograph, for runs that learned from RGB (--channels 3), the central square is
    taken, for --data-layout celeba 0.8 of it; all of it is then compared, without a silhouette.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """A picture of one object, with alpha or on a plain background; for runs of --channels 3 any photograph."""
    background: Colour | None = None
    """Plain background colour (RGB in 0..1) of an opaque picture. Default: the run's."""
    resolution: Annotated[int, Between(4, 8192)] = 32
    """Side at which pictures are compared, also at a quarter of it."""
    candidates: Annotated[int, Positive, AtMost(10**6)] = 512
    """Random shapes and cameras to begin with."""
    starts: Annotated[int, Positive, AtMost(10**5)] = 8
    """The best of them, which are optimised together."""
    latent_steps: Count = 80
    """Steps on the latents of all starts."""
    code_steps: Count = 120
    """Steps on the FiLM codes of the best."""
    mask_weight: Annotated[float, Between(0, 1e6)] = 1.0
    """Weight of the silhouette beside the colours."""
    perceptual_weight: Annotated[float, Between(0, 1e6), Formerly("perceptual")] = 0.0
    """Weight of a perceptual loss on early Inception features; needs the weights, as FID does."""
    inception: Path | None = None
    """Inception weights. Default: $SDFGAN_INCEPTION, or in the cache folder."""
    seed: Natural = 0
    """Of the candidates."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Which generator: the moving average, the slower one, or what was last trained."""
    mesh_resolution: MeshCells = 128
    """Grid cells per axis of the mesh; 0: none."""
    view_resolution: Pixels = 256
    """Side of pictures and videos."""
    frames: Annotated[int, NotNegative, AtMost(10**6)] = 72
    """Frames of the turntable; 0: no videos."""
    video_format: VideoFormat = "mp4"
    """Format of videos: mp4 needs ffmpeg; gif and webp do not, and show in web pages."""
    output_dir: Path | None = None
    """Folder for what is found. Default: inverted/IMAGE in the run folder, or IMAGE-2 ..."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Measure a trained generator: sliced-Wasserstein distance; with Inception weights FID, KID, precision and recall;
    with --shapes MMD, coverage and 1-NNA of its shapes against the built-in set's."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    images: Annotated[int, Positive, AtMost(10**7)] = 2000
    """Pictures on each side. Compare only equal numbers."""
    real: Path | None = None
    """Real pictures. Default: those held out from the run; for the built-in set, new ones of it."""
    inception: Path | None = None
    """Inception weights, .safetensors or .pth. Default: $SDFGAN_INCEPTION, or in the cache folder."""
    shapes: Annotated[int, NotNegative, AtMost(10**6)] = 0
    """Shapes on each side of the set metrics, 105 for example, for runs on the built-in set; 0: none."""
    psi: Annotated[float, Between(-10, 10)] = 1.0
    """Truncation towards the mean shape, which lies between the kinds of objects where the run learned several. 1,
    none, is what distances are usually given for."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Which generator: the moving average, the slower one, or what was last trained."""
    seed: Natural = 77  # gan.evaluation.SEED
    """Of latents, poses and true shapes."""
    output: Path | None = None
    """JSON file to write. Default: evaluation-STEP.json in the run folder, or evaluation-STEP-2.json ..."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True)
class DatasetFlags(Config):
    """Flags of every action on a set of images."""

    action: ClassVar[str]
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder, zip, tar or folder of tars."""
    resolution: Pixels = 128
    """Side at which images are read, or written."""
    layout: Literal["auto", "plain", "shapenet", "celeba", "cats", "carla"] = "auto"
    """How images are laid out and cropped; see train-gan --data-layout."""
    background: Colour | None = None
    """Plain background colour (RGB in 0..1) of opaque images: it becomes transparent."""
    views_per_object: Natural = 0
    """Of each ShapeNet object so many different renderings at random; 0: all."""
    max_images: Annotated[Count | None, Formerly("most")] = None
    """At most so many images, at random."""
    seed: Natural = 0
    """Of what is chosen at random."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig(DatasetFlags):
    """Read everything, report what is there and what is bad."""

    action: ClassVar = "check"
    strict: bool = False
    """Bad images are an error (status 2), after everything has been reported."""


@dataclass(frozen=True, kw_only=True)
class PreviewConfig(DatasetFlags):
    """A sheet of images as training sees them."""

    action: ClassVar = "preview"
    output: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")] = None
    """A new .png or .jpg. Default: preview.png, or preview-2.png ..."""
    max_images: Annotated[Count | None, Formerly("most")] = 64
    """At most so many images, at random."""


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(DatasetFlags):
    """Write the images that can be read, resized and cropped, in StyleGAN's layout with labels and poses."""

    action: ClassVar = "convert"
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """A .zip, a .tar or a new folder."""


@dataclass(frozen=True, kw_only=True)
class RenderSetConfig(Config):
    """Render a training set from meshes: random views of each, with poses, labels and objects held out.

    Textures through UVs, materials and vertex colours are taken as the files have them. A run that was stopped goes on
    when the same command is given again.
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
    """Of poses, lights and what is held out."""
    up: Annotated[Literal["y", "z"], Section("Camera")] = "y"
    """The axis of the files that points up."""
    poses: Literal["uniform", "gaussian", "truncated_gaussian", "spherical_uniform", "hybrid", "fixed"] = "uniform"
    """Distribution of camera poses; see train-gan."""
    elevation: Elevations = (10.0, 30.0)
    """Range of elevations, degrees."""
    azimuth: Azimuths = (0.0, 360.0)
    """Range of azimuths, degrees."""
    fov: FieldOfView = 25.0
    """Field of view, degrees."""


@dataclass(frozen=True)
class ImportWeightsConfig(Config):
    """Import a generator's state dictionary of dfr or pi-GAN: then render, extract-mesh and the others take it."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """State dictionary: .safetensors, or a torch file of tensors and plain values only. Nothing is unpickled."""
    output_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """New run folder."""
    kind: Literal["auto", "dfr", "pi-gan"] = "auto"
    """Whose it is. auto: told by the names of the tensors."""
    curriculum: str | None = None
    """What it was trained with (celeba, cats, carla, dfr or a JSON file): from where invert and evaluate look at its
    shapes, how evaluate --real crops. Default: dfr; for pi-GAN celeba, or carla with --no-box-warp."""
    poses: str | None = None
    """Distribution of camera poses, in place of the curriculum's; see train-gan."""
    elevation: Elevations | None = None
    """Range of elevations, degrees, in place of the curriculum's."""
    azimuth: Azimuths | None = None
    """Range of azimuths, degrees, in place of the curriculum's; 0 is the front."""
    fov: FieldOfView | None = None
    """Field of view, degrees, in place of the curriculum's."""
    near_far: NearFar | None = None
    """pi-GAN's ray_start and ray_end, in place of the curriculum's: rays ask the field only between them."""
    resolution: Annotated[int | None, PowerOfTwo, AtMost(1024)] = None
    """Side of its pictures, in place of that at the end of the curriculum."""
    level: Weight = 10.0
    """Density at which extract-mesh cuts pi-GAN's radiance field to a surface; pictures are of the volume."""
    omega_first: Scale = 5.0
    """Frequency of dfr's first layer."""
    omega_hidden: Scale = 15.0
    """Frequency of dfr's other layers."""
    box_warp: bool = True
    """Whether the pi-GAN is one of the spatial variants, whose coordinates are scaled by 2 / 0.24. carla's is not."""


@dataclass(frozen=True)
class InfoConfig(Config):
    """Show versions, what the native build holds, threads and devices."""

    json: bool = False
    """Print JSON."""
