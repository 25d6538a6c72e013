"""The `sdfgan` command. A sub-command is a frozen dataclass, whose fields are its flags, and a function of it.

Exit status: 0; 2 for what the user can mend, with one line on stderr; 130 after Ctrl-C. Anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import io
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, NamedTuple

from sdfgan.commands.streams import is_full, open_streams, say_error, silence
from sdfgan.compat.flags import translate
from sdfgan.errors import UserError
from sdfgan.training.interrupt import STATUS, Interrupts

Loaded = tuple[type, Callable[[Any], Any]]


def _train_gan() -> Loaded:
    from sdfgan.gan import GanConfig, train

    return GanConfig, train


def _train_nerf() -> Loaded:
    from sdfgan.nerf import NerfConfig, train

    return NerfConfig, train


def _train_sdf() -> Loaded:
    from sdfgan.commands.train_sdf import SdfConfig, run

    return SdfConfig, run


def _render() -> Loaded:
    from sdfgan.commands.render import RenderConfig, run

    return RenderConfig, run


def _interpolate() -> Loaded:
    from sdfgan.commands.interpolate import InterpolateConfig, run

    return InterpolateConfig, run


def _invert() -> Loaded:
    from sdfgan.commands.invert import InvertConfig, run

    return InvertConfig, run


def _evaluate() -> Loaded:
    from sdfgan.commands.evaluate import EvaluateConfig, run

    return EvaluateConfig, run


def _dataset() -> Loaded:
    from sdfgan.commands.dataset import DatasetConfig, run

    return DatasetConfig, run


def _import_weights() -> Loaded:
    from sdfgan.commands.import_weights import ImportWeightsConfig, run

    return ImportWeightsConfig, run


def _extract_mesh() -> Loaded:
    from sdfgan.commands.extract_mesh import ExtractMeshConfig, run

    return ExtractMeshConfig, run


def _fit_image() -> Loaded:
    from sdfgan.commands.fit_image import FitImageConfig, run

    return FitImageConfig, run


def _info() -> Loaded:
    from sdfgan.commands.info import InfoConfig, run

    return InfoConfig, run


class Command(NamedTuple):
    """A sub-command. `load` imports what it needs, so that no command waits for the imports of another."""

    summary: str
    load: Callable[[], Loaded]
    examples: tuple[tuple[str, str], ...]  # arguments, and what they do


COMMANDS = {
    "train-gan": Command(
        "Learn 3D shapes from pictures alone.",
        _train_gan,
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
        _train_nerf,
        (
            ("--data lego/", "a hash grid: minutes on a CPU; Blender's format, transforms.json or COLMAP"),
            ("--data garden/ --image-scale 0.25 --render-depth", "photographs, reduced; also a video of depth"),
            ("--data helmet/ --model ref-nerf --render-normal", "reflections; nerf, mip-nerf, mip-nerf-360 likewise"),
            ("--resume runs/nerf-001", "continue where a run was stopped"),
        ),
    ),
    "train-sdf": Command(
        "A mesh, or each mesh of a folder, as a neural signed-distance field.",
        _train_sdf,
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
        _render,
        (
            ("runs/gan-001", "a grid: one shape per row, seen from six sides"),
            ("runs/gan-001 --mode turntable --seeds 0-8 --frames 120", "a video of nine turning shapes"),
            ("runs/gan-001 --mode images --seeds 0-99 --psi 0.7", "a hundred typical shapes as files"),
            ("runs/gan-001 --mode normals --seeds 3,5 --output normals.png", "surface normals of two shapes"),
        ),
    ),
    "interpolate": Command(
        "A video in which one shape becomes the next.",
        _interpolate,
        (
            ("runs/gan-001 --seeds 0,3,5", "from shape 0 to 3 to 5 and back"),
            ("runs/gan-001 --space z --turns 0 --frames 48", "in the space of latents, from one side"),
        ),
    ),
    "invert": Command(
        "The shape and the camera behind a picture.",
        _invert,
        (
            ("runs/gan-001 photo.png", "mesh, videos and codes of what is in a picture with alpha"),
            ("runs/gan-001 photo.jpg --background 1 1 1 --starts 16", "on white, trying harder"),
        ),
    ),
    "evaluate": Command(
        "Distances of a trained generator's pictures and shapes to real ones.",
        _evaluate,
        (
            ("runs/gan-001", "sliced-Wasserstein distance; with Inception weights at hand FID, KID, precision, recall"),
            ("runs/gan-001 --shapes 105 --images 5000", "also MMD, coverage and 1-NNA of its shapes"),
        ),
    ),
    "dataset": Command(
        "Check, preview and convert sets of pictures.",
        _dataset,
        (
            ("check photos/", "read everything, report what is bad"),
            ("preview photos.zip sheet.png", "64 pictures as training sees them"),
            (
                "convert ShapeNet/03001627 chairs.zip --resolution 64 --views-per-object 4",
                "ShapeNet renderings as a zip",
            ),
        ),
    ),
    "import-weights": Command(
        "Use a generator that dfr or pi-GAN trained.",
        _import_weights,
        (
            ("generator.safetensors runs/imported", "then: sdfgan extract-mesh runs/imported"),
            ("faces.pth runs/faces --curriculum celeba", "a pi-GAN, and the cameras it was trained with"),
        ),
    ),
    "extract-mesh": Command(
        "Coloured meshes (GLB, OBJ, PLY, STL) or volumes (.mrc) of a trained generator's shapes.",
        _extract_mesh,
        (
            ("runs/gan-001", "three meshes for any 3D viewer"),
            ("runs/gan-001 --seeds 0-999 --format stl", "a thousand shapes"),
            ("runs/gan-001 --seeds 7 --resolution 256 --format ply", "one shape, finer"),
        ),
    ),
    "fit-image": Command(
        "Inverse rendering: fit a field to pictures of a mesh, or a scene's parameters to its pictures.",
        _fit_image,
        (
            ("model.obj --minutes 10", "24 views of a mesh, fitted by a network: pictures, video, mesh, metrics"),
            ("csg", "pose, sizes, colours and blend of two balls, from a wrong start"),
        ),
    ),
    "info": Command(
        "Versions, the native build, threads and devices.",
        _info,
        (("", "to read"), ("--json", "for programs")),
    ),
}


def program() -> int:
    """`main` as a program of its own, which Ctrl-C may end at once while nothing is begun."""
    return main(as_program=True)


def main(argv: Sequence[str] | None = None, as_program: bool = False) -> int:
    """Run `sdfgan` with `argv` (default: the command line's) and return its exit status."""
    open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0].replace("_", "-") if arguments else "--help"
    called = f"sdfgan {name}" if name in COMMANDS else "sdfgan"
    with Interrupts(called, nothing_to_undo=as_program) as interrupts:
        try:
            status = _run(called, name, arguments, interrupts)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            return _interrupted(called, error)
        except Exception as error:
            if interrupts.received:  # what a library made of it, or lost by it
                return _interrupted(called)
            if isinstance(error, BrokenPipeError):  # who read the output has seen enough, as `head` has
                silence(sys.stdout)
                return 128 + signal.SIGPIPE
            if not isinstance(error, OSError) or not is_full(error):
                raise
            silence(sys.stdout)
            return _error(called, f"{error.filename or 'output'} cannot be written: {error.strerror}")
        return _interrupted(called) if interrupts.received else status


