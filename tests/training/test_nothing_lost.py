"""What a run leaves when it is killed, when the disk is full, when its folder is moved or two runs share one."""

from __future__ import annotations

import errno
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import trimesh
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from counting_job import Counting
from sdfgan.cli import main
from sdfgan.data import convert, rendered
from sdfgan.errors import UserError
from sdfgan.images import VideoWriter
from sdfgan.sdf import job as sdf_job
from sdfgan.training import checkpoint, files, loop
from sdfgan.training.checkpoint import list_checkpoints, log_so_far, read_checkpoint, save_checkpoint
from sdfgan.training.files import FolderLock, FullDisk, disk_errors
from sdfgan.training.loop import run
from sdfgan.training.ranks import Ranks
from sdfgan.training.run import RunFolder

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"


class Killed(BaseException):
    """What no code catches, as if the process had ended."""


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------- killed


def kills(*arguments: str) -> str:
    """What `kills.py` prints of runs that are killed and of full disks; fails where anything was lost."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("needs a C compiler")
    done = subprocess.run([sys.executable, str(KILLS), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "lost: 0" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


def test_a_killed_run_and_a_full_disk_lose_nothing() -> None:
    assert "'kills': 4" in kills("train-sdf", "--kills", "4", "--full", "3")


@pytest.mark.slow
def test_many_commands_killed() -> None:
    names = ["train-gan", "train-sdf, a folder", "train-nerf fast", "dataset render"]
    assert "'kills': 16" in kills(*names, "--kills", "4", "--full", "2", "--seed", "1")


def test_the_log_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of steps on both sides of the interruption, and the evaluations, which are logged once."""
    every = {"log": 4, "evaluate": 3, "checkpoint": 1}
    run(Counting(tmp_path / "straight", steps=9, **every))
    root = tmp_path / "killed"
    for moment in ("evaluate 0", "step 3", "finish", "finish"):
        job = Counting(root, steps=9, **every)
        step, finish, evaluate = job.step, job.finish, job.evaluate

        def kill(now: str, call: Any, moment: str = moment) -> Any:
            result = call()
            if now == moment:
                raise Killed
            return result

        monkeypatch.setattr(job, "step", lambda job=job, step=step: kill(f"step {job.steps_done + 1}", step))
        monkeypatch.setattr(job, "finish", lambda summary, finish=finish: kill("finish", lambda: finish(summary)))
        monkeypatch.setattr(job, "evaluate", lambda job=job, call=evaluate: kill(f"evaluate {job.steps_done}", call))
        with pytest.raises(Killed):
            run(job, read_checkpoint(root) if list_checkpoints(root) else None)
    run(Counting(root, steps=9, **every), read_checkpoint(root))
    assert logged(root) == logged(tmp_path / "straight")


def test_a_log_of_another_kind_is_named(tmp_path: Path) -> None:
    assert log_so_far({}, tmp_path) == ([], {})  # earlier versions kept none
    for log in (3, {"lengths": [1]}, {"lengths": ["x"], "since": {}}, {"lengths": [], "since": {"a": 3}}):
        with pytest.raises(UserError, match="log must have lengths and numbers"):
            log_so_far({"log": log}, tmp_path)


