"""Ctrl-C at any moment: status 130 and one line, whatever the libraries make of it; what can be resumed is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from trimesh.creation import icosphere

import posed
from sdfgan.cli import main
from sdfgan.data.shapes import shape_set
from sdfgan.images import VideoWriter, save_image
from sdfgan.training.checkpoint import save_checkpoint
from sdfgan.training.files import write_json
from sdfgan.training.interrupt import Interrupts, resumable

ROOT = Path(__file__).parents[2]
# A command of which one part, told to wait, says so in the file that is the script's argument.
SCRIPT = """
import pkgutil, sys, time
from pathlib import Path
import sdfgan.cli as cli

def swallow(seconds):
    Path(sys.argv[1]).touch()
    try:
        time.sleep(seconds)
    except BaseException:
        pass
    time.sleep(seconds)

def fail():
    try:
        Path(sys.argv[1]).touch()
        time.sleep(60)
    except KeyboardInterrupt as error:
        raise RuntimeError("a library's own words") from error

class Slow:
    def __del__(self):
        Path(sys.argv[1]).touch()
        time.sleep(60)

def forget():
    slow = Slow()
    del slow
    time.sleep(60)

from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    pass

def load(name):
    if name == "config":
        return Config
    LOAD
    return lambda config: RUN

pkgutil.resolve_name = load
cli.COMMANDS["info"] = cli.COMMANDS["info"]._replace(config="config", function="run")
sys.exit(cli.main(["info"], as_program=True))
"""


def interrupted(command: list[str], wait: Path | float, times: int = 1) -> tuple[int, str, float]:
    """Status, stderr and seconds to the end of a command that gets SIGINT once `wait` exists, or after so long."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not wait.exists() if isinstance(wait, Path) else False:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2 if isinstance(wait, Path) else wait)
    began = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - began


@pytest.mark.parametrize(
    ("load", "run"),
    [
        ("swallow(60)", "None"),
        ("fail()", "None"),
        ("forget()", "None"),
        ("pass", "time.sleep(60) or None if Path(sys.argv[1]).touch() is None else None"),
        ("pass", "swallow(60)"),
        ("pass", "fail()"),
        ("pass", "forget()"),
    ],
)
def test_it_ends_whatever_a_library_does_with_it(tmp_path: Path, load: str, run: str) -> None:
    ready, script = tmp_path / "ready", tmp_path / "script.py"
    script.write_text(SCRIPT.replace("LOAD", load).replace("RUN", run))
    status, said, seconds = interrupted([sys.executable, str(script), str(ready)], ready)
    assert status == 130 and said == "sdfgan info: interrupted\n" and seconds < 5


def test_a_second_one_ends_it_at_once(tmp_path: Path) -> None:
    ready, script = tmp_path / "ready", tmp_path / "script.py"
    body = "swallow(60), swallow(60)"
    script.write_text(SCRIPT.replace("LOAD", "pass").replace("RUN", body).replace("import sys", _PATIENT, 1))
    status, said, seconds = interrupted([sys.executable, str(script), str(ready)], ready, times=2)
    assert status == 130 and said == "sdfgan info: interrupted\n" and seconds < 5


_PATIENT = "import sdfgan.training.interrupt as interrupt\ninterrupt._PATIENCE = 30\nimport sys"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 4.0, 7.0])
def test_it_ends_while_libraries_are_imported(tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, "-m", "sdfgan", "train-gan", "--output-dir", str(tmp_path / "run"), "--steps", "100000"]
    command += ["--dataset-size", "256", "--evaluate-images", "0", "--resolution", "16", "--device", "cpu"]
    status, said, _ = interrupted(command, seconds)
    assert status == 130 and said in ("", "sdfgan train-gan: interrupted\n")  # "": it trains, and says so on stdout


@pytest.mark.parametrize("word", ["import sdfgan.cli", "import sdfgan.cli.streams"])
def test_it_ends_while_the_command_is_imported(tmp_path: Path, word: str) -> None:
    """Before there is a handler: the import of a part waits."""
    ready, script = tmp_path / "ready", tmp_path / "script.py"
    script.write_text(_SLOW_IMPORT)
    status, said, seconds = interrupted([sys.executable, str(script), str(ready), word.split()[1]], ready)
    assert status == 130 and said == "sdfgan: interrupted\n" and seconds < 5


