"""What the sub-commands that take a finished run write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v2 as imageio
import mrcfile
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file

from command_line import error
from sdfgan.cli import main
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig, make_generator, views
from sdfgan.images import save_image
from sdfgan.raycast import Rendering
from sdfgan.training.checkpoint import load_checkpoint, pack_module, resolve_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the checkpoint of a tiny, untrained generator."""
    folder = tmp_path_factory.mktemp("runs") / "gan-001"
    config = GanConfig(device="cpu", latent_size=4, width=16, mapping_width=16).resolved()
    torch.manual_seed(0)
    tensors = pack_module(make_generator(config), "ema")
    save_checkpoint(folder, 5, tensors, {"kind": "gan", "config": config.to_json()})
    return folder


# ---------------------------------------------------------------------------------------- looking at a run


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("show", ["colour", "depth", "normals"])
def test_render_pictures(show: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, before = tmp_path / "a.png", files(run)
    arguments = ["--seeds", "0,4-5", "--views", "2", "--resolution", "32", "--output", str(output)]
    assert main(["render", str(run), "--show", show, *arguments]) == 0
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


def test_mixed_styles(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shapes of the rows, colours of the columns: so rows have one silhouette, and what is mixed with itself is as
    before."""
    output, plain = tmp_path / "mix.png", tmp_path / "plain.png"
    size = ["--resolution", "32", "--azimuth", "20"]
    arguments = ["--mode", "mix", "--seeds", "0,1", "--texture-seeds", "1,2,3", *size, "--output", str(output)]
    assert main(["render", str(run), *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {output}"
    cells = imageio.imread(output).reshape(3, 32, 4, 32, 3).swapaxes(1, 2).astype(int)
    assert (cells[0, 0] == 255).all()
    assert main(["render", str(run), "--mode", "seeds", "--seeds", "0-3", *size, "--output", str(plain)]) == 0
    alone = imageio.imread(plain).reshape(2, 32, 2, 32, 3).swapaxes(1, 2).reshape(4, 32, 32, 3).astype(int)
    for cell, seed in ((cells[0, 1], 1), (cells[0, 3], 3), (cells[1, 0], 0), (cells[2, 0], 1), (cells[2, 1], 1)):
        assert abs(cell - alone[seed]).max() <= 1
    assert abs(cells[1, 2] - cells[1, 0]).max() > 5, "other colours"
    # In normals colours play no part: a row is one image, silhouette and surface.
    arguments[-1] = str(tmp_path / "normals.png")
    assert main(["render", str(run), *arguments, "--show", "normals"]) == 0
    shown = imageio.imread(arguments[-1]).reshape(3, 32, 4, 32, 3).swapaxes(1, 2)
    assert (shown[1:] == shown[1:, :1]).all() and (shown[1, 0] != shown[2, 0]).any()


def test_a_mesh_in_the_colours_of_another(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["extract-mesh", str(run), "--mesh-resolution", "24", "--format", "ply", "--seeds", "1"]
    for name, more in (("own", []), ("itself", ["--texture-seeds", "1"]), ("other", ["--texture-seeds", "5"])):
        assert main([*arguments, *more, "--output-dir", str(tmp_path / name)]) == 0
    own, itself, other = (trimesh.load(tmp_path / name / "shape-1.ply") for name in ("own", "itself", "other"))
    assert (own.vertices == other.vertices).all()
    assert (own.visual.vertex_colors == itself.visual.vertex_colors).all()
    assert (own.visual.vertex_colors != other.visual.vertex_colors).any()


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_extract_mesh(suffix: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seeds", "1,3", "--resolution", "24", "--format", suffix, "--output_dir", str(tmp_path)]
    assert main(["extract-mesh", str(run), *arguments]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"shape-1.{suffix}", f"shape-3.{suffix}"}
    (mesh,) = trimesh.load_scene(tmp_path / f"shape-1.{suffix}").geometry.values()
    colours = mesh.visual.vertex_attributes["color"] if suffix == "glb" else mesh.visual.vertex_colors
    assert mesh.volume > 0 and len(colours) == len(mesh.vertices)
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
    for show in ("depth", "normals"):  # former modes
        said = f"--mode {show}: is given as --show {show} (see sdfgan render --help)"
        assert said in error(capsys, "render", here, "--mode", show)
        assert said in error(capsys, "render", here, f"--mode={show}", "--show", "normals")
    assert "--device" in error(capsys, "extract-mesh", here, "--device", "tpu")
    assert "RUN" in error(capsys, "render")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("render RUN --resolution 40000", "--resolution must be between 1 and 8192, got 40000"),
        ("render RUN --resolution 2000", "--resolution: 48 images in one can have 1672 px each, got 2000"),
        ("render RUN --mode seeds --azimuth nan", "--azimuth must be between -360 and 360, got nan"),
        ("render RUN --mode front --azimuth inf", "--azimuth must be between -360 and 360, got inf"),
        (
            "render RUN --seeds 0-2 --texture-seeds 3,4",
            "--texture-seeds: one for all of the 3 shapes or one for each, got 2",
        ),
        ("extract-mesh RUN --texture-seeds x", "--texture-seeds must be numbers and ranges such as 0,3,8-12, got 'x'"),
        ("render RUN --truncation 1e30", "--truncation must be between -10 and 10, got 1e+30"),
        ("render RUN --output FILE/a.png", "FILE is not a folder"),
        ("render RUN --mode front --frames 9000 --output FOLDER/a.gif", "pixels are too many for a .gif"),
        ("interpolate RUN --output FOLDER/a.avi", "--output: a video is written as .mp4 or .gif or .webp, got"),
        ("interpolate RUN --frames 9000 --output FOLDER/a.webp", "pixels are too many for a .webp"),
        ("invert RUN FILE --mesh-resolution 1", "--mesh-resolution must be 0 (no mesh) or at least 4, got 1"),
        ("invert RUN FILE --frames -1", "--frames must not be negative, got -1"),
        ("train-gan --device cpu --mesh-resolution 1", "--mesh-resolution must be 0 (no mesh) or at least 4"),
        ("train-gan --device cpu --mesh-resolution -8", "--mesh-resolution must be 0 (no mesh) or at least 4"),
        ("train-gan --device cpu --video-frames -1", "--video-frames must not be negative, got -1"),
        (
            "train-nerf --device cpu --data RUN --mesh-resolution 3",
            "--mesh-resolution must be 0 (no mesh) or at least 4",
        ),
        (
            "train-sdf FILE --device cpu --mesh-resolution 1",
            "--mesh-resolution must be 0 (no mesh) or at least 4",
        ),
        ("fit-image a.stl --mesh-resolution 2", "--mesh-resolution must be 0 (no mesh) or at least 4, got 2"),
        ("fit-image a.stl --video-frames -2", "--video-frames must not be negative, got -2"),
        ("render RUN --mode images --output FILE", "FILE: is a file, expected a folder"),
        ("interpolate RUN --turns nan", "--turns must be between -1000 and 1000, got nan"),
        ("interpolate RUN --output RUN", "RUN: is a folder, expected a file"),
        ("extract-mesh RUN --resolution 4000", "--mesh-resolution must be between 4 and 1024, got 4000"),
        ("extract-mesh RUN --output-dir FILE", "FILE: is a file, expected a folder"),
        ("evaluate RUN --shapes -2", "--shapes must be a number from 0 to 1000000, or a folder of meshes, got -2"),
        ("evaluate RUN --seed -1", "--seed must not be negative, got -1"),
        ("evaluate RUN --output FILE --real FILE", "FILE: is read; name another file"),
        ("evaluate RUN --output FILE/a.json", "FILE is not a folder"),
        ("invert RUN FILE --resolution 1", "--resolution must be between 4 and 8192, got 1"),
        ("invert RUN FILE --candidates -3", "--candidates must be positive, got -3"),
        ("invert RUN FILE --mask-weight nan", "--mask-weight must be between 0 and 1e+06, got nan"),
        ("invert RUN FILE --background 255 255 255", "--background must be RGB in 0..1, got 255 255 255"),
        ("invert RUN FILE --background 1 1 1", "FILE: has neither alpha nor the background (1.0, 1.0, 1.0)"),
        ("invert RUN FILE --background 0 0 0", "FILE: the image is empty"),
        ("invert RUN CLEAR", "CLEAR: the image is empty: all of it is transparent"),
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

    look = views.look
    monkeypatch.setattr(views, "look", interrupted)
    monkeypatch.setattr("sdfgan.gan.views._RAYS_AT_ONCE", 32**2)
    assert main(["render", str(run), "--mode", "images", *arguments, str(tmp_path / "many")]) == 130
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["shape-0.png", "shape-1.png"]


def test_a_full_disk_is_no_missing_shape(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(mesh: object, path: Path) -> None:
        raise UserError(f"{path}: no space left on the disk")

    monkeypatch.setattr("sdfgan.cli.extract_mesh.export_mesh", full)
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
    monkeypatch.setattr("sdfgan.cli.evaluate.find_weights", lambda given: Path("stand-in"))
    monkeypatch.setattr("sdfgan.cli.evaluate.load_inception", lambda path: StandIn())
    assert main(["evaluate", str(run), "--images", "40", "--psi", "0.5", "--output", str(output)]) == 0
    scores = json.loads(output.read_text())
    assert scores["fid"] > 0 and 0 <= scores["precision"] <= 1 and scores.keys() >= {"kid", "recall"}
    capsys.readouterr()
    assert "--images must be positive" in error(capsys, "evaluate", str(run), "--images", "0")
    assert "nowhere: no such" in error(capsys, "evaluate", str(run), "--real", str(tmp_path / "nowhere"))


def test_shapes_are_compared_with_a_folder_of_meshes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    for name, sides in (("seen", (0.3, 0.6, 0.9)), ("unseen", (0.5, 0.8))):
        (tmp_path / name).mkdir()
        for side in sides:
            trimesh.creation.box((side, 0.4, 1)).export(tmp_path / name / f"{side:g}--0.ply")
    output = tmp_path / "scores.json"
    arguments = ["--images", "8", "--training-shapes", str(tmp_path / "seen"), "--output", str(output)]
    assert main(["evaluate", str(run), "--shapes", str(tmp_path / "unseen"), *arguments]) == 0
    assert "shapes above the nearest that were learned from" in capsys.readouterr().out
    scores = json.loads(output.read_text())
    assert scores["shapes"] == str(tmp_path / "unseen") and scores["mmd"] > scores["floor_mmd"] > 0
    assert scores["novelty"] > scores["floor_novelty"] > 0 and scores["shapeless"] == 0
    assert scores["connected"] == scores["floor_connected"] == scores["floor_one_body"] == 1
    assert scores["coverage"] in (0.5, 1) and 0 <= scores["turned"] < 360
    assert imageio.imread(tmp_path / "scores-nearest.png").shape == (2 * 192, 2 * 192, 3)
    assert "give --shapes MESHES too" in error(capsys, "evaluate", str(run), "--up", "z")
    assert "give --shapes MESHES too" in error(capsys, "evaluate", str(run), "--shapes", "4", *arguments)
    assert "nowhere: no such" in error(capsys, "evaluate", str(run), "--shapes", str(tmp_path / "nowhere"))


def test_what_the_meshes_to_compare_with_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corner that is no number, objects that were learned from, fewer of these than of the others."""
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    true, seen = tmp_path / "true", tmp_path / "seen"
    for folder in (true, seen):
        folder.mkdir()
    for side in (0.3, 0.5, 0.7):
        trimesh.creation.box((side, 0.4, 1)).export(true / f"{side:g}.obj")
    for side in (0.4, 0.6):
        trimesh.creation.box((side, 0.4, 1)).export(seen / f"{side:g}.obj")
    with (true / "0.5.obj").open("a") as file:
        file.write("\nv nan 0 0\nf 1 2 9\n")
    arguments = ["evaluate", str(run), "--shapes", str(true), "--images", "8", "--training-shapes"]
    output = tmp_path / "scores.json"
    assert main([*arguments, str(seen), "--output", str(output)]) == 0
    assert "\nthe floor is of 2 objects against 3: its coverage is too low\n" in capsys.readouterr().out
    assert json.loads(output.read_text())["mmd"] > 0
    assert main([*arguments, str(true), "--output", str(output)]) == 0
    assert "\n3 of the 3 objects to compare with are among --training-shapes\n" in capsys.readouterr().out
    for read in (true / "0.3.obj", seen / "0.4.obj"):
        assert f"{read}: is read; name another" in error(capsys, *arguments, str(seen), "--output", str(read))


def test_real_images_are_drawn_from_all_that_are_given(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that come object by object, dark ones first: halves of them are alike."""
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    for number in range(64):
        value = 40 if number < 32 else 240
        imageio.imwrite(tmp_path / f"{number:02d}.png", np.full((32, 32, 3), value, np.uint8))
    output = tmp_path / "scores.json"
    assert main(["evaluate", str(run), "--real", str(tmp_path), "--images", "32", "--output", str(output)]) == 0
    assert json.loads(output.read_text())["swd_floor"] < 0.1


def test_shapes_of_a_run_with_data_of_its_own_are_not_compared_with_solids(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, state = load_checkpoint(resolve_checkpoint(run))
    config = {**state["config"], "data": "chairs"}
    save_checkpoint(tmp_path / "chairs", state["step"], tensors, {"kind": "gan", "config": config})
    assert "comes from chairs: give a folder of meshes" in error(
        capsys, "evaluate", str(tmp_path / "chairs"), "--shapes", "7"
    )


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
    monkeypatch.setattr("sdfgan.cli.invert.find_weights", lambda given: Path("stand-in"))
    monkeypatch.setattr("sdfgan.cli.invert.load_inception", lambda path: StandIn())
    assert main(["invert", *arguments, "--background", "1", "1", "1", "--perceptual", "100"]) == 0
    assert json.loads((output / "found.json").read_text())["loss"] > loss + 1e-4
    capsys.readouterr()
    assert "nowhere.png: no such image" in error(capsys, "invert", str(run), "nowhere.png")
    (tmp_path / "bad.png").write_text("text")
    assert "bad.png: not an image" in error(capsys, "invert", str(run), str(tmp_path / "bad.png"))


def test_files_are_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "generator.pth").write_bytes(b"")
    said = error(capsys, "render", str(tmp_path / "generator.pth"))
    assert "sdfgan import-weights" in said
