"""Training end to end: it learns, it continues exactly, it stops when asked, and it says what is wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from sdfgan.data.convert import dataset_json, encode, image_name, writer
from sdfgan.data.shapes import render_shapes
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig, job, load_generator, sample_latents, train
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob
from sdfgan.gan.report import Report
from sdfgan.raycast import Room
from sdfgan.training import health
from sdfgan.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint

TINY = {
    "device": "cpu",
    "shapes": "solids",
    "resolution": 16,
    "batch_size": 8,
    "chunk_size": 4,
    "width": 16,
    "mapping_width": 16,
    "latent_size": 8,
    "discriminator_channels": 8,
    "dataset_size": 256,
    "evaluate_images": 64,
    "mesh_resolution": 24,
    "view_resolution": 32,
    "video_frames": 8,
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run from beginning to end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDFGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        path = tmp_path_factory.mktemp("runs") / "tiny"
        fast = {"learning_rate_generator": 2e-3, "learning_rate_discriminator": 2e-3, "decay_start": 0.5}
        often = {"sample_interval": 60, "checkpoint_interval": 60, "evaluate_interval": 60, "evaluate_shapes": 4}
        train(GanConfig(output_dir=path, steps=120, **often, **fast, **TINY))
    return path


def test_native_gradients_change_no_step() -> None:
    """Losses and weights of the first steps, R1 included, are those of torch's own gradients to rounding."""
    reals = render_shapes(16, TINY["resolution"]).images
    logs, states = [], []
    for native in (True, False):
        trainer = GanJob(GanConfig(seed=1, **TINY).resolved(), TrainingData.of(reals))
        trainer.generator.native_gradients = native
        try:
            logs.append([trainer.step() for _ in range(3)])
        finally:
            trainer.close()
        states.append(trainer.generator.state_dict())
    for ours, theirs in zip(*logs, strict=True):
        assert {name: pytest.approx(value, rel=1e-3, abs=1e-4) for name, value in theirs.items()} == ours
    for name, values in states[1].items():  # Adam moves each weight by its rate, whatever the gradient's size
        assert (states[0][name] - values).abs().mean() < 1e-5, name


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(resolve_checkpoint(run))[0]


