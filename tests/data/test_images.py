"""Pictures in every shape they come in, and the ones that must be refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdfgan.data import archives as module
from sdfgan.data.images import decode_mask, decode_whole, load_images
from sdfgan.errors import UserError


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (20, 20), colour: object = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour if colour is not None else 200).save(path)


def png(colour: object = (255, 0, 0), size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def pixel(images: torch.Tensor, row: int = 4, column: int = 4) -> list[int]:
    return images[0, :, row, column].tolist()


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", (10, 20, 30), "png", (10, 20, 30, 255)),
        ("RGBA", (200, 100, 0, 128), "png", (100, 50, 0, 128)),
        ("L", 77, "png", (77, 77, 77, 255)),
        ("LA", (200, 51), "png", (40, 40, 40, 51)),
        ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0, 255)),
        ("I;16", 257 * 99, "png", (99, 99, 99, 255)),
        ("1", 1, "png", (255, 255, 255, 255)),
    ],
)
def test_modes(tmp_path: Path, mode: str, colour: object, suffix: str, expected: tuple[int, ...]) -> None:
    save(tmp_path / f"a.{suffix}", mode, colour=colour)
    found = load_images(tmp_path, 8)
    assert found.images.shape == (1, 4, 8, 8) and found.images.dtype == torch.uint8 and not found.skipped
    assert np.allclose(pixel(found.images), expected, atol=1)


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png", transparency=0)
    images = load_images(tmp_path, 8).images
    assert pixel(images) == [255, 0, 0, 255] and pixel(images, 0, 0) == [0, 0, 0, 0]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", "CMYK", colour=(0, 0, 0, 0))
    assert pixel(load_images(tmp_path, 8).images) == [255] * 4


def test_orientation(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16))
    image.paste((255, 255, 255), (0, 0, 8, 16))  # bright on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    images = load_images(tmp_path, 8).images
    assert images[0, 0, 0].min() > 200 and images[0, 0, -1].max() < 50


def test_opaque_is_cropped_and_transparent_is_padded(tmp_path: Path) -> None:
    opaque = Image.new("RGB", (30, 10), (255, 0, 0))
    opaque.paste((0, 255, 0), (10, 0, 20, 10))
    opaque.save(tmp_path / "a.png")
    cut_out = Image.new("RGBA", (32, 16), (255, 0, 0, 255))
    cut_out.putpixel((0, 0), (0, 0, 0, 0))
    cut_out.save(tmp_path / "b.png")
    images = load_images(tmp_path, 16).images
    assert (images[0, 1, 4:-4, 4:-4] == 255).all() and (images[0, 0, 4:-4, 4:-4] == 0).all()
    assert (images[1, :, :4] == 0).all() and (images[1, :, -4:] == 0).all()
    assert images[1, :, 8, 8].tolist() == [255, 0, 0, 255]


def test_edges_keep_their_colour(tmp_path: Path) -> None:
    """What is hidden under transparency (here green) must not bleed into a white edge."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[...] = (0, 255, 0, 0)
    pixels[10:45, 10:45] = (255, 255, 255, 128)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for resolution in (16, 23, 100):
        image = load_images(tmp_path, resolution).images[0].int()
        assert (image[:3] <= image[3]).all()
        assert (image[3] - image[:3]).max() <= 1, "premultiplied white: every colour equals alpha"


def test_resampling_is_antialiased(tmp_path: Path) -> None:
    checks = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "a.png")
    assert (load_images(tmp_path, 8).images[0, :3].int() - 127).abs().max() <= 4


def test_background_becomes_transparent(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 32), (250, 255, 255))
    image.paste((255, 0, 0), (24, 8, 40, 24))
    image.save(tmp_path / "a.png")
    found = load_images(tmp_path, 32, background=(1.0, 1.0, 1.0)).images
    assert pixel(found, 16, 16) == [255, 0, 0, 255]
    assert (found[0, :, :, :8] == 0).all() and (found[0, :, :8] == 0).all()
    assert (found[:, :3] <= found[:, 3:]).all()
    with pytest.raises(UserError, match=r"--background must be RGB in 0\.\.1, got 255 255 255"):
        load_images(tmp_path, 32, background=(255, 255, 255))


