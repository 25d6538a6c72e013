"""The `sdfgan` command: its help, its one-line errors, and what its sub-commands write."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import imageio.v2 as imageio
import mrcfile
import numpy as np
import pytest
import torch
import trimesh
import tyro
from PIL import Image
from safetensors.torch import load_file

import sdfgan.gan
from sdfgan.cli import COMMANDS, main
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig, make_generator, picture
from sdfgan.pictures import save_image
from sdfgan.raycast import Rendering
from sdfgan.training.checkpoint import load_checkpoint, pack_module, resolve_checkpoint, save_checkpoint
from sdfgan.training.progress import progress

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the checkpoint of a tiny, untrained generator."""
    folder = tmp_path_factory.mktemp("runs") / "gan-001"
    config = GanConfig(device="cpu", latent_size=4, width=16, mapping_width=16).resolved()
    torch.manual_seed(0)
    tensors = pack_module(make_generator(config), "ema")
    save_checkpoint(folder, 5, tensors, {"kind": "gan", "config": config.to_json()})
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[GanConfig]:
    """The configurations that `train-gan` would have trained."""
    configs: list[GanConfig] = []
    monkeypatch.setattr(sdfgan.gan, "train", configs.append)
    return configs


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that fails with status 2."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.endswith("\n") and said.err.count("\n") == 1
    assert not set("╭│╰─") & set(said.err)
    return said.err.strip()