def test_a_run_learns_and_leaves_everything_it_promises(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    distance = summary["sliced_wasserstein"]
    assert distance["end"] < 0.7 * distance["start"]
    assert distance["ratio"] == pytest.approx(distance["end"] / distance["floor"])
    for name in ("config.json", "metrics.jsonl", "grid.png", "turntable.mp4", "samples/real.png"):
        assert (finished / name).stat().st_size > 0, name
    assert len(list(finished.glob("events.*"))) == 1
    assert len(list((finished / "samples").glob("step-*.png"))) == 2
    assert summary["meshes"] and all(Path(path).stat().st_size > 0 for path in summary["meshes"])
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss_d" in line] == list(range(10, 121, 10))
    assert all(line["r1"] > 0 for line in lines if "loss_d" in line)  # of the step in eight that has it
    evaluations = {line["step"]: line for line in lines if "evaluation/swd" in line}
    assert list(evaluations) == [0, 60, 120] and evaluations[120]["evaluation/coverage"] >= 0
    assert evaluations[120]["evaluation/swd"] == distance["end"] == summary["evaluation"]["swd"]


def leave_out_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs whose weights alone matter."""
    monkeypatch.setattr(GanJob, "results", lambda self: {})
    monkeypatch.setattr(Report, "final_images", lambda self: {"grid": None, "turntable": None, "meshes": []})


def test_without_ffmpeg_a_run_ends_with_all_but_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    path = tmp_path / "run"
    summary = train(GanConfig(output_dir=path, steps=1, **{**TINY, "evaluate_images": 0}))
    out = capsys.readouterr().out
    assert f"{path}/turntable.mp4: not written: videos need ffmpeg (pip install imageio-ffmpeg)\n" in out
    assert summary["turntable"] is None and not (path / "turntable.mp4").exists()
    assert json.loads((path / "summary.json").read_text()) == summary
    last = out.splitlines()[-1]
    assert last.startswith(f"done: open {path}/report.html, or look at grid.png") and "turntable" not in last


def test_pictures_that_fail_do_not_take_the_numbers_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Report) -> dict[str, object]:
        raise RuntimeError("no image")

    monkeypatch.setattr(Report, "final_images", fails)
    with pytest.raises(RuntimeError, match="no image"):
        train(GanConfig(output_dir=tmp_path / "run", steps=1, **{**TINY, "evaluate_images": 0}))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 1


def test_looking_at_a_run_writes_nothing(finished: Path) -> None:
    before = sorted(path for path in finished.rglob("*"))
    generator, config = load_generator(finished)
    generator(torch.zeros(1, 3), sample_latents(config, [3]))
    assert sorted(path for path in finished.rglob("*")) == before


def test_latents_are_the_same_in_any_company() -> None:
    config = GanConfig()
    assert torch.equal(sample_latents(config, [1, 5])[1], sample_latents(config, [5])[0])
    assert torch.equal(sample_latents(config, [5], 0.5), 0.5 * sample_latents(config, [5]))


def test_a_step_with_room_is_a_step_without() -> None:
    """As a GPU takes it."""
    reals = torch.randint(256, (16, 4, 16, 16), dtype=torch.uint8)
    config = GanConfig(**{**TINY, "evaluate_images": 0, "steps": 6, "chunk_size": 8}).resolved()
    logs: list[list[dict[str, float]]] = []
    for room in (None, Room()):
        with closing(GanJob(config, TrainingData.of(reals))) as job:
            job.room = room
            logs.append([job.step() for _ in range(4)])
    for without, with_room in zip(*logs, strict=True):
        assert with_room.pop("samples_lost") == 0
        assert with_room == pytest.approx(without, rel=2e-3, abs=1e-4)


def test_continuing_equals_going_straight_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_results(monkeypatch)
    options = {**TINY, "evaluate_images": 0, "steps": 6, "checkpoint_interval": 2}
    train(GanConfig(output_dir=tmp_path / "straight", **options))

    class Enough(Exception):
        pass

    original = GanJob.step

    def die_at_step_5(self: GanJob) -> dict[str, float]:
        if self.steps_done == 5:
            raise Enough
        return original(self)

    monkeypatch.setattr(GanJob, "step", die_at_step_5)
    with pytest.raises(Enough):
        train(GanConfig(output_dir=tmp_path / "halted", **options))
    monkeypatch.setattr(GanJob, "step", original)
    train(GanConfig(device="cpu", resume=tmp_path / "halted"))
    straight, halted = weights(tmp_path / "straight"), weights(tmp_path / "halted")
    assert straight.keys() == halted.keys()
    assert all(torch.equal(straight[name], halted[name]) for name in straight)


def test_the_number_of_threads_does_not_matter() -> None:
    pictures = torch.randint(0, 256, (32, 4, 16, 16), dtype=torch.uint8)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        trainer = GanJob(GanConfig(steps=3, **TINY).resolved(), TrainingData.of(pictures))
        for _ in range(3):
            trainer.step()
        trainer.close()
        results.append(trainer.state()[0])
    torch.set_num_threads(before)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_bf16_is_close_to_fp32() -> None:
    pictures = torch.randint(0, 256, (32, 4, 16, 16), dtype=torch.uint8)
    losses = []
    for precision in ("fp32", "bf16"):
        trainer = GanJob(GanConfig(steps=1, precision=precision, **TINY).resolved(), TrainingData.of(pictures))
        losses.append(trainer.step()["loss_d"])
        trainer.close()
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1] != losses[0]


def test_gradients_that_are_not_finite_are_skipped_then_stop_the_run() -> None:
    pictures = torch.randint(0, 256, (32, 4, 16, 16), dtype=torch.uint8)
    trainer = GanJob(GanConfig(steps=30, r1_gamma=0.0, **TINY).resolved(), TrainingData.of(pictures))
    before = trainer.generator.sdf_head.detach().clone()
    with torch.no_grad():
        trainer.discriminator.head.bias.fill_(torch.nan)
    try:
        trainer.step()
        assert torch.equal(trainer.generator.sdf_head, before)
        with pytest.raises(UserError, match=r"training stopped at step \d+: gradients of the \w+ were not finite"):
            for _ in range(20):
                trainer.step()
    finally:
        trainer.close()


def test_one_network_that_is_never_finite_stops_the_run_though_the_other_is() -> None:
    pictures = torch.zeros(8, 4, 16, 16, dtype=torch.uint8)
    trainer = GanJob(GanConfig(**TINY).resolved(), TrainingData.of(pictures))
    good = [[torch.zeros_like(p) for p in trainer.generator.parameters()]]
    bad = [[torch.full_like(p, torch.nan) for p in trainer.discriminator.parameters()]]
    try:
        with pytest.raises(
            UserError,
            match=r"of the discriminator were not finite 21 times in a row; .* lower --learning-rate-discriminator",
        ):
            for _ in range(21):
                trainer.apply("generator", good, 1.0)
                trainer.apply("discriminator", bad, 1.0)
                trainer.updates.settle(trainer.updates.norms.tolist(), trainer.steps_done)
        assert all(p.isfinite().all() for p in trainer.discriminator.parameters())
        assert trainer.state()[1]["skipped_in_a_row"] == {"generator": 0, "discriminator": 21}
    finally:
        trainer.close()


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = train(GanConfig(output_dir=tmp_path / "run", dry_run=True, **TINY))
    assert result["dry_run"] and not (tmp_path / "run").exists()


def test_a_warning_is_said_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here for numbers that are measured at each step, with each sample, and once."""
    leave_out_results(monkeypatch)
    monkeypatch.setattr(health, "WINDOW", 2)
    monkeypatch.setattr(
        health,
        "SYMPTOMS",
        (health.Symptom("odd", {"loss_d", "blobs", "real_blobs"}, lambda n: True, "odd: {blobs:.0f}"),),
    )
    options = {**TINY, "evaluate_images": 0, "sample_interval": 1, "steps": 3}
    train(GanConfig(output_dir=tmp_path / "run", **options))
    assert "step 2: odd: 0" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if "warning" in line] == [{"step": 2, "warning": "odd", "message": "odd: 0"}]