def test_a_checkpoint_half_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any, **options: Any) -> None:
        raise Killed

    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"a": torch.zeros(1)}, {})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "remove_old", killed)
        save_checkpoint(tmp_path, 4, {"a": torch.zeros(1)}, {})
    assert len(list_checkpoints(tmp_path)) == 4
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        checkpoint.remove_old(tmp_path)
    assert len(list_checkpoints(tmp_path)) == 3
    RunFolder(tmp_path, {}, resumed_step=4).close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"step-000000{n}" for n in (2, 3, 4)]

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    checkpoint.remove_old(tmp_path, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000004"]


SDF = shlex.split("""--num-points 1000 --epochs 2 --batch-size 500 --mesh-resolution 8 --levels 2 --finest 8
    --log2-size 8 --no-metrics --device cpu""")


def boxes(folder: Path) -> Path:
    folder.mkdir()
    for name, sides in (("a", (0.6, 1.0, 0.8)), ("b", (1, 1, 1)), ("c", (1, 0.4, 0.7))):
        trimesh.creation.box(sides).export(folder / f"{name}.ply")
    return folder


def test_meshes_trained_together_go_on_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, one would end with other bits; and nothing is trained twice."""
    meshes = boxes(tmp_path / "meshes")
    command = ["train-sdf", str(meshes), *SDF, "--together", "3", "--output-dir"]
    assert main([*command, str(tmp_path / "straight")]) == 0
    finish = sdf_job.finish_case

    def killed(config: Any, own: Any, case: Any, field: Any, summary: Any) -> None:
        if case.path.stem == "b":
            raise Killed
        finish(config, own, case, field, summary)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sdf_job, "finish_case", killed)
        main([*command, str(tmp_path / "killed")])
    assert (tmp_path / "killed" / "a" / "summary.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(sdf_job.SdfJob, "step", None)
        assert main([*command, str(tmp_path / "killed")]) == 0
    for name in "abc":
        one, other = (load_file(tmp_path / run / name / "model.safetensors") for run in ("straight", "killed"))
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_a_full_disk_ends_a_folder_of_meshes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would else train each mesh again, alone, and list it as failed."""
    output = tmp_path / "run"
    command = ["train-sdf", str(boxes(tmp_path / "meshes")), *SDF, "--together", "3", "--output-dir", str(output)]

    def full(*arguments: Any) -> None:
        with disk_errors(output / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")

    for what in ("save_checkpoint", "finish_case"):
        with monkeypatch.context() as patch:
            patch.setattr(loop if what == "save_checkpoint" else sdf_job, what, full)
            assert main(command) == 2
        assert f"{output / 'a'}: no space left on the disk; everything saved" in capsys.readouterr().err
        assert not list(output.glob("**/summary.json"))
    assert main(command) == 0 and len(list(output.glob("*/model.safetensors"))) == 3


def test_what_a_full_disk_or_a_kill_left_out_at_the_end_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshes, output = boxes(tmp_path / "meshes"), tmp_path / "run"

    def full(*arguments: Any) -> None:
        raise FullDisk(output / "mesh.glb")

    with monkeypatch.context() as patch:
        patch.setattr("sdfgan.sdf.report.export_mesh", full)
        assert main(["train-sdf", str(meshes / "a.ply"), *SDF, "--output-dir", str(output)]) == 2
    assert main(["train-sdf", "--resume", str(output)]) == 0 and (output / "mesh.glb").exists()
    (output / "report.html").unlink()
    assert main(["train-sdf", "--resume", str(output)]) == 0 and (output / "report.html").exists()


def test_a_set_whose_first_part_is_written_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meshes, output = boxes(tmp_path / "meshes"), tmp_path / "set.zip"
    command = ["dataset", "render", str(meshes), str(output), *shlex.split("--views 1 --resolution 8 --held-out 0.3")]
    write, names = rendered._write, {"set.zip", "set-held-out.zip", "meshes"}

    def killed(*arguments: Any) -> None:
        if output.exists():
            raise Killed
        write(*arguments)

    def killed_at_once(*arguments: Any, **options: Any) -> None:
        if not options:  # of a folder that may not be there
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(rendered, "_write", killed)
        main(command)
    before = output.stat().st_mtime_ns
    with monkeypatch.context() as patch, pytest.raises(Killed):  # when all is written
        patch.setattr(convert.shutil, "rmtree", killed_at_once)
        main(command)
    left = {path.name for path in tmp_path.iterdir()} - names
    assert left == {"set.zip.rendering", "set-held-out.zip.partial"} and main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == names and output.stat().st_mtime_ns == before
    (tmp_path / "set.zip.rendering").mkdir()  # killed at the very end
    assert main(command) == 2 and {path.name for path in tmp_path.iterdir()} == names


# -------------------------------------------------------------------------------------------------------- a full disk


def test_a_video_that_ffmpeg_cannot_write_is_none(tmp_path: Path) -> None:
    """It has no room for the end of the file, which it writes when it has taken all frames."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for frames in (5, 100):
            failed = pytest.raises(UserError, match=r"v.mp4: cannot be written: ffmpeg failed")
            with failed, VideoWriter(tmp_path / "v.mp4") as video:
                resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
                for _ in range(frames):
                    video.add(torch.rand(3, 64, 64))
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert list(tmp_path.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ------------------------------------------------------------------------------------------- moved folders, two runs


def test_a_folder_that_is_moved_while_a_run_writes_to_it(tmp_path: Path) -> None:
    """Nothing is written where it was, not even into another run that is there now."""
    for replaced in (False, True):
        root, moved = tmp_path / f"run-{replaced}", tmp_path / f"moved-{replaced}"
        job = Counting(root, checkpoint=1)
        step = job.step

        def move(job: Counting = job, step: Any = step, root: Path = root, moved: Path = moved) -> Any:
            if job.steps_done == 3:
                root.rename(moved)
                if root.name.endswith("True"):
                    run(Counting(root, steps=2))
            return step()

        job.step = move  # type: ignore[method-assign]
        with pytest.raises(UserError, match="was moved, removed or replaced meanwhile"):
            run(job)
        assert root.exists() == replaced and list_checkpoints(moved)[-1].name == "step-0000003"
        if replaced:
            assert json.loads((root / "summary.json").read_text())["steps"] == 2
        again = Counting(moved, checkpoint=1)
        assert run(again, read_checkpoint(moved))["sum"] == 21


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    job = Counting(tmp_path / "run", checkpoint=1)
    step, refused = job.step, []

    def other() -> Any:
        if job.steps_done == 2:
            for saved in (None, read_checkpoint(job.root)):
                with pytest.raises(UserError, match=r"another process is writing to it|holds a run already") as caught:
                    run(Counting(job.root), saved)
                refused.append(str(caught.value))
        return step()

    job.step = other  # type: ignore[method-assign]
    assert run(job)["sum"] == 21 and len(refused) == 2
    assert [line["step"] for line in logged(job.root) if "loss" in line] == [2, 4, 6]
    with FolderLock(job.root), pytest.raises(UserError, match="another process is writing to it"):
        run(Counting(job.root), read_checkpoint(job.root))
    assert run(Counting(job.root), read_checkpoint(job.root))["sum"] == 21


def test_a_folder_that_its_owner_removes_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited for nothing but the lock of one that is gone would share its path with the next."""
    monkeypatch.setattr(files.fcntl, "flock", lambda handle, how: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(UserError, match="another process is writing to it"):
        FolderLock(tmp_path / "run")


def test_two_conversions_to_one_file(tmp_path: Path) -> None:
    for name in ("set.zip", "set.tar", "set"):
        with convert.writer(tmp_path / name) as write:
            write("a.png", b"first")
            with pytest.raises(UserError, match="another process is writing to it"), convert.writer(tmp_path / name):
                pass
        with pytest.raises(UserError, match="exists; name a new"), convert.writer(tmp_path / name):
            pass
    refused = pytest.raises(UserError, match="another process is writing")
    with FolderLock(tmp_path / "b.zip.partial"), refused, convert.writer(tmp_path / "b.zip"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"set.zip", "set.tar", "set", "b.zip.partial"}


def test_a_process_that_is_gone_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*arguments: Any) -> None:
        raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:1\n and more")

    monkeypatch.setattr(dist, "all_reduce", closed)
    with pytest.raises(UserError, match=r"another process .* has ended .*; start them again .*closed by peer") as said:
        Ranks(0, 2).largest(1, torch.device("cpu"))
    assert "\n" not in str(said.value)


def test_a_clock_that_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10**9, 0, -86400))
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    summary = run(Counting(tmp_path / "run", checkpoint=1))
    assert summary["sum"] == 21 and 0 <= summary["wall_seconds"] < 60
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == [f"step-000000{n}" for n in (4, 5, 6)]


def test_what_tensorboard_reads(tmp_path: Path) -> None:
    """Of a run that was stopped and went on, which takes back what was logged after its checkpoint."""
    folder = RunFolder(tmp_path, {})
    for step in (1, 2, 3):
        folder.log(step, {"loss": step / 2})
    folder.log_image(3, "samples", torch.rand(3, 8, 8))
    folder.warn(3, "empty", "silhouettes are empty")
    folder.close()
    folder = RunFolder(tmp_path, {}, resumed_step=2)
    folder.log(3, {"loss": 7.0, "norm": float("inf")})
    folder.close()
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 7.0)]
    assert read.Scalars("norm")[0].value == float("inf") and read.Images("samples") == []
