"""The built-in pictures: the same for a seed, balanced, premultiplied, within bounds, cached safely."""

import os

import pytest
import torch

from sdfgan import cameras
from sdfgan.data import SHAPE_CLASSES, SHAPE_FAMILIES, random_shapes, render_shapes, shape_set


@pytest.fixture(scope="module")
def shapes():
    return render_shapes(700, 16, seed=1)


def test_pictures_are_balanced_shuffled_and_premultiplied(shapes):
    images, labels = shapes
    assert images.shape == (700, 4, 16, 16) and images.dtype == torch.uint8
    assert torch.equal(labels.bincount(minlength=7), torch.full((7,), 100))
    assert len(labels[:50].unique()) == 7
    assert (images[:, :3] <= images[:, 3:]).all()
    alpha = images[:, 3].double() / 255
    assert alpha.mean() == pytest.approx(0.21, abs=0.015)
    assert (alpha.amax((1, 2)) == 1).all() and (alpha[:, 0, 0] == 0).all()


def test_pictures_are_mirror_symmetric_in_distribution(shapes):
    mean = shapes.images.double().mean(0) / 255
    torch.testing.assert_close(mean, mean.flip(-1), atol=0.05, rtol=0)


def test_a_seed_gives_the_same_pictures_on_any_number_of_threads(shapes):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = render_shapes(700, 16, seed=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(again.images, shapes.images) and torch.equal(again.labels, shapes.labels)
    assert not torch.equal(render_shapes(700, 16, seed=2).images, shapes.images)


def test_progress_is_reported_and_its_errors_pass():
    calls = []
    render_shapes(15, 8, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (15, 15) and calls == sorted(calls)

    def interrupt(done, total):
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        render_shapes(15, 8, on_progress=interrupt)
    assert torch.get_num_threads() == threads


def test_odd_counts():
    assert render_shapes(0, 8).images.shape == (0, 4, 8, 8)
    assert render_shapes(3, 5, samples=1).images.shape == (3, 4, 5, 5)
    with pytest.raises(ValueError, match="render_shapes: count"):
        render_shapes(-1, 8)


@pytest.mark.parametrize("name", [name for classes in SHAPE_FAMILIES.values() for name in classes])
def test_shapes_stay_within_their_bound(name):
    field, bound = random_shapes(name, 50, torch.Generator().manual_seed(0))
    assert bound.max() <= 1
    directions = torch.nn.functional.normalize(torch.randn(50, 200, 3), dim=-1)
    points = (directions * bound[:, None, None] * 1.001).view(-1, 3)
    image = torch.arange(50).repeat_interleave(200)
    assert (field.sdf(points, image=image) > 0).all()
    assert (field.sdf(0.0 * points, image=image) < 0).all() or name not in SHAPE_CLASSES[:5]


@pytest.mark.parametrize("family", list(SHAPE_FAMILIES)[1:])
def test_families_look_like_more_than_solids(family, tmp_path):
    """All of their classes are there, fill the picture, have several colours, and come again from the cache."""
    count = 4 * len(SHAPE_FAMILIES[family])
    made = shape_set(count, 32, 1, tmp_path, family=family)
    assert made.labels.bincount().tolist() == [4] * len(SHAPE_FAMILIES[family])
    assert torch.equal(shape_set(count, 32, 1, tmp_path, family=family).images, made.images)
    assert not torch.equal(shape_set(count, 32, 1, tmp_path).images, made.images)
    covered = (made.images[:, 3] > 127).flatten(1).float().mean(1)
    assert covered.min() > 0.03 and covered.max() < 0.6
    rows = (made.images[:, 3] > 127).any(2).sum(1).maximum((made.images[:, 3] > 127).any(1).sum(1))
    assert rows.float().mean() > 18  # of 32
    hues = torch.nn.functional.normalize(made.images[:, :3].float().flatten(2), dim=1)  # [N, 3, pixels]
    whole = made.images[:, 3].flatten(1) == 255
    spread = [hue[:, inside].std(1).max() for hue, inside in zip(hues, whole, strict=True)]
    assert sum(value > 0.05 for value in spread) > count * 0.7


def test_silhouette_and_shading_of_a_sphere_are_analytic(monkeypatch):
    from sdfgan.data import shapes as module
    from sdfgan.fields import Sphere

    def spheres(name, n, generator, on_cylinder):
        return Sphere(torch.full((n,), 0.5)).coloured((1.0, 0.5, 0.25)), torch.full((n,), 0.6)

    monkeypatch.setattr(module, "random_shapes", spheres)
    picture = render_shapes(1, 64).images[0].double() / 255
    distance = cameras.camera_distance()
    # seen from D, the silhouette of a sphere of radius r has the radius r D / sqrt(D^2 - r^2) in the plane
    radius = 0.5 * distance / (distance**2 - 0.25) ** 0.5
    assert picture[3].mean() == pytest.approx(3.14159 * radius**2 / 4, rel=0.01)
    assert picture[0, 31:33, 31:33].mean() == pytest.approx(1.0, abs=0.01)  # the centre faces the light
    torch.testing.assert_close(picture[1], picture[0] / 2, atol=0.01, rtol=0)


def test_a_cached_set_is_read_and_a_damaged_one_made_again(tmp_path, monkeypatch):
    first = shape_set(14, 8, 3, tmp_path)
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr("sdfgan.data.shapes.render_shapes", lambda *a, **k: pytest.fail("not from the cache"))
    cached = shape_set(14, 8, 3, tmp_path)
    assert torch.equal(first.images, cached.images) and torch.equal(first.labels, cached.labels)
    monkeypatch.undo()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for damaged in (b"", b"text", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        assert torch.equal(shape_set(14, 8, 3, tmp_path).images, first.images)
        assert path.read_bytes() == whole or len(path.read_bytes()) == len(whole)
    assert list(tmp_path.iterdir()) == [path]  # no partial files


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SDFGAN_CACHE", raising=False)
    shape_set(1, 8)
    assert len(os.listdir(tmp_path / "xdg" / "sdfgan")) == 1
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "own"))
    shape_set(1, 8)
    assert len(os.listdir(tmp_path / "own")) == 1


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="cannot keep the images"):
        assert len(shape_set(2, 8, 0, tmp_path / "file" / "cache").images) == 2