def test_bad_resumes_are_named(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "load_training_data", None)  # nothing is made before the folder has been looked at
    for dry in (False, True):
        with pytest.raises(UserError, match="holds a run already"):
            train(GanConfig(output_dir=finished, dry_run=dry, **TINY))
    with pytest.raises(UserError, match="is a file; name a folder"):
        train(GanConfig(output_dir=finished / "config.json", **TINY))
    with pytest.raises(UserError, match="no such run"):
        train(GanConfig(resume=tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"--resolution 64 differs from the run's 16"):
        train(GanConfig(resume=finished, resolution=64))
    with pytest.raises(UserError, match=r"--steps 60: \S+ has 120 behind it already"):
        train(GanConfig(resume=finished, steps=60))
    with pytest.raises(UserError, match=r"--data \S+ differs from the run's None"):
        train(GanConfig(resume=finished, data=tmp_path))
    foreign = tmp_path / "checkpoints" / "step-0000001"
    foreign.mkdir(parents=True)
    (foreign / "state.json").write_text('{"format": 1, "kind": "other"}')
    with pytest.raises(UserError, match=r"missing from the checkpoint"):
        train(GanConfig(resume=tmp_path))


def test_a_device_that_is_not_here_is_no_reason_not_to_go_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, state = load_checkpoint(resolve_checkpoint(finished))
    run = tmp_path / "run"
    save_checkpoint(run, state["step"], tensors, {**state, "config": {**state["config"], "device": "cuda:99"}})
    here = "cuda" if torch.cuda.is_available() else "cpu"
    assert train(GanConfig(resume=run, dry_run=True))["config"]["device"] == here
    assert f"{run}: was on cuda:99, which is not available" in capsys.readouterr().out
    assert train(GanConfig(resume=run, device="cpu", dry_run=True))["config"]["device"] == "cpu"


def test_networks_of_other_settings_are_not_taken(finished: Path, tmp_path: Path) -> None:
    """Nor where they would fit, as RGB and HSV do."""
    with pytest.raises(UserError, match=r"of --color-space palette, expected hsv: give --color-space palette"):
        train(GanConfig(output_dir=tmp_path / "next", load_dir=finished, steps=1, color_space="hsv", **TINY))


def test_runs_of_before_palettes_have_rgb(finished: Path) -> None:
    config = load_checkpoint(resolve_checkpoint(finished))[1]["config"]
    assert config["color_space"] == "palette"
    del config["color_space"]
    assert GanConfig.from_json(config, finished).color_space == "rgb"


def test_starting_from_another_runs_networks(finished: Path, tmp_path: Path, monkeypatch) -> None:
    leave_out_results(monkeypatch)
    options = {**TINY, "evaluate_images": 0}
    train(GanConfig(output_dir=tmp_path / "next", load_dir=finished, steps=1, learning_rate_generator=0.0, **options))
    old, new = weights(finished), weights(tmp_path / "next")
    assert torch.equal(old["generator.sdf_head"], new["generator.sdf_head"])
    # Averages go on from what was loaded, rather than from the generator.
    behind = [(w["generator.sdf_head"] - w["ema.sdf_head"]).norm().item() for w in (old, new)]
    assert behind[1] == pytest.approx(behind[0], rel=0.01) and behind[0] > 0
    assert load_checkpoint(resolve_checkpoint(tmp_path / "next"))[1]["averages_warm_up"] is False


def test_training_from_shards_with_poses_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures decoded as they are used, of one label, from their own cameras; a curriculum of two stages."""
    leave_out_results(monkeypatch)
    made = render_shapes(40, 32)
    poses, labels = {}, {}
    with writer(tmp_path / "shard.tar") as write:
        for index, picture in enumerate(made.images.permute(0, 2, 3, 1).numpy()):
            name = image_name(index)
            write(name, encode(picture))
            poses[name], labels[name] = [10.0 + index, 5.0], index % 2
        write("poses.json", json.dumps(poses).encode())
        write("dataset.json", dataset_json(labels))
        write("bad.png", b"no image")
    stages = [{"step": 0, "resolution": 16, "batch_size": 8}, {"step": 2, "resolution": 32, "batch_size": 4}]
    settings = {"discriminator": "strided", "channels": 3, "poses": "data", "data_cache": "none"}
    curriculum = tmp_path / "mine.json"
    curriculum.write_text(json.dumps({"settings": settings, "stages": stages}))
    options = {**TINY, "data": tmp_path / "shard.tar", "label": 1, "curriculum": str(curriculum)}
    options |= dict.fromkeys(("resolution", "batch_size", "chunk_size"))  # the curriculum's
    train(GanConfig(output_dir=tmp_path / "run", steps=3, checkpoint_interval=1, **options))
    assert "20 images to learn from" in capsys.readouterr().out
    curriculum.unlink()  # a run needs it no more
    moved = (tmp_path / "shard.tar").rename(tmp_path / "moved.tar")
    train(GanConfig(device="cpu", resume=tmp_path / "run", steps=4, data=moved))
    assert weights(tmp_path / "run")["discriminator.stems.32.weight"].shape[1] == 3
    with pytest.raises(UserError, match="--poses data: the built-in set has none"):
        train(GanConfig(**{**TINY, "poses": "data"}))


def command(run: Path, *more: str) -> list[str]:
    flags = {**TINY, "evaluate_images": 0, "steps": 150, "checkpoint_interval": 5, "sample_interval": 1000}
    listed = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "sdfgan", "train-gan", "--output-dir", str(run), *listed, *more]


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until `done`, or the process ends."""
    deadline = time.monotonic() + 120
    while not done() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "straight"), check=True, env=environment, capture_output=True)
    run, chance = tmp_path / "killed", random.Random(0)

    def newest() -> str:
        names = sorted(path.name for path in (run / "checkpoints").glob("step-*[0-9]"))
        return names[-1] if names else ""

    def start() -> subprocess.Popen[str]:
        arguments = [*command(run)[:4], "--resume", str(run)] if newest() else command(run)
        return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    for _ in range(10):
        before = newest()
        process = start()
        wait_for(lambda before=before: newest() != before, process)
        time.sleep(0.3 * chance.random())
        assert process.poll() is None, process.communicate()[0]
        process.kill()
        process.communicate()
    process = start()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    straight, killed = weights(tmp_path / "straight"), weights(run)
    assert all(torch.equal(straight[name], killed[name]) for name in straight)