# ---------------------------------------------------------------------------------------- the shell


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == main(["-h"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sdfgan {sdfgan.__version__}\n"


SHELL = [
    # What the shell does to the streams, the status, and the lines on stderr (None: it is not there).
    ("info >&-", 0, 0),
    ("info <&- >&- 2>&-", 0, None),
    ("nothing >&- 2>&-", 2, None),
    ("info >/dev/full", 2, 1),
    ("--help >/dev/full", 2, 1),
    ("info >/dev/full 2>/dev/full", 2, None),
    ("dataset check {folder} --resolution 8 >/dev/full", 2, 1),
    ("dataset check {folder} --resolution 8 >&-", 0, 0),
]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(("line", "status", "lines"), SHELL)
def test_streams_that_are_closed_or_full(tmp_path: Path, line: str, status: int, lines: int | None) -> None:
    Image.new("RGBA", (8, 8), (9, 9, 9, 9)).save(tmp_path / "a.png")
    command = f"{sys.executable} -m sdfgan {line.format(folder=tmp_path)}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status and done.stdout == ""
    assert lines is None or done.stderr.count("\n") == lines
    if lines:
        assert done.stderr.startswith("sdfgan") and "cannot be written: No space left on device" in done.stderr


def test_files_do_not_take_the_numbers_of_closed_streams(tmp_path: Path) -> None:
    """What a library prints to stdout must not end up in a file of the run."""
    (tmp_path / "a.py").write_text(
        "import os, sys\nfrom sdfgan.cli import main\nmain(['--version'])\n"
        "file = open(sys.argv[1], 'w')\nfor number in (1, 2):\n    os.write(number, b'x')\n"
    )
    command = f"{sys.executable} {tmp_path / 'a.py'} {tmp_path / 'file'} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, check=False).returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_names_that_an_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "b\u00e4ume"
    folder.mkdir()
    Image.new("RGBA", (8, 8), (9, 9, 9, 9)).save(folder / "a.png")
    for name, environment in (("ascii", {"PYTHONIOENCODING": "ascii"}), ("latin-1", {"PYTHONIOENCODING": "latin-1"})):
        command = [sys.executable, "-m", "sdfgan", "dataset", "check", str(folder), "--resolution", "8"]
        environment = {**os.environ, **environment}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=environment)
        escaped = b"b\\xe4ume" if name == "ascii" else b"b\xe4ume"
        assert done.returncode == 0 and done.stderr == b"" and b"checked " in done.stdout and escaped in done.stdout


@pytest.mark.parametrize("stream", [None, "closed"])
def test_progress_without_a_console(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    """As under pythonw, where there is no stdout, or where it has been closed."""
    replaced = None if stream is None else io.StringIO()
    if replaced is not None:
        replaced.close()
    monkeypatch.setattr(sys, "stdout", replaced)
    with progress(2, "steps") as bar:
        bar.advance(2)
    assert bar.done == 2


def test_progress_says_something_soon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress(100, "steps") as bar:
        for _ in range(40):
            now[0] += 0.6
            bar.advance()
    said = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["steps 2/100", "steps 28/100"]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_names_every_flag_and_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    config_type = COMMANDS[name].load()[0]
    hints = typing.get_type_hints(config_type, include_extras=True)
    for field in dataclasses.fields(config_type):
        marks = getattr(hints[field.name], "__metadata__", ())
        without_flag = tyro.conf.Positional in marks or tyro.conf.Suppress in marks
        assert without_flag or f"--{field.name.replace('_', '-')}" in said, field.name
    assert f"examples:\n  # {COMMANDS[name].examples[0][1]}" in said


@pytest.mark.parametrize("name", list(COMMANDS))
def test_examples_parse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config_type, _ = COMMANDS[name].load()
    configs: list[object] = []
    command = COMMANDS[name]._replace(load=lambda: (config_type, configs.append))
    monkeypatch.setitem(COMMANDS, name, command)
    for arguments, _ in command.examples:
        assert main([name, *arguments.split()]) == 0
    assert len(configs) == len(command.examples)


def test_flags_with_hyphens_and_underscores(trained: list[GanConfig]) -> None:
    assert main(["train-gan", "--batch-size", "8", "--output-dir", "a_b", "--dry-run", "--no-mirror"]) == 0
    assert main(["train_gan", "--batch_size=8", "--output_dir=a_b", "--dry_run", "--no_mirror"]) == 0
    assert trained == [GanConfig(batch_size=8, output_dir=Path("a_b"), dry_run=True, mirror=False)] * 2
    assert main(["train-gan", "--elevation", "-10", "30", "--background", "1", "1", "1", "--steps", "None"]) == 0
    assert trained[-1] == GanConfig(elevation=(-10.0, 30.0), background=(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stepz", "3"], "Unrecognized options: --stepz"),
        (["--steps", "many"], "--steps"),
        (["--color-space", "cmyk"], "'cmyk' for argument '--color-space'"),
        (["--elevation", "5"], "--elevation"),
        (["--steps"], "--steps"),
        (["stray"], "stray"),
    ],
)
def test_bad_arguments_give_one_line(
    arguments: list[str], message: str, trained: list[GanConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    said = error(capsys, "train-gan", *arguments)
    assert said.startswith("sdfgan train-gan: error: ") and message in said and "--help)" in said
    assert not trained


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, "paint").startswith("sdfgan: error: no command 'paint': must be one of train-gan, ")


def test_what_a_command_raises(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command(raised: BaseException) -> None:
        def fail(config: GanConfig) -> None:
            raise raised

        monkeypatch.setattr(sdfgan.gan, "train", fail)

    command(UserError("photos: no such\nfolder"))
    assert error(capsys, "train-gan") == "sdfgan train-gan: error: photos: no such folder"
    for lack in (torch.OutOfMemoryError("CUDA\nTry"), RuntimeError("can't allocate memory: 9"), MemoryError()):
        command(lack)
        assert "train-gan: error: out of memory: try a smaller --resolution" in error(capsys, "train-gan")
    command(KeyboardInterrupt())
    assert main(["train-gan"]) == 130
    command(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train-gan"])


@pytest.mark.parametrize("tool", ["train_gan", "invert"])
def test_tools_are_the_command(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"sdfgan {tool.replace('_', '-')}: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "info"])
def test_every_command_has_its_script(name: str) -> None:
    script = (ROOT / "tools" / f"{name.replace('-', '_')}.py").read_text()
    assert f'main(["{name}", *sys.argv[1:]])' in script


# ---------------------------------------------------------------------------------------- arguments


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert torch.__version__ in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["devices"][0] == "cpu" and values.items() >= sdfgan.build_info().items()


# ---------------------------------------------------------------------------------------- looking at a run


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["grid", "depth", "normals"])
def test_render_pictures(mode: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, before = tmp_path / "a.png", files(run)
    arguments = ["--seeds", "0,4-5", "--views", "2", "--resolution", "32", "--output", str(output)]
    assert main(["render", str(run), "--mode", mode, *arguments]) == 0
    picture = imageio.imread(output)
    assert picture.shape == (3 * 32, 2 * 32, 3) and picture.std() > 10
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {output}"
    assert files(run) == before, "looking at a checkpoint writes nothing else"


def test_render_turntable_beside_the_run_of_a_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "checkpoints" / "step-0000005"
    arguments = ["--mode", "turntable", "--seeds", "0-2", "--frames", "4", "--resolution", "32"]
    assert main(["render", str(checkpoint), *arguments]) == 0
    output = run / "renders" / "turntable.mp4"
    frames = [frame.shape for frame in imageio.get_reader(output)]
    assert frames == [(64, 64, 3)] * 4
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {output}"
    first = output.read_bytes()
    assert main(["render", str(checkpoint), *arguments, "--show", "depth"]) == 0
    assert output.read_bytes() == first
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {output.with_name('turntable-2.mp4')}"


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_extract_mesh(suffix: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seeds", "1,3", "--resolution", "24", "--format", suffix, "--output_dir", str(tmp_path)]
    assert main(["extract-mesh", str(run), *arguments]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"shape-1.{suffix}", f"shape-3.{suffix}"}
    mesh = trimesh.load(tmp_path / f"shape-1.{suffix}", force="mesh")
    assert mesh.volume > 0 and len(mesh.visual.vertex_colors) == len(mesh.vertices)
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote 2 of 2 meshes to {tmp_path}"


def test_bad_input_of_render_and_extract_mesh(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = str(run)
    assert "nowhere: no such run" in error(capsys, "render", str(tmp_path / "nowhere"))
    assert "expected a run folder" in error(capsys, "extract-mesh", str(tmp_path))
    assert "--seeds must be numbers" in error(capsys, "render", here, "--seeds", "x")
    assert "--seeds" in error(capsys, "extract-mesh", here, "--seeds", "3-1")
    assert "--resolution must be between 1 and" in error(capsys, "render", here, "--resolution", "0")
    assert "--elevation must be between" in error(capsys, "render", here, "--elevation", "100")
    assert "--truncation" in error(capsys, "render", here, "--truncation", "nan")
    assert "--output: turntable is written as .mp4 or .gif or .webp" in error(
        capsys, "render", here, "--mode", "turntable", "--output", "a.png"
    )
    assert "--mode depth shows depth, not --show normals" in error(
        capsys, "render", here, "--mode", "depth", "--show", "normals"
    )
    assert "--device" in error(capsys, "extract-mesh", here, "--device", "tpu")
    assert "RUN" in error(capsys, "render")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("render RUN --resolution 40000", "--resolution must be between 1 and 8192, got 40000"),
        ("render RUN --resolution 2000", "--resolution: 48 pictures in one can have 1672 px each, got 2000"),
        ("render RUN --mode seeds --azimuth nan", "--azimuth must be between -360 and 360, got nan"),
        ("render RUN --mode front --azimuth inf", "--azimuth must be between -360 and 360, got inf"),
        ("render RUN --truncation 1e30", "--truncation must be between -10 and 10, got 1e+30"),
        ("render RUN --output FILE/a.png", "FILE is not a folder"),
        ("render RUN --mode front --frames 9000 --output FOLDER/a.gif", "pixels are too many for a .gif"),
        ("interpolate RUN --output FOLDER/a.avi", "--output: a video is written as .mp4 or .gif or .webp, got"),
        ("interpolate RUN --frames 9000 --output FOLDER/a.webp", "pixels are too many for a .webp"),
        ("invert RUN FILE --mesh-resolution 1", "--mesh-resolution must be 0 (no mesh) or at least 4, got 1"),
        ("invert RUN FILE --frames -1", "--frames must be at least 0, got -1"),
        ("train-gan --device cpu --mesh-resolution 1", "--mesh-resolution must be 0 (no mesh) or at least 4"),
        ("train-gan --device cpu --mesh-resolution -8", "--mesh-resolution must be 0 (no mesh) or at least 4"),
        ("train-gan --device cpu --video-frames -1", "--video-frames must not be negative, got -1"),
        (
            "train-nerf --device cpu --data RUN --mesh-resolution 3",
            "--mesh-resolution must be 0 (no mesh) or at least 4",
        ),
        (
            "train-sdf FILE --device cpu --reconstruction-res 1",
            "--reconstruction-res must be 0 (no mesh) or at least 4",
        ),
        ("fit-image csg --mesh-resolution 2", "--mesh-resolution must be 0 (no mesh) or at least 4, got 2"),
        ("fit-image csg --video-frames -2", "--video-frames must be at least 0, got -2"),
        ("render RUN --mode images --output FILE", "FILE: is a file, expected a folder"),
        ("interpolate RUN --turns nan", "--turns must be between -1000 and 1000, got nan"),
        ("interpolate RUN --output RUN", "RUN: is a folder, expected a file"),
        ("extract-mesh RUN --resolution 4000", "--resolution must be between 4 and 1024, got 4000"),
        ("extract-mesh RUN --output-dir FILE", "FILE: is a file, expected a folder"),
        ("evaluate RUN --shapes -2", "--shapes must be at least 0, got -2"),
        ("evaluate RUN --seed -1", "--seed must be between 0 and 9.22337e+18, got -1"),
        ("evaluate RUN --output FILE --real FILE", "FILE: is read; name another file"),
        ("evaluate RUN --output FILE/a.json", "FILE is not a folder"),
        ("invert RUN FILE --resolution 1", "--resolution must be between 4 and 8192, got 1"),
        ("invert RUN FILE --candidates -3", "--candidates must be positive, got -3"),
        ("invert RUN FILE --mask-weight nan", "--mask-weight must be between 0 and 1e+06, got nan"),
        ("invert RUN FILE --background 255 255 255", "--background must be RGB in 0..1, got 255 255 255"),
        ("invert RUN FILE --background 1 1 1", "FILE: has neither alpha nor the background (1.0, 1.0, 1.0)"),
        ("invert RUN FILE --background 0 0 0", "FILE: nothing is to be seen in it"),
        ("invert RUN CLEAR", "CLEAR: nothing is to be seen in it: all of it is transparent"),
        ("invert RUN HALF --output-dir FOLDER", "found.png: is read; name another file"),
    ],
)
def test_it_is_refused_before_the_work(
    arguments: str, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": run, "FILE": tmp_path / "black.png", "CLEAR": tmp_path / "clear.png", "FOLDER": tmp_path}
    places["HALF"] = tmp_path / "found.png"
    save_image(places["FILE"], torch.zeros(3, 8, 8))
    save_image(places["CLEAR"], torch.zeros(4, 8, 8))
    save_image(places["HALF"], torch.eye(8).expand(4, 8, 8))
    for name, path in places.items():
        arguments, message = arguments.replace(name, str(path)), message.replace(name, str(path))
    before = files(run)
    assert message in error(capsys, *arguments.split())
    assert files(run) == before


# ---------------------------------------------------------------------------------------- what one does with a run


def frames_of(path: Path) -> list[np.ndarray]:
    return [np.asarray(frame).astype(int) for frame in imageio.get_reader(path)]


@pytest.mark.parametrize("mode", ["turntable", "orbit", "front"])
def test_videos_move(mode: str, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    arguments = ["--mode", mode, "--seeds", "1", "2", "--frames", "4", "--resolution", "48", "--show", "normals"]
    assert main(["render", str(run), *arguments, "--output", str(output)]) == 0
    frames = frames_of(output)
    assert len(frames) == 4 and abs(frames[0] - frames[1]).mean() > 0.2


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_videos_for_web_pages(suffix: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--frames", "3", "--resolution", "32", "--seeds", "1-2", "--fps", "10"]
    for command, mode in (("render", ["--mode", "turntable"]), ("interpolate", [])):
        output = tmp_path / f"{command}.{suffix}"
        assert main([command, str(run), *mode, *sizes, "--output", str(output)]) == 0
        with Image.open(output) as file:
            assert file.format == suffix.upper() and file.n_frames == (3 if mode else 6) and file.info["loop"] == 0
    assert "turntable 3/3" not in capsys.readouterr().out  # bars are not called by files


def test_one_picture_of_each_shape(run: Path, tmp_path: Path) -> None:
    arguments = ["--seeds", "0-3", "--resolution", "32", "--azimuth", "10"]
    assert main(["render", str(run), "--mode", "seeds", *arguments, "--output", str(tmp_path / "a.png")]) == 0
    assert imageio.imread(tmp_path / "a.png").shape == (64, 64, 3)
    assert main(["render", str(run), "--mode", "images", *arguments, "--output", str(tmp_path / "many")]) == 0
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [f"shape-{i}.png" for i in range(4)]


def test_pictures_are_written_as_they_are_made(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C there are those of the batches before; a sheet's empty place is white."""
    arguments = ["--seeds", "0-2", "--resolution", "32", "--azimuth", "10", "--output"]
    assert main(["render", str(run), "--mode", "seeds", *arguments, str(tmp_path / "a.png")]) == 0
    assert imageio.imread(tmp_path / "a.png")[32:, 32:].min() == 255
    looked: list[int] = []

    def interrupted(*given: object, **options: object) -> Rendering:
        looked.append(1)
        if len(looked) == 3:
            raise KeyboardInterrupt
        return look(*given, **options)

    look = picture.look
    monkeypatch.setattr(picture, "look", interrupted)
    monkeypatch.setattr("sdfgan.gan.views._RAYS_AT_ONCE", 32**2)
    assert main(["render", str(run), "--mode", "images", *arguments, str(tmp_path / "many")]) == 130
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["shape-0.png", "shape-1.png"]


def test_a_full_disk_is_no_missing_shape(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(mesh: object, path: Path) -> None:
        raise UserError(f"{path}: no space left on the disk")

    monkeypatch.setattr("sdfgan.commands.extract_mesh.export_mesh", full)
    said = error(capsys, "extract-mesh", str(run), "--resolution", "16", "--output-dir", str(tmp_path))
    assert "shape-0.glb: no space left" in said and "no mesh" not in said


def test_truncation_tends_to_the_mean_shape(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    spreads = []
    for psi in ("1", "0.5", "0"):
        output = tmp_path / f"{psi}.png"
        arguments = ["--mode", "seeds", "--seeds", "0-3", "--resolution", "32", "--psi", psi, "--output", str(output)]
        assert main(["render", str(run), *arguments]) == 0
        picture = imageio.imread(output).astype(float).reshape(2, 32, 2, 32, 3).transpose(0, 2, 1, 3, 4)
        spreads.append(picture.reshape(4, -1).std(0).mean())
    assert spreads[0] > spreads[1] > spreads[2] == 0


@pytest.mark.parametrize("space", ["w", "z"])
def test_interpolation_goes_from_shape_to_shape(space: str, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    arguments = ["--seeds", "0", "3", "--frames", "3", "--turns", "0", "--resolution", "48", "--space", space]
    assert main(["interpolate", str(run), *arguments, "--output", str(output)]) == 0
    frames = frames_of(output)
    distances = [abs(frame - frames[0]).mean() for frame in frames]
    assert len(frames) == 6 and 0 < distances[1] < distances[3]
    assert distances[3] == max(distances) or distances[3] > distances[5] > 0, "it returns"


def test_interpolation_of_one_shape(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "at least two shapes" in error(capsys, "interpolate", str(run), "--seeds", "1")


def test_meshes_are_watertight_and_volumes_open(run: Path, tmp_path: Path) -> None:
    for suffix in ("stl", "mrc"):
        arguments = ["--seeds", "2", "--resolution", "24", "--format", suffix, "--output-dir", str(tmp_path)]
        assert main(["extract-mesh", str(run), *arguments]) == 0
    mesh = trimesh.load(tmp_path / "shape-2.stl")
    assert mesh.is_watertight and mesh.volume > 0
    with mrcfile.open(tmp_path / "shape-2.mrc") as volume:
        inside = volume.data > 0
        cell = float(volume.voxel_size.x)
        assert volume.data.shape == (25, 25, 25) and cell == pytest.approx(2 / 24)
        assert float(volume.header.origin.x) == -1
        assert inside.sum() * cell**3 == pytest.approx(mesh.volume, rel=0.1)
        # x is the fastest axis: the centre of mass of what is inside is that of the mesh.
        z, y, x = (index.mean() * cell - 1 for index in np.nonzero(inside))
        assert np.allclose((x, y, z), mesh.center_mass, atol=0.02)


def test_evaluate(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path))
    monkeypatch.delenv("SDFGAN_INCEPTION", raising=False)
    output = tmp_path / "scores.json"
    arguments = ["--images", "40", "--shapes", "7", "--output", str(output)]
    assert main(["evaluate", str(run), *arguments]) == 0
    said = capsys.readouterr().out
    assert "no Inception weights, so no FID" in said and said.splitlines()[-1].endswith(f"wrote {output}")
    scores = json.loads(output.read_text())
    assert scores["images"] == 40 and scores["weights"] == "ema" and scores["resolution"] == 32
    assert scores["swd"] > scores["swd_floor"] > 0 and 0 <= scores["coverage"] <= 1 and scores["mmd"] > 0
    monkeypatch.setattr("sdfgan.commands.evaluate.find_weights", lambda given: Path("stand-in"))
    monkeypatch.setattr("sdfgan.commands.evaluate.load_inception", lambda path: StandIn())
    assert main(["evaluate", str(run), "--images", "40", "--psi", "0.5", "--output", str(output)]) == 0
    scores = json.loads(output.read_text())
    assert scores["fid"] > 0 and 0 <= scores["precision"] <= 1 and scores.keys() >= {"kid", "recall"}
    capsys.readouterr()
    assert "--images must be positive" in error(capsys, "evaluate", str(run), "--images", "0")
    assert "nowhere: no such" in error(capsys, "evaluate", str(run), "--real", str(tmp_path / "nowhere"))


def test_shapes_of_a_run_with_data_of_its_own_are_not_compared_with_solids(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, state = load_checkpoint(resolve_checkpoint(run))
    config = {**state["config"], "data": "chairs"}
    save_checkpoint(tmp_path / "chairs", state["step"], tensors, {"kind": "gan", "config": config})
    assert "comes from chairs: leave it out" in error(capsys, "evaluate", str(tmp_path / "chairs"), "--shapes", "7")


def test_a_run_that_grows_is_evaluated_as_it_was_at_the_checkpoint(run: Path, tmp_path: Path) -> None:
    tensors, state = load_checkpoint(resolve_checkpoint(run))
    stages = [{"step": 0, "resolution": 16}, {"step": state["step"] + 1, "resolution": 32}]
    config = {**state["config"], "discriminator": "progressive", "stages": stages}
    save_checkpoint(tmp_path / "growing", state["step"], tensors, {"kind": "gan", "config": config})
    scores = tmp_path / "scores.json"
    assert main(["evaluate", str(tmp_path / "growing"), "--images", "4", "--output", str(scores)]) == 0
    assert json.loads(scores.read_text())["resolution"] == 16


class StandIn(torch.nn.Module):
    """In place of Inception, whose weights are not at hand: mean colours of quarters."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(1)

    early = forward


def test_invert(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--mode", "images", "--seeds", "5", "--resolution", "32"]
    assert main(["render", str(run), *arguments, "--output", str(tmp_path)]) == 0
    effort = ["--candidates", "16", "--starts", "2", "--latent-steps", "4", "--code-steps", "4"]
    sizes = ["--mesh-resolution", "16", "--view-resolution", "32", "--frames", "3"]
    photograph, output = tmp_path / "shape-5.png", tmp_path / "found"
    arguments = [str(run), str(photograph), *effort, *sizes, "--output-dir", str(output)]
    capsys.readouterr()
    assert "has no alpha; name its plain background" in error(capsys, "invert", *arguments)
    assert main(["invert", *arguments, "--background", "1", "1", "1"]) == 0
    names = {"found.png", "optimisation.mp4", "turntable.mp4", "mesh.glb", "codes.safetensors", "found.json"}
    assert {path.name for path in output.iterdir()} == names
    found = json.loads((output / "found.json").read_text())
    assert found["silhouette_iou"] > 0.5 and found["familiarity"]["code_percentile"] >= 0
    assert "% of random shapes" in capsys.readouterr().out
    assert len(frames_of(output / "turntable.mp4")) == 3 and len(frames_of(output / "optimisation.mp4")) == 4
    assert trimesh.load(output / "mesh.glb", force="mesh").is_watertight
    tensors = load_file(output / "codes.safetensors")
    assert tensors["latent"].shape == (1, 4) and tensors["code.scales"].shape[0] == 1
    loss = json.loads((output / "found.json").read_text())["loss"]
    monkeypatch.setattr("sdfgan.commands.invert.find_weights", lambda given: Path("stand-in"))
    monkeypatch.setattr("sdfgan.commands.invert.load_inception", lambda path: StandIn())
    assert main(["invert", *arguments, "--background", "1", "1", "1", "--perceptual", "100"]) == 0
    assert json.loads((output / "found.json").read_text())["loss"] > loss + 1e-4
    capsys.readouterr()
    assert "nowhere.png: no such picture" in error(capsys, "invert", str(run), "nowhere.png")
    (tmp_path / "bad.png").write_text("text")
    assert "bad.png: not a picture" in error(capsys, "invert", str(run), str(tmp_path / "bad.png"))


def test_files_are_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "generator.pth").write_bytes(b"")
    said = error(capsys, "render", str(tmp_path / "generator.pth"))
    assert "sdfgan import-weights" in said


def test_a_reader_may_have_seen_enough() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sdfgan", "train-gan", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA_VISIBLE_DEVICES is read once, when torch first looks")
@pytest.mark.parametrize("devices", ["", "-1"])
def test_hidden_gpus_are_none(
    devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    for command in ("train-gan --dry-run", "train-sdf a.stl", "train-nerf --data a", "fit-image csg", "evaluate a"):
        assert main([*command.split(), "--device", "cuda"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("--device cuda: this machine (or this build of torch) has no CUDA device")