def test_order_is_natural_and_other_files_are_ignored(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        save(tmp_path / "deep" / "er" / f"{number}.png", "L", colour=number)
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".cache" / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "labels.json").write_text("{}")
    calls: list[tuple[int, int]] = []
    found = load_images(tmp_path, 4, on_progress=lambda done, total: calls.append((done, total)))
    assert found.images[:, 0, 0, 0].tolist() == [1, 9, 10] and not found.skipped
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_bad_pictures_are_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "header.png").write_bytes(whole[:20])
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "empty.png").write_bytes(b"")
    save(tmp_path / "one.png", size=(1, 1), colour=(7, 8, 9))
    save(tmp_path / "thin.png", "RGBA", (300, 1), (1, 2, 3, 254))
    save(tmp_path / "huge.png", size=(100, 100))
    frames = [Image.new("RGB", (8, 8), (40 * k, 0, 0)) for k in range(3)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    found = load_images(tmp_path, 8)
    reasons = dict(found.skipped)
    assert set(reasons) == {"cut.png", "header.png", "text.png", "empty.png", "huge.png", "moves.gif"}
    assert reasons["text.png"] == "not an image" and reasons["empty.png"] == "empty file"
    assert reasons["moves.gif"] == "animated: 3 frames, and an image has one"
    assert "pixels" in reasons["huge.png"] and all("\n" not in reason for reason in reasons.values())
    assert len(found.images) == 3
    assert (found.images[1] == torch.tensor([7, 8, 9, 255])[:, None, None]).all()


def test_photographs_with_a_preview_are_read(tmp_path: Path) -> None:
    """Phones write JPEGs that hold a second, smaller picture."""
    big, small = Image.new("RGB", (32, 32), (200, 30, 40)), Image.new("RGB", (8, 8), (0, 0, 255))
    big.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[small])
    found = load_images(tmp_path, 8)
    assert not found.skipped and (found.images[0, 0] - 200.0).abs().max() < 4


def test_zip_is_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/2.png", png((2, 0, 0)))
        archive.writestr("b/1.png", png((1, 0, 0)))
        archive.writestr("../out.png", png())
        archive.writestr("/etc/out.png", png())
        archive.writestr("C:\\out.png", png())
        archive.writestr("__MACOSX/._1.png", b"resource fork")
        archive.writestr("readme.txt", "no image")
        archive.writestr("zeros.bmp", bytes(20_000))
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    before = set(tmp_path.rglob("*"))
    found = load_images(path, 8)
    assert found.images[:, 0, 0, 0].tolist() == [1, 2]
    reasons = dict(found.skipped)
    assert (
        len(reasons) == 4 and reasons["../out.png"] == reasons["/etc/out.png"] == "its name points out of the archive"
    )
    assert "more than 10000" in reasons["zeros.bmp"]
    assert set(tmp_path.rglob("*")) == before and not (tmp_path.parent / "out.png").exists()


def test_damaged_entry_of_a_zip_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", png((1, 0, 0)))
        archive.writestr("2.png", png((2, 0, 0)))
    data = path.read_bytes()
    path.write_bytes(data.replace(png((2, 0, 0)), png((2, 0, 0))[:-20] + bytes(20)))
    found = load_images(path, 8)
    assert len(found.images) == 1 and found.skipped[0][0] == "2.png" and "CRC" in found.skipped[0][1]


