"""Pictures and videos, read back."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from sdfgan.errors import UserError
from sdfgan.images import (
    NoVideo,
    VideoWriter,
    colour_depth,
    colour_normals,
    image_grid,
    save_image,
    to_linear,
    to_srgb,
    video_if_possible,
    warn_if_no_video,
)


def test_grid_order_and_filling() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 2) + 1
    grid = image_grid(images, 2)
    assert grid.shape == (1, 4, 4)
    assert grid[0, ::2, ::2].tolist() == [[1, 2], [3, 0]]
    assert image_grid(images, 2, fill=9)[0, ::2, ::2].tolist() == [[1, 2], [3, 9]]


def test_linear_light() -> None:
    """By values of the standard: half the light is shown as 188 of 255; the curve is a line near black."""
    assert np.allclose(to_srgb(np.array([0, 0.001, 0.5, 1])) * 255, [0, 3.2946, 187.516, 255], atol=1e-3)
    values = np.linspace(0, 1, 256)
    assert np.allclose(to_srgb(to_linear(values)), values, atol=1e-6)


def test_images_round_trip(tmp_path: Path) -> None:
    image = torch.rand(4, 5, 7)
    save_image(tmp_path / "a.png", image)
    back = torch.from_numpy(imageio.imread(tmp_path / "a.png")).permute(2, 0, 1) / 255
    torch.testing.assert_close(back, image, atol=0.5 / 255 + 1e-6, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_videos_keep_their_size(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", fps=10) as video:
        for i in range(4):
            video.add(torch.full((3, 50, 70), i / 4))
    frames = imageio.mimread(tmp_path / "v.mp4", memtest=False)
    assert len(frames) == 4 and frames[0].shape == (50, 70, 3)
    assert abs(np.mean(frames[2]) / 255 - 0.5) < 0.03


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".WEBP"])
def test_animations_need_no_ffmpeg(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    colours = [(0.9, 0.2, 0.1), (0.1, 0.8, 0.2), (0.2, 0.3, 0.9)]
    with VideoWriter(tmp_path / f"v{suffix}", fps=10) as video:
        for colour in colours:
            video.add(torch.tensor(colour).view(3, 1, 1).expand(3, 15, 21))
    with Image.open(tmp_path / f"v{suffix}") as file:
        assert file.n_frames == 3 and file.size == (21, 15) and file.info["loop"] == 0
        for index, colour in enumerate(colours):
            file.seek(index)
            pixels = np.asarray(file.convert("RGB")) / 255
            assert abs(pixels - colour).max() < 0.05 and file.info["duration"] == 100
    assert len(list(tmp_path.iterdir())) == 1


def test_videos_that_cannot_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(UserError, match=r"v.avi: a video is written as .mp4, .gif or .webp"),
        VideoWriter(tmp_path / "v.avi"),
    ):
        pass
    monkeypatch.setattr("sdfgan.images._MAX_PIXELS", 100)
    with pytest.raises(UserError, match=r"v.gif: 128 pixels are too many"), VideoWriter(tmp_path / "v.gif") as video:
        video.add(torch.zeros(3, 8, 8))
        video.add(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="no frame was added"), VideoWriter(tmp_path / "v.gif"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "v.mp4") as video:
        video.add(torch.zeros(3, 32, 32))
        raise RuntimeError
    of_one_size = pytest.raises(ValueError, match=r"frames must be of one size, \(32, 32\), got \(32, 48\)")
    with of_one_size, VideoWriter(tmp_path / "v.mp4") as video:
        video.add(torch.zeros(3, 32, 32))
        video.add(torch.zeros(3, 32, 48))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_an_error_of_what_is_printed_meanwhile_is_not_the_videos(tmp_path: Path, suffix: str, number: int) -> None:
    error = OSError(number, "of a stream")
    with pytest.raises(OSError) as raised, VideoWriter(tmp_path / f"v{suffix}") as video:
        video.add(torch.zeros(3, 32, 32))
        raise error
    assert raised.value is error and list(tmp_path.iterdir()) == []


def test_colours_of_depth_and_normals() -> None:
    depth = torch.tensor([[[[1.0, 2.0, float("inf")]]]])
    assert colour_depth(depth)[0, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])
    up = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    assert colour_normals(up, torch.ones(1, 1, 1, 1)).flatten().tolist() == [0.5, 1.0, 0.5]


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as if it were not installed


@pytest.mark.usefixtures("no_ffmpeg")
def test_without_ffmpeg_a_video_is_refused_in_a_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "v.mp4"
    with pytest.raises(NoVideo, match=r"v.mp4: not written: videos need ffmpeg"), VideoWriter(file):
        pytest.fail("there is nothing to write with")

    def write(path: Path) -> None:
        with VideoWriter(path) as video:
            video.add(torch.zeros(3, 4, 4))

    assert video_if_possible(file, write) is None
    assert capsys.readouterr().out == f"{file}: not written: videos need ffmpeg (pip install imageio-ffmpeg)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_ffmpeg")
def test_a_video_that_will_be_missing_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_if_no_video(tmp_path / "v.webp")
    assert capsys.readouterr().out == ""
    warn_if_no_video(tmp_path / "v.mp4")
    assert "v.mp4: will not be written: videos need ffmpeg" in capsys.readouterr().out