def _interrupted(program: str, error: BaseException | None = None) -> int:
    advice = f"; {error}" if error is not None and str(error) else ""
    say_error(f"{program}: interrupted{advice}")
    return STATUS


def _run(program: str, name: str, arguments: list[str], interrupts: Interrupts) -> int:
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        from sdfgan import __version__

        print(f"sdfgan {__version__}")
        return 0
    if name not in COMMANDS:
        return _error("sdfgan", f"no command {arguments[0]!r}: must be one of {', '.join(COMMANDS)}")
    try:
        config_type, run = COMMANDS[name].load()
        given, notes = translate(name, arguments[1:])
        for note in notes:
            print(f"{program}: {note}", file=sys.stderr)
        config = _parse(program, config_type, given)
        if config is None:
            print(_examples(name))
        else:
            interrupts.nothing_to_undo = False
            run(config)
    except UserError as error:
        if interrupts.received:
            raise
        return _error(program, str(error))
    except (MemoryError, RuntimeError) as error:
        if interrupts.received or not _is_out_of_memory(error):
            raise
        advice = "a smaller --resolution, or in training a smaller --chunk-size, --batch-size or --rays"
        first, _, _ = str(error).partition("\n")
        return _error(program, f"out of memory: try {advice}. {first}")
    return 0


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or, as torch says it, the machine has no more memory."""
    lacking = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return lacking or "can't allocate memory" in str(error)


def _parse(program: str, config_type: type, arguments: list[str]) -> Any:
    """The configuration that the arguments give, or None after `--help`. UserError for bad arguments."""
    import tyro

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(config_type, prog=program, args=arguments)
    except SystemExit as stop:
        if not stop.code:
            return None
        raise UserError(f"{_first_section(said.getvalue())} (see {program} --help)") from None


def _first_section(box: str) -> str:
    """What a message of tyro's says, in one line: its text from the title to the first rule or blank line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", box).strip().splitlines()[1:]  # without colours and title
    said: list[str] = []
    for line in (line.strip(" │|") for line in lines):
        if line.strip("─-╭╮╰╯"):
            said.append(line)
        elif said:
            break
    return " ".join(said) or "bad arguments"


def _error(program: str, message: str) -> int:
    say_error(f"{program}: error: {' '.join(message.split())}")
    return 2


def _overview() -> str:
    from sdfgan import __doc__ as about

    assert about is not None
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        f"{about.splitlines()[0]}\n\nusage: sdfgan COMMAND [OPTIONS]\n\n{commands}\n\n"
        "sdfgan COMMAND --help shows its options and examples."
    )


def _examples(name: str) -> str:
    lines = ["examples:"]
    for arguments, meaning in COMMANDS[name].examples:
        lines += [f"  # {meaning}", f"  sdfgan {name} {arguments}".rstrip()]
    return "\n".join(lines)