def test_sigterm_saves_and_stops(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = tmp_path / "run"
    arguments = [*command(run), "--steps", "100000"]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for((run / "checkpoints" / "step-0000005").exists, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"continue with --resume {run}" in output
    assert resolve_checkpoint(run).exists() and not (run / "summary.json").exists()


def test_what_is_not_wanted_is_not_made_and_can_be_made_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"evaluate_images": 0, "dataset_size": 64, "view_resolution": 16, "video_frames": 0, "mesh_resolution": 0}
    summary = train(GanConfig(output_dir=tmp_path / "run", steps=2, **{**TINY, **few}))
    assert summary["turntable"] is None and summary["meshes"] == []
    assert not list((tmp_path / "run").glob("turntable.*")) and not (tmp_path / "run" / "meshes").exists()
    said = capsys.readouterr().out
    assert (
        f"open {tmp_path / 'run'}/report.html, or look at grid.png, summary.json there" in said
        and "continuing" not in said
    )
    summary = train(GanConfig(resume=tmp_path / "run", steps=3, video_frames=2, video_format="gif"))
    assert summary["turntable"] == str(tmp_path / "run" / "turntable.gif") and Path(summary["turntable"]).exists()
    assert f"{tmp_path / 'run'}: continuing at step 2\n" in capsys.readouterr().out
