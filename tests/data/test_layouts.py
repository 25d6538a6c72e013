"""Data sets in every layout: labels, poses, conventions; shards that are read in place; what `sdfgan dataset` does."""

from __future__ import annotations

import io
import json
import math
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdfgan.cameras import Empirical
from sdfgan.cli import main
from sdfgan.data.image_sets import InMemory, OnDisk, shrink
from sdfgan.data.layouts import open_data
from sdfgan.errors import UserError


def png(colour: tuple[int, ...], size: tuple[int, int] = (16, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def tar(path: Path, files: dict[str, bytes | str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            content = data if isinstance(data, bytes) else data.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def reds(pictures: InMemory | OnDisk, resolution: int = 8) -> list[int]:
    return pictures.batch(torch.arange(len(pictures)), resolution)[:, 0, 4, 4].tolist()


STYLEGAN = {
    "00000/img00000000.png": png((10, 0, 0)),
    "00000/img00000001.png": png((20, 0, 0)),
    "00000/img00000002.png": png((30, 0, 0)),
    "dataset.json": json.dumps({"labels": [["00000/img00000000.png", 4], ["00000/img00000002.png", 5]]}),
}


def test_stylegan_labels(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in STYLEGAN.items():
            archive.writestr(name, data)
    for path in (tmp_path / "set.zip", put(tmp_path / "set", STYLEGAN)):
        found = open_data(path, 8)
        assert reds(found.images) == [10, 20, 30] and found.layout == "plain"
        assert found.images.labels.tolist() == [4, -1, 5]
        assert reds(open_data(path, 8, label=5).images) == [30]
        with pytest.raises(UserError, match=r"no image has the label 9; there are \[4, 5\]"):
            open_data(path, 8, label=9)
    put(tmp_path / "bad", {"a.png": png((1, 2, 3)), "dataset.json": '{"labels": [1]}'})
    with pytest.raises(UserError, match=r"dataset\.json: expected"):
        open_data(tmp_path / "bad", 8)
    with pytest.raises(UserError, match="--label 3: no labels found"):
        open_data(put(tmp_path / "none", {"a.png": png((1, 2, 3))}), 8, label=3)


def label_set(folder: Path, values: list[Any]) -> Path:
    names = [f"00000/img{i:08d}.png" for i in range(len(values))]
    labels = json.dumps({"labels": [[name, value] for name, value in zip(names, values, strict=True)]})
    return put(folder, {**{name: png((10 * i, 0, 0)) for i, name in enumerate(names)}, "dataset.json": labels})


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([2.0, 0.0, 11], [2, 0, 11]),
        (["2", "0", "1.0"], [2, 0, 1]),
        ([[0, 0, 1], [1, 0, 0], [0.0, 1.0, 0.0]], [2, 0, 1]),
        ([[3], [0], ["1"]], [3, 0, 1]),
        ([1, 10**400, 2], [1, -1, 2]),
        ([1, "chair", 0.5], [1, -1, -1]),
        ([[0, 1, 1], [0.5, 0.5], 7], [-1, -1, 7]),
        ([True, None, 7], [-1, -1, 7]),
    ],
)
def test_labels_as_people_write_them(tmp_path: Path, values: list[Any], labels: list[int]) -> None:
    """Integers as numbers, texts or one-hot; what is none is counted."""
    found = open_data(label_set(tmp_path, values), 8)
    assert found.images.labels is not None and found.images.labels.tolist() == labels
    strange = [value for value, label in zip(values, labels, strict=True) if label < 0]
    said = f"dataset.json: {len(strange)} labels are not integers: left out, the first: {str(strange[:1])[1:-1][:30]}"
    lacking, expected = labels.count(-1), [said.replace("'", "")] * bool(strange)
    expected += [f"{lacking} of {len(labels)} images have no label"] * (0 < lacking < len(labels))
    assert all(part in note for part, note in zip(expected, found.notes, strict=True))


def test_labels_without_an_integer_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = label_set(tmp_path / "a", ["chair", "table"])
    assert main(["dataset", "check", str(folder)]) == 0
    assert "2 labels are not integers: left out, the first: chair" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no labels found .*2 labels are not integers"):
        open_data(folder, 8, label=1)
    folder = put(tmp_path / "b", {"a.png": png((1, 0, 0)), "a.cls": "x", "b.png": png((2, 0, 0)), "b.cls": "3.0\n"})
    found = open_data(folder, 8)
    assert found.images.labels.tolist() == [-1, 3] and "cls files: 1 labels are not integers" in found.notes[0]
    names = json.dumps({"labels": [["x\\a.jpg", 1], ["x/b", 2], ["x/none.png", 3]]})
    found = open_data(
        put(tmp_path / "c", {"x/a.png": png((1, 0, 0)), "x/b.png": png((2, 0, 0)), "dataset.json": names}), 8
    )
    assert found.images.labels.tolist() == [1, 2]
    assert found.notes == [f"{tmp_path / 'c'}: 1 labels belong to no image, the first: x/none.png"]


def test_files_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    texts = {"a.json": "{}", "b.txt": "a chair", "a.cls": "1", "poses.json": '{"c.png": [1, 2]}'}
    files = {"a.png": png((1, 0, 0)), **texts}
    found = open_data(put(tmp_path, files), 8)
    assert sorted(found.notes) == [
        f"{tmp_path}: 1 poses belong to no image, the first: c.png",
        f"{tmp_path}: not used: 2 files beside the images, the first: a.json",
    ]


def test_pictures_and_tables_of_other_kinds_are_counted(tmp_path: Path) -> None:
    files = {name: b"x" for name in ("b.heic", "c.EXR", "d.dng", "attributes.csv", "labels.npz", "more.zip")}
    found = open_data(put(tmp_path / "a", {"a.png": png((1, 0, 0)), "e.jfif": png((2, 0, 0)), **files}), 8)
    assert reds(found.images) == [1, 2]
    not_read, unused = sorted(found.notes)
    assert not_read.startswith(f"{tmp_path / 'a'}: not read: 3 images (.dng, .exr, .heic): convert them to PNG")
    assert "not used: 3 files beside the images" in unused


@pytest.mark.parametrize("content", ['[["a.png", 1]]', '{"a.png": 1}'])
def test_labels_of_another_form_are_said(tmp_path: Path, content: str) -> None:
    (note,) = open_data(put(tmp_path, {"a.png": png((1, 0, 0)), "dataset.json": content}), 8).notes
    assert note == f'{tmp_path}: dataset.json: has no {{"labels": [[name, label], ...]}}: not used'


def test_a_label_belongs_to_all_pictures_of_its_name_and_there_is_one(tmp_path: Path) -> None:
    two = {"a.png": png((1, 0, 0)), "a.jpg": png((2, 0, 0)), "b.png": png((3, 0, 0))}
    assert open_data(put(tmp_path / "a", {**two, "a.cls": "1"}), 8).images.labels.tolist() == [1, 1, -1]
    for i, (first, second) in enumerate(((3, 4), (3, 3), (eg3d(0, 0), eg3d(1, 0)))):
        pairs = json.dumps({"labels": [["a.png", first], ["a.png", second]]})
        folder = put(tmp_path / f"b{i}", {**two, "dataset.json": pairs})
        if first == second:
            assert open_data(folder, 8).notes == ([] if i > 1 else [f"{folder}: 2 of 3 images have no label"])
        else:
            with pytest.raises(UserError, match=r"dataset\.json: a\.png has .* already, and now"):
                open_data(folder, 8)


def test_zips_made_on_windows_and_encrypted_ones(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("x\\a.png", "x\\b.png"):
            info = zipfile.ZipInfo("name")
            info.filename = name  # as it is, where the constructor would mend it
            archive.writestr(info, png((1, 0, 0)))
        archive.writestr("dataset.json", json.dumps({"labels": [["x/a.png", 1], ["x\\b.png", 2]]}))
    found = open_data(tmp_path / "a.zip", 8)
    assert found.names == ["x/a.png", "x/b.png"] and found.images.labels.tolist() == [1, 2]
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the directory: bit 0 of its flags
    data[at + 8] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    assert open_data(tmp_path / "b.zip", 8).skipped == [("x\\a.png", "is encrypted")]


def test_folders_and_pictures_that_are_links(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", {"b.png": png((2, 0, 0)), "deep/c.png": png((3, 0, 0))})
    folder = put(tmp_path / "set", {"a.png": png((1, 0, 0))})
    for name, target in (
        ("linked", "../elsewhere"),
        ("again", "../elsewhere"),
        ("loop", "."),
        ("up", "/"),
        ("z.png", "none.png"),
    ):
        (folder / name).symlink_to(target)
    found = open_data(folder, 8)
    assert sorted(reds(found.images)) == [1, 2, 3] and found.skipped == [("z.png", "a link to no file")]


def test_links_do_not_take_the_names_of_folders(tmp_path: Path) -> None:
    """Labels are by the names of real folders, whatever leads to them as well."""
    labels = json.dumps({"labels": [["b/0.png", 1], ["b/c/1.png", 0]]})
    files = {"b/0.png": png((1, 0, 0)), "b/c/1.png": png((2, 0, 0)), "dataset.json": labels}
    folder = put(tmp_path / "set", files)
    (folder / "aa").symlink_to("b/c")
    (folder / "zz").symlink_to("b")
    found = open_data(folder, 8)
    assert reds(found.images) == [1, 2] and found.images.labels.tolist() == [1, 0]


def eg3d(elevation: float, azimuth: float, focal: float = 4.2647) -> list[float]:
    """A label of EG3D as its own code makes them: a camera on a sphere of 2.7 that looks at the origin, y up."""
    e, a = math.radians(elevation), math.radians(azimuth)
    position = 2.7 * np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, (0, 1, 0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack((right, np.cross(forward, right), forward, position), 1)
    return [*pose.flatten().tolist(), focal, 0, 0.5, 0, focal, 0.5, 0, 0, 1]


def test_labels_of_eg3d_are_poses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    angles = [(0, 0), (20, 35), (-30, -120)]
    assert eg3d(0, 0)[:16] == [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1]  # as EG3D has it
    folder = label_set(tmp_path / "a", [eg3d(*pair) for pair in angles])
    found = open_data(folder, 8)
    assert found.images.labels is None
    torch.testing.assert_close(found.images.poses.rad2deg(), torch.tensor(angles).float(), atol=1e-3, rtol=0)
    (note,) = found.notes
    assert "3 labels are cameras" in note and "(13.37 degrees)" in note
    assert main(["dataset", "convert", str(folder), str(tmp_path / "out.zip"), "--resolution", "8"]) == 0
    assert "3 labels are cameras" in capsys.readouterr().out
    torch.testing.assert_close(open_data(tmp_path / "out.zip", 8).images.poses, found.images.poses)
    skewed = eg3d(1, 2)
    skewed[0] += 0.1
    found = open_data(label_set(tmp_path / "b", [eg3d(0, 0), skewed, eg3d(3, 4, focal=2.0)]), 8)
    assert found.images.poses is None and found.images.labels is None
    assert "(13.37 to 28.07 degrees)" in found.notes[1] and "1 labels are not integers" in found.notes[0]
    assert "1 of 3 images have no pose, so none is used" in found.notes[2]


def test_shapenet_renderings(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for index, name in enumerate("ab"):
        for view in range(3):
            files[f"{name}/rendering/{view:02d}.png"] = png((10 * index, view, 0, 255))
        files[f"{name}/rendering/rendering_metadata.txt"] = "90 10 0 0.8 25\n180 20 0 0.8 25\n270 30 0 0.8 25\n"
    found = open_data(put(tmp_path, files), 8)
    assert found.layout == "shapenet" and found.images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    poses = found.images.poses.rad2deg()
    torch.testing.assert_close(poses[:3], torch.tensor([[10.0, 90], [20, 180], [30, 270]]))


def test_webdataset_shards_are_read_in_place(tmp_path: Path) -> None:
    for shard in range(2):
        files = {f"{i:03d}.png": png((shard * 10 + i, 0, 0)) for i in range(3)} | {"001.cls": str(shard)}
        tar(tmp_path / f"shard-{shard}.tar", files)
    found = open_data(tmp_path, 8)
    assert reds(found.images) == [0, 1, 2, 10, 11, 12]
    assert found.images.labels.tolist() == [-1, 0, -1, -1, 1, -1]
    assert reds(open_data(tmp_path / "shard-1.tar", 8).images) == [10, 11, 12]
    evil = tar(
        tmp_path / "evil.tar", {"../out.png": png((1, 0, 0)), "/abs.png": png((1, 0, 0)), "in.png": png((7, 0, 0))}
    )
    found = open_data(evil, 8)
    assert reds(found.images) == [7] and len(found.skipped) == 2
    (tmp_path / "damaged.tar").write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match=r"damaged.tar: not a readable tar"):
        open_data(tmp_path / "damaged.tar", 8)
    assert not (tmp_path.parent / "out.png").exists()


def test_names_in_tars(tmp_path: Path) -> None:
    """As `tar` writes them, in any order; hidden files and folders are none of the set."""
    names = {"./10.png": 4, "./9.png": 3, "./b/1.png": 5, "B/2.png": 6, "./.hidden/a.png": 1, "./b/.a.png": 2}
    found = open_data(tar(tmp_path / "some.tar", {name: png((red, 0, 0)) for name, red in names.items()}), 8)
    assert found.names == ["./9.png", "./10.png", "./b/1.png", "B/2.png"]
    assert reds(found.images) == [3, 4, 5, 6] and found.layout == "plain"
    views = {f"./{thing}/rendering/{view:02d}.png": png((view, 0, 0)) for thing in "ab" for view in (1, 0)}
    found = open_data(tar(tmp_path / "shapenet.tar", views), 8)
    assert found.layout == "shapenet" and reds(found.images) == [0, 1, 0, 1]
    assert found.images.labels.tolist() == [0, 0, 1, 1]


def test_a_link_in_a_tar_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("passwords.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match="no images in it"):
        open_data(path, 8)


def test_poses(tmp_path: Path) -> None:
    files = {"a.png": png((1, 0, 0)), "b.png": png((2, 0, 0)), "poses.json": '{"a.png": [10, 20], "b.png": [30, 40]}'}
    found = open_data(put(tmp_path / "own", files), 8)
    torch.testing.assert_close(found.images.poses.rad2deg(), torch.tensor([[10.0, 20], [30, 40]]))
    poses = Empirical.of(found.images.poses)
    elevation, azimuth = poses.sample(100, torch.Generator().manual_seed(0))
    pairs = {(round(math.degrees(e)), round(math.degrees(a))) for e, a in zip(elevation, azimuth, strict=True)}
    assert pairs == {(10, 20), (30, 40)}
    # Blender is z-up: a camera on its -y axis looks along +y, and is on +z here.
    matrix = np.eye(4)
    matrix[:3, 3] = (0, -2, 2)
    frames = [{"file_path": "./a", "transform_matrix": matrix.tolist()}]
    files = {"a.png": png((1, 0, 0)), "transforms_train.json": json.dumps({"frames": frames})}
    found = open_data(put(tmp_path / "nerf", files), 8)
    torch.testing.assert_close(found.images.poses.rad2deg(), torch.tensor([[45.0, 0]]), atol=1e-4, rtol=0)
    assert open_data(put(tmp_path / "part", {**files, "b.png": png((1, 0, 0))}), 8).images.poses is None
    for text in ('{"frames": 3}', "{", '{"a.png": "x"}'):
        name = "poses.json" if "a.png" in text else "transforms.json"
        with pytest.raises(UserError, match=name):
            open_data(put(tmp_path / f"bad{len(text)}", {"a.png": png((1, 0, 0)), name: text}), 8)


def test_conventions_crop_and_flip(tmp_path: Path) -> None:
    """CelebA's pictures lose a tenth on each side of their central square; cars are never flipped."""
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[20:198, :10] = pixels[20:198, -10:] = 255  # a frame that the crop takes away
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert open_data(tmp_path, 16, layout="celeba").images.batch(torch.tensor([0]), 16)[:, :3].max() < 5
    whole = open_data(tmp_path, 16, layout="cats")
    assert whole.images.batch(torch.tensor([0]), 16)[:, :3].max() > 100 and whole.convention.mirror
    assert not open_data(tmp_path, 16, layout="carla").convention.mirror


def test_pictures_that_stay_on_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, {f"{i}.png": png((i, 0, 0)) for i in range(5)} | {"2.png": b"no image"})
    found = open_data(tmp_path, 8, cache="none")
    assert isinstance(found.images, OnDisk) and len(found.images) == 5
    assert reds(found.images) == [0, 1, 3, 3, 4], "the next one takes the place of one that cannot be read"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and messages[0].startswith("2.png: skipped (not an image)")
    assert reds(found.images.select(torch.tensor([2]))) == [3] and len(caplog.records) == 1, "it is said once"
    some = found.images.select(torch.tensor([4, 0]))
    assert reds(some) == [4, 0] and some.batch(torch.tensor([0]), 16).shape == (1, 4, 16, 16)


def test_shrinking() -> None:
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    assert shrink(images, 2).tolist() == [[[[2, 4], [10, 12]]]]
    assert shrink(images, 4) is images
    with pytest.raises(ValueError, match="resolution must divide 4"):
        shrink(images, 3)


# ------------------------------------------------------------------------------------------------------ the command


def test_check_reports_what_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"a.png": png((255, 0, 0, 128)), "b.png": png((255, 0, 0, 128)), "c.png": png((1, 2, 3)), "d.png": b"bad"}
    assert main(["dataset", "check", str(put(tmp_path, files))]) == 0
    said = capsys.readouterr().out
    assert "bad: d.png: not an image" in said
    assert "3 good images, 1 bad, 1 duplicates; 1 without alpha" in said
    assert said.splitlines()[-1].startswith(f"checked {tmp_path}")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "d.png").write_bytes(b"bad")
    assert main(["dataset", "check", str(tmp_path / "only")]) == 2
    assert "no readable image" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["out.zip", "out.tar", "out"])
def test_convert_keeps_pictures_labels_and_poses(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour = (200, 100, 50, 128)
    files = {"x/a.png": png(colour), "x/b.png": png((5, 5, 5)), "x/c.png": b"bad"}
    files |= {"x/poses.json": '{"a.png": [1, 2], "b.png": [3, 4]}', "x/dataset.json": '{"labels": [["a.png", 3]]}'}
    source, output = put(tmp_path / "in", files), tmp_path / target
    assert main(["dataset", "convert", str(source), str(output), "--resolution", "8"]) == 0
    assert "wrote 2 images of 8 px" in capsys.readouterr().out.splitlines()[-1]
    before, after = open_data(source, 8), open_data(output, 8)
    assert after.names == ["00000/img00000000.png", "00000/img00000001.png"]
    images = [found.images.batch(torch.arange(2), 8).int() for found in (before, after)]
    assert (images[0] - images[1]).abs().max() <= 1
    assert after.images.labels.tolist() == [3, -1]
    torch.testing.assert_close(before.images.poses, after.images.poses)
    if output.is_file():
        again, first = tmp_path / f"again-{target}", output.read_bytes()
        assert main(["dataset", "convert", str(source), str(again), "--resolution", "8"]) == 0
        assert again.read_bytes() == first, "the same images give the same bytes"
        assert main(["dataset", "convert", str(output), str(output)]) == 2 and output.read_bytes() == first
    assert main(["dataset", "convert", str(source), str(output)]) == 2
    assert f"{output}: exists; name a new" in capsys.readouterr().err.splitlines()[-1]
    assert main(["dataset", "convert", str(source), str(tmp_path / "out.rar")]) == 2
    assert main(["dataset", "convert", str(source)]) == 2


def test_convert_says_what_the_archive_itself_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("good.png", png((9, 9, 9)))
        archive.writestr("../evil.png", png((9, 9, 9)))
        archive.writestr("bad.png", b"bad")
    assert main(["dataset", "convert", str(tmp_path / "odd.zip"), str(tmp_path / "out.tar"), "--resolution", "8"]) == 0
    said = capsys.readouterr().out
    assert "left out: ../evil.png: its name points out of the archive" in said and "left out 2" in said


@pytest.mark.parametrize("target", ["out.zip", "out.tar", "out"])
def test_what_was_cropped_is_not_cropped_again(target: str, tmp_path: Path) -> None:
    """Whatever layout it is read with, and after another conversion."""
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[:, :] = np.arange(178, dtype=np.uint8)[:, None]  # its colour says where it was
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(pixels).save(source / "a.png")
    once, twice = tmp_path / target, tmp_path / f"again-{target}"
    arguments = ["--resolution", "16", "--layout"]
    assert main(["dataset", "convert", str(source), str(once), *arguments, "celeba"]) == 0
    assert main(["dataset", "convert", str(once), str(twice), *arguments, "plain"]) == 0
    expected = open_data(source, 16, layout="celeba").images.batch(torch.tensor([0]), 16)
    for path, layout in ((once, "celeba"), (once, "plain"), (twice, "celeba")):
        found = open_data(path, 16, layout=layout)
        assert (found.images.batch(torch.tensor([0]), 16).int() - expected.int()).abs().max() <= 1
        assert found.images.labels is None


def test_views_of_shapenet_objects_are_chosen_without_replacement(tmp_path: Path) -> None:
    files = {f"{name}/rendering/{view:02d}.png": png((view * 10, 0, 0)) for name in "ab" for view in range(8)}
    source = put(tmp_path / "in", files)
    arguments = ["--views-per-object", "3", "--resolution", "8"]
    assert main(["dataset", "convert", str(source), str(tmp_path / "out.zip"), *arguments]) == 0
    found = open_data(tmp_path / "out.zip", 8)
    values = reds(found.images)
    assert found.images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(set(values[:3])) == len(set(values[3:])) == 3
    assert main(["dataset", "convert", str(tmp_path / "out.zip"), str(tmp_path / "b.zip"), *arguments]) == 2


def test_preview(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i}.png": png((i * 20, 0, 0)) for i in range(5)})
    assert main(["dataset", "preview", str(source), str(tmp_path / "sheet.png"), "--resolution", "16"]) == 0
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (48, 32) and sheet.getpixel((40, 24)) == (255, 255, 255), "nothing is shown as white"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("preview IN IN/a.png", "a.png: exists; name a new .png or .jpg"),
        ("preview IN IN/new.txt", "new.txt: name a new .png or .jpg"),
        ("preview IN IN", "is a folder, expected a file"),
        ("preview IN IN/a.png/new.png", "a.png is not a folder"),
        ("convert IN IN/a.png/new.zip", "cannot be written"),
        ("check IN --seed -1 --most 2", "--seed must not be negative, got -1"),
        ("check IN --most 0", "--max-images must be positive, got 0"),
        ("check IN --views-per-object -3 --layout shapenet", "--views-per-object must not be negative, got -3"),
        ("check IN --resolution 40000", "--resolution must be between 1 and 8192, got 40000"),
        ("check IN --background 255 255 255", "--background must be RGB in 0..1, got 255 255 255"),
        ("check IN --background 1 nan 1", "--background must be RGB in 0..1, got 1 nan 1"),
        ("check IN --background 1 1 -1", "--background must be RGB in 0..1, got 1 1 -1"),
    ],
)
def test_bad_arguments(arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = png((1, 2, 3))
    source = put(tmp_path / "in", {"a.png": picture})
    assert main(["dataset", *arguments.replace("IN", str(source)).split()]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""
    assert [path.read_bytes() for path in source.iterdir()] == [picture]


@pytest.mark.parametrize("action", ["check", "convert"])
def test_labels_and_poses_of_no_picture_are_told(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"a.png": png((1, 2, 3)), "dataset.json": '{"labels": [["a.png", 3], ["typo.png", 4]]}'}
    source = put(tmp_path / "in", {**files, "poses.json": '{"A.png": [1, 2]}'})
    output = [str(tmp_path / "out.zip")] if action == "convert" else []
    assert main(["dataset", action, str(source), *output]) == 0
    said = capsys.readouterr().out
    assert "1 labels belong to no image, the first: typo.png" in said
    assert "1 poses belong to no image, the first: A.png" in said
    assert "1 labels, 1 different" in said or action == "convert"


def test_bad_pictures_are_an_error_if_so_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {"a.png": png((1, 0, 0)), "b.png": "text", "c.png": ""})
    assert main(["dataset", "check", str(tmp_path)]) == 0
    assert main(["dataset", "check", str(tmp_path), "--strict"]) == 2
    said = capsys.readouterr()
    assert said.err == f"sdfgan dataset check: error: {tmp_path}: 2 of 3 images are bad\n"
    assert "bad: b.png" in said.out
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.png").unlink()
    assert main(["dataset", "check", str(tmp_path), "--strict"]) == 0


def test_opaque_pictures_are_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {f"{i}.png": png((i, 0, 0)) for i in range(3)})
    command = ["train-gan", "--data", str(tmp_path), "--resolution", "32", "--device", "cpu", "--dry-run"]
    assert main(command) == 2
    assert "the images have no silhouette to learn from: give" in capsys.readouterr().err
    assert main([*command, "--channels", "3"]) == main([*command, "--background", "0", "0", "0"]) == 0
    assert main([*command, "--background", "1", "1", "1"]) == 2
    assert "the images are not on --background: give" in capsys.readouterr().err
    put(tmp_path, {"4.png": png((1, 2, 3, 100))})
    capsys.readouterr()
    assert main(command) == 0
    assert "3 of 4 images looked at have no silhouette to learn from, and count as full" in capsys.readouterr().out
    assert main(["dataset", "check", str(tmp_path)]) == 0
    assert "3 of 4 images do not have alpha: train with --background" in capsys.readouterr().out