def test_nothing_to_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("text")
    (tmp_path / "damaged.zip").write_bytes(b"PK\x03\x04 damaged")
    (tmp_path / "photo.png").write_bytes(png())
    for name, message in (
        ("missing", "no such folder, zip or tar"),
        ("empty", "no images in it"),
        ("bad", r"no readable image: 1 skipped, the first: a\.png \(not an image\)"),
        ("damaged.zip", "not a readable zip"),
        ("photo.png", r"expected a folder, a \.zip or a \.tar"),
    ):
        with pytest.raises(UserError, match=f"{name}: {message}") as caught:
            load_images(tmp_path / name, 8)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="load_images: resolution must be at least 1, got 0"):
        load_images(tmp_path, 0)


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """Grey of 12 bits, two values in three bytes, as cameras and microscopes write it; Pillow itself does not."""
    pairs = values.reshape(-1, 2).astype(np.int64)
    packed = np.stack((pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255), 1)
    data = packed.astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {
        256: width,
        257: height,
        258: 12,
        259: 1,
        262: 1,
        273: 8 + 2 + 12 * 9 + 4,
        277: 1,
        278: height,
        279: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_values_of_many_bits(tmp_path: Path) -> None:
    """Numbers in [0, 1] and 16 bits become 8 by their range, and other ranges are refused, never guessed at."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16)
    for name, values in (
        ("f.tif", ramp),
        ("u.tif", (ramp * 65535).astype(np.uint16)),
        ("u.png", (ramp * 65535).astype(np.uint16)),
    ):
        Image.fromarray(values).save(tmp_path / name)
        found = decode_whole(tmp_path / name)
        assert not isinstance(found, str) and not found[1] and (found[0][..., :3] == expected[..., None]).all()
        assert (found[0][..., 3] == 255).all()
    levels = (np.arange(256).reshape(16, 16) * 257).astype(">u2")
    (tmp_path / "p.pgm").write_bytes(b"P5 16 16 65535\n" + levels.tobytes())
    found = decode_whole(tmp_path / "p.pgm")
    assert not isinstance(found, str) and (found[0][..., 0] == expected).all()
    (tmp_path / "12.tif").write_bytes(tiff_of_12_bits((ramp * 4095).astype(np.uint16)))
    found = decode_whole(tmp_path / "12.tif")
    assert not isinstance(found, str) and np.abs(found[0][..., 0].astype(int) - expected).max() <= 1
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(tmp_path / "key.png", transparency=65535)
    found = decode_whole(tmp_path / "key.png")
    assert not isinstance(found, str) and found[1] and (found[0][..., 3] == np.where(ramp == 1, 0, 255)).all()
    for values, said in (
        (ramp * 255, "floating-point values must be in 0..1, got 0 to 255"),
        (ramp - 0.5, "got -0.5 to 0.5"),
        (np.where(ramp > 0.5, np.nan, ramp), "got nan to nan"),
        (np.where(ramp > 0.5, np.inf, ramp), "got 0 to inf"),
        ((ramp * 60000).astype(np.int32), "integers of 8 or 16 bits without sign are read"),
    ):
        Image.fromarray(values).save(tmp_path / "bad.tif")
        assert said in str(decode_whole(tmp_path / "bad.tif"))
    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tif")
    assert decode_whole(tmp_path / "lab.tif") == "images of mode LAB are not read"
    assert dict(load_images(tmp_path, 16).skipped).keys() == {"bad.tif", "lab.tif"}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiffs_in_which_0_is_white(tmp_path: Path, kind: type) -> None:
    """Pillow turns those of 8 bits alone."""
    ramp = np.arange(256).reshape(16, 16)
    Image.fromarray((ramp / 255 if kind is np.float32 else ramp * (np.iinfo(kind).max // 255)).astype(kind)).save(
        tmp_path / "a.tif"
    )
    data = (tmp_path / "a.tif").read_bytes()
    black = struct.pack("<HHIHH", 262, 3, 1, 1, 0)  # a tag: 0 is black
    assert data.count(black) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(black, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    found, mask = decode_whole(tmp_path / "a.tif"), decode_mask(tmp_path / "a.tif")
    assert not isinstance(found, str) and (found[0][..., 0] == 255 - ramp).all()
    assert not isinstance(mask, str) and (mask == (ramp < 255)).all()


@pytest.mark.parametrize(("bits", "values", "clear"), [(1, [0, 1], 1), (2, [0, 1, 2, 3], 1), (4, [0, 5, 10, 15], 10)])
def test_one_grey_of_few_bits_is_transparent(tmp_path: Path, bits: int, values: list[int], clear: int) -> None:
    row = int("".join(f"{value:0{bits}b}" for value in values), 2) << (-bits * len(values)) % 8
    pixels = b"\0" + row.to_bytes((bits * len(values) + 7) // 8, "big")
    (tmp_path / "a.png").write_bytes(raw_png(len(values), bits, 0, pixels, struct.pack(">H", clear)))
    found, squares = decode_whole(tmp_path / "a.png"), load_images(tmp_path, 4).images
    grey = [value * 255 // (2**bits - 1) for value in values]
    alpha = [0 if value == clear else 255 for value in values]
    assert not isinstance(found, str) and found[1] and found[0][0, :, 3].tolist() == alpha
    assert found[0][0, :, 0].tolist() == [g * a // 255 for g, a in zip(grey, alpha, strict=True)]
    assert squares[0, 3].max() == 255 and (squares[0, 3] == 0).any()


def test_one_colour_of_16_bits_is_transparent(tmp_path: Path) -> None:
    """Pillow keeps 8 bits of the pixels, and cannot tell which had that colour."""
    colours = [(12345, 2, 3), (12346, 2, 3)]
    pixels = b"\0" + b"".join(struct.pack(">3H", *colour) for colour in colours)
    (tmp_path / "a.png").write_bytes(raw_png(2, 16, 2, pixels, struct.pack(">3H", *colours[0])))
    assert (
        decode_whole(tmp_path / "a.png") == "a transparent colour of 16 bits a channel is not read; an alpha channel is"
    )


def raw_png(width: int, bits: int, kind: int, row: bytes, transparent: bytes) -> bytes:
    """One row, with its filter before it; Pillow writes no such files."""
    header = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_associated_alpha_of_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 255], [128, 128], [0, 0]]], np.uint8), "LA").save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    straight = struct.pack("<HHIHH", 338, 3, 1, 2, 0)
    assert data.count(straight) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(straight, struct.pack("<HHIHH", 338, 3, 1, 1, 0)))
    found = decode_whole(tmp_path / "a.tif")
    assert not isinstance(found, str) and found[0][0].tolist() == [[0, 0, 0, 255], [128] * 4, [0] * 4]


def test_sound_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    for start, said in (
        (b"II*\0\x08\0\0\0", "a TIFF of a kind that is not read: convert it to PNG"),
        (b"v/1\x01\x02\0\0\0", "OpenEXR is not read: convert it to PNG"),
        (b"\0\0\0\x20ftypavif", "HEIF or AVIF is not read: convert it to PNG"),
        (b"text text text", "not an image"),
        (b"", "empty file"),
    ):
        (tmp_path / "a.tif").write_bytes(start + bytes(40 if start else 0))
        assert decode_whole(tmp_path / "a.tif") == said == load_reason(tmp_path)


def load_reason(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_images(folder, 4)
    return str(error.value).split("the first: a.tif (", 1)[1][:-1]