_SLOW_IMPORT = """
import sys, time
from pathlib import Path
from sdfgan.__main__ import program

class Slow:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[2]:
            Path(sys.argv[1]).touch()
            time.sleep(60)

sys.meta_path.insert(0, Slow())
sys.exit(program())
"""


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """It is heard, also where these tests run in the background, whose shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_handlers_are_left_as_they_were() -> None:
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), Interrupts("it") as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert interrupts.received and (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before
    assert main(["--version"]) == 0 and signal.getsignal(signal.SIGINT) is before[0]


def test_it_does_not_come_again_into_what_is_done_at_the_end(tmp_path: Path) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt, match="continue with --resume"), Interrupts("it"):
        try:
            with resumable(tmp_path, lambda: True):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
        finally:
            time.sleep(3)
            done.append(True)
    assert done


def test_what_can_be_resumed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = False
    with pytest.raises(KeyboardInterrupt, match=r"^$"), resumable(tmp_path, lambda: begun):
        raise KeyboardInterrupt

    def command(config: Any) -> None:
        with resumable(tmp_path, lambda: True):
            raise KeyboardInterrupt

    monkeypatch.setattr("sdfgan.gan.train", command)
    assert main(["train-gan"]) == 130
    assert capsys.readouterr().err == f"sdfgan train-gan: interrupted; continue with --resume {tmp_path}\n"


SMALL = "--device cpu --steps 2 --width 16 --mesh-resolution 8 --video-frames 2"
GAN = "--shapes solids --dataset-size 64 --resolution 16 --batch-size 4 --latent-size 4 --evaluate-images 0"
GAN += " --view-resolution 16"
NERF = "--data SCENE --rays 64 --hash-table 8 --hash-finest 16 --hash-levels 2 --grid-resolution 8 --march-steps 16"
SDF = "BALL --device cpu --num-points 1000 --epochs 1 --mesh-resolution 8 --log2-size 8 --show-vis 1 --no-metrics"
SDF += " --video-frames 2"


@pytest.mark.parametrize(
    ("name", "arguments", "last", "made"),
    [
        ("train-gan", f"{SMALL} {GAN}", "sdfgan.gan.report.Report.final_images", "turntable.mp4"),
        ("train-nerf", f"{SMALL} {NERF}", "sdfgan.nerf.job.write_videos", "orbit.mp4"),
        ("train-sdf", SDF, "sdfgan.sdf.report.save_slices", "turntable.mp4"),
    ],
)
def test_a_run_interrupted_while_its_pictures_are_made(
    name: str,
    arguments: str,
    last: str,
    made: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It can be resumed, which is said, and what was missing is made then."""
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sdfgan.sdf.report._FRAME", 16)
    if "SCENE" in arguments:
        arguments = arguments.replace("SCENE", str(posed.blender_scene(tmp_path / "scene")))
    if "BALL" in arguments:
        icosphere(1).export(tmp_path / "ball.stl")
        arguments = arguments.replace("BALL", str(tmp_path / "ball.stl"))
    run = tmp_path / name

    def stop(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(last, stop)
        assert main([name, *arguments.split(), "--output-dir", str(run)]) == 130
    assert capsys.readouterr().err == f"sdfgan {name}: interrupted; continue with --resume {run}\n"
    assert main([name, "--resume", str(run)]) == 0
    assert (run / made).exists()


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_have_the_mode_of_new_files(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save_checkpoint(tmp_path / "run", 1, {"a": torch.zeros(3)}, {})
        save_image(tmp_path / "a.png", torch.zeros(3, 4, 4))
        write_json(tmp_path / "a.json", {})
        with VideoWriter(tmp_path / "a.mp4") as video:
            video.add(torch.zeros(3, 16, 16))
        shape_set(2, 8, cache_dir=tmp_path / "cache")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 6 and {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}
