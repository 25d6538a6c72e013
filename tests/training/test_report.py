"""report.html: what a run's files say, on a page of its own; and the command that repeats a run."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdfgan.cli import main
from sdfgan.cli.parse import parse
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig
from sdfgan.images import save_image
from sdfgan.nerf import NerfConfig
from sdfgan.sdf.config import SdfConfig
from sdfgan.training.config import command_line
from sdfgan.training.report import Run, compare_runs, write_report


def make_run(path: Path, steps: int = 40, **settings: object) -> Path:
    """A folder as a run leaves it."""
    (path / "samples").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"seed": 0, "data": "</table><script>alert(1)</script>", **settings}))
    summary = {
        "kind": "gan",
        "command": "sdfgan train-gan --data '<b>'",
        "scores": {"val": {"psnr": 21.25}},
        "mesh": None,
    }
    (path / "summary.json").write_text(json.dumps(summary))
    lines = [{"step": step, "loss_d": step / 7, "r1": None if step % 20 else 0.5} for step in range(0, steps, 10)]
    lines.insert(2, {"step": 15, "warning": "blobs", "message": "floating <blobs>"})
    lines.insert(3, {"step": 18, "warning": "empty", "words": "as earlier versions wrote it"})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 40, "los')
    for step in range(10):
        save_image(path / "samples" / f"step-{step:07d}.png", torch.full((3, 8, 8), step / 10))
    save_image(path / "grid.png", torch.rand(3, 30, 2000))
    return path


def test_a_page_says_what_a_run_was_and_needs_nothing_else(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run")).read_text()
    assert "<script>alert" not in page and "<b>&#x27;" not in page and "floating &lt;blobs&gt;" in page
    assert "step 18: as earlier versions wrote it" in page
    assert "sdfgan train-gan --data &#x27;&lt;b&gt;&#x27;" in page
    assert "21.25" in page and "peak signal-to-noise ratio" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(?!data:)\w", page)
    images = [
        Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"image/webp;base64,([^\"]+)", page)
    ]
    assert [max(image.size) for image in images] == [1200, *[8] * 6], "the grid made smaller, and six of ten samples"
    brightness = [image.convert("L").getpixel((4, 4)) for image in images[1:]]
    assert brightness == sorted(brightness) and brightness[-1] > 220
    assert page.count("<svg") == 2 and "0 to 4.286; at the end 4.286" in page


def test_names_that_mean_two_things(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    summary = {"kind": "gan", "evaluation": {"coverage": 0.4, "mmd": 0.1}, "final": {"coverage": 0.2}}
    (run / "summary.json").write_text(json.dumps(summary))
    page = write_report(run).read_text()
    assert re.search(r"evaluation/coverage</th><td class=n>0.4</td><td class=n>share of true shapes", page)
    assert re.search(r"final/coverage</th><td class=n>0.2</td><td class=n>share of pixels", page)


def test_a_mesh_can_be_turned(tmp_path: Path) -> None:
    import trimesh

    run = make_run(tmp_path / "run")
    trimesh.creation.box().export(run / "mesh.glb")
    page = write_report(run).read_text()
    frame = re.search(r'<iframe sandbox="allow-scripts" srcdoc="([^"]+)"', page)
    assert frame and "THREE.GLTFLoader" in frame[1] and "drag to turn it" in page
    (run / "mesh.glb").write_bytes(bytes(4 * 2**20))
    assert "mesh.glb: 4 MiB, in the run" in write_report(run).read_text()


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "summary.json").unlink()
    assert "run: a run, not finished" in write_report(run).read_text()
    assert Run(run).curves()["r1"] == [(0, 0.5), (20, 0.5)]


def test_runs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name, width=width) for name, width in (("one", 64), ("two", 128))]
    monkeypatch.chdir(tmp_path)
    for name in ("report.html", "report-2.html"):
        assert main(["report", *map(str, runs)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"done: open {name}"
    page = (tmp_path / "report.html").read_text()
    (differing,) = re.findall(r"<h2>Settings that differ</h2><table>(.*?)</table>", page)
    assert re.findall(r"<tr><th>([^<]+)</th>", differing) == ["width"]
    assert all(re.search(rf"<path stroke=\"{colour}\"", page) for colour in ("#26c", "#d63"))
    assert page == compare_runs(runs, tmp_path / "again.html").read_text()


def test_damaged_files_are_named_on_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    whole = (run / "samples" / "step-0000009.png").read_bytes()
    (run / "samples" / "step-0000009.png").write_bytes(whole[: len(whole) // 2])
    (run / "grid.png").write_text("junk")
    (run / "mesh.glb").write_text("junk")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f'\n{{"step": 50, "loss_d": 1{"0" * 400}}}\n{{"step": 50, "loss_d": -Infinity}}\n')
    page = write_report(run).read_text()
    assert re.findall(r"([\w. ]+): cannot be read<", page) == ["grid.png", "mesh.glb", "step 9"]
    assert "at the end 4.286" in page and "21.25" in page


@pytest.mark.parametrize("name", ["summary.json", "grid.png", "samples/step-0000000.png"])
def test_a_page_never_replaces_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    run = make_run(tmp_path / "run")
    before = (run / name).read_bytes()
    assert main(["report", str(run), "--output", str(run / name)]) == 2
    assert "is read; name another file to write" in capsys.readouterr().err and (run / name).read_bytes() == before
    for _ in range(2):
        assert main(["report", str(run), "--output", str(run / "report.html")]) == 0


def test_no_program_is_run_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file's name."""
    asked = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **more: asked.append(given))
    run = make_run(tmp_path / "run")
    (run / "grid.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    write_report(run)
    assert "grid.png: cannot be read" in (run / "report.html").read_text() and not asked


def test_a_file_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_text("")
    assert main(["report", str(tmp_path / "a.png")]) == 2
    assert "a.png: not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "[]", "{", "\x00", "[" * 100_000])
def test_what_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"not the folder of a run|expected a JSON object") as error:
        write_report(tmp_path)
    assert str(tmp_path) in str(error.value) and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("config", "command"), [
    (GanConfig(device="cpu"), "train-gan"),
    (GanConfig(device="cpu", data=Path("my photos"), mirror=False, elevation=(-5.0, 20.5)), "train-gan"),
    (GanConfig(device="cpu", curriculum="growing", texture_latent_size=8, background=(0.0, 0.5, 1.0)), "train-gan"),
    (NerfConfig(device="cpu", data=Path("lego"), model="mip-nerf", steps=70), "train-nerf"),
    (NerfConfig(device="cpu", data=Path("lego")), "train-nerf"),
    (GanConfig(device="cpu", generator="pi-gan"), "train-gan"),
    (SdfConfig(device="cpu", input=Path("a.stl"), dam_arch=1), "train-sdf"),
    (SdfConfig(device="cpu", input=Path("a.stl"), network="film-siren"), "train-sdf"),
    (SdfConfig(device="cpu", input=Path("a b.stl"), preset="high", show_vis=1), "train-sdf"),
])  # fmt: skip
def test_the_command_repeats_the_run(config: GanConfig | NerfConfig | SdfConfig, command: str) -> None:
    resolved = config.resolved()
    words = shlex.split(command_line(command, resolved))
    assert words[:2] == ["sdfgan", command]
    repeated = parse(command, type(config), words[2:]).resolved()
    paths = {name: path.absolute() for name, path in vars(resolved).items() if isinstance(path, Path)}
    assert repeated == dataclasses.replace(resolved, **paths)


def test_the_command_finds_its_files_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("steps.json").write_text("{}")
    config = GanConfig(device="cpu", data=Path("my photos"), curriculum="steps.json").resolved()
    words = shlex.split(command_line("train-gan", config))
    assert words[words.index("--data") + 1] == str(tmp_path / "my photos")
    assert words[words.index("--curriculum") + 1] == str(tmp_path / "steps.json")
