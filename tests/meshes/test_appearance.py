"""Meshes as they look: textures, materials and opacity of files, in images whose colours are known."""

from __future__ import annotations

import base64
import json
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import EpsImagePlugin, Image

from sdfgan.errors import UserError
from sdfgan.meshes import model_of, read_model, render_mesh, render_model
from sdfgan.meshes.appearance import Model
from sdfgan.raycast import Lighting

FLAT = Lighting(ambient=1.0, headlight=0.0)
FRONT = torch.eye(3)[None]  # from +z, y upwards
CORNERS = {"top left": (8, 8), "top right": (8, 24), "bottom left": (24, 8), "bottom right": (24, 24)}
COLOURS = {"top left": (255, 0, 0), "top right": (0, 255, 0), "bottom left": (0, 0, 255), "bottom right": (255, 255, 0)}


def quad(z: float = 0.0, half: float = 0.6, **visual: object) -> trimesh.Trimesh:
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    if visual:
        uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
        material = trimesh.visual.material.PBRMaterial(**visual)
        mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return mesh


def four_colours() -> Image.Image:
    image = Image.new("RGB", (2, 2))
    for place, name in (((0, 0), "top left"), ((1, 0), "top right"), ((0, 1), "bottom left"), ((1, 1), "bottom right")):
        image.putpixel(place, COLOURS[name])
    return image.resize((64, 64), Image.Resampling.NEAREST)


def seen(image: torch.Tensor, place: str) -> list[float]:
    row, column = CORNERS[place]
    return image[:, row, column].mul(255).round().tolist()


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_a_texture_is_the_right_way_up(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"quad{suffix}"
    if suffix == ".glb":
        quad(baseColorTexture=four_colours()).export(path)
    else:  # a polygon, its material and its image in a folder
        four_colours().save(tmp_path / "map.png")
        (tmp_path / "quad.mtl").write_text("newmtl m\nKd 1 1 1\nmap_Kd map.png\n")
        corners = "v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        path.write_text(f"mtllib quad.mtl\n{corners}usemtl m\nf 1/1 2/2 3/3 4/4\n")
    model, notes = read_model(path)
    image = render_model(model, FRONT, 32, light=FLAT)[0]
    assert notes == []
    for place, colour in COLOURS.items():
        assert seen(image, place) == [*colour, 255]
    assert image[3].mean() == pytest.approx(0.9**2 / 2, abs=0.01)  # a square in the circle of radius 0.9
    behind = render_model(model, torch.diag(torch.tensor([-1.0, 1.0, -1.0]))[None], 32, light=FLAT)[0]
    assert seen(behind, "top left") == [*COLOURS["top right"], 255]


def test_colours_of_corners_faces_and_nothing() -> None:
    plain, corners, faces = quad(), quad(), quad()
    assert seen(render_model(model_of([plain]), FRONT, 32, light=FLAT)[0], "top left") == [178, 178, 178, 255]
    corners.visual.vertex_colors = np.array([[255, 0, 0, 255]] * 2 + [[0, 0, 255, 255]] * 2, np.uint8)
    faces.visual.face_colors = np.array([[255, 0, 0, 255], [0, 255, 0, 255]], np.uint8)
    graded, split = (render_model(model_of([mesh]), FRONT, 32, light=FLAT)[0] for mesh in (corners, faces))
    assert (graded[0] - graded[2])[16, 8:24].abs().max() < 0.1 and graded[2, 9, 16] > 0.75 > 0.5 > graded[0, 9, 16]
    assert seen(split, "bottom right") == [255, 0, 0, 255] and seen(split, "top left") == [0, 255, 0, 255]


@pytest.mark.parametrize("material", [None, {}, {"pbrMetallicRoughness": {"baseColorFactor": [1.0, 0.5, 1.0, 1.0]}}])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_colours_of_gltf_are_in_linear_light(tmp_path: Path, kind: type, material: dict | None) -> None:
    """Vertex colours, a material's colour and their product; sRGB shows .214 of linear light as half, 128 of 255."""
    linear = np.tile([0.214, 1.0, 0.0], (4, 1))
    colours = linear.astype(kind) if kind is np.float32 else np.round(linear * np.iinfo(kind).max).astype(kind)
    padded = colours if kind is np.float32 else np.pad(colours, ((0, 0), (0, 1)), constant_values=np.iinfo(kind).max)
    place = np.float32([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    corners = np.uint16([0, 1, 2, 0, 2, 3])
    parts = [place.tobytes(), corners.tobytes(), padded.tobytes()]
    starts = np.cumsum([0, *map(len, parts)])
    code = {np.uint8: 5121, np.uint16: 5123, np.float32: 5126}[kind]
    held = {} if material is None else {"material": 0}
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 2}, "indices": 1, **held}
    views = zip(starts[:3], parts, strict=True)
    content = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}], **({} if material is None else {"materials": [material]}),
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": 4, "min": [-1, -1, 0], "max": [1, 1, 0]},
            {"bufferView": 1, "componentType": 5123, "type": "SCALAR", "count": 6},
            {"bufferView": 2, "componentType": code, "normalized": kind is not np.float32, "count": 4,
             "type": f"VEC{padded.shape[1]}"},
        ],
        "bufferViews": [{"buffer": 0, "byteOffset": int(a), "byteLength": len(b)} for a, b in views],
        "buffers": [{"byteLength": int(starts[-1]),
                     "uri": "data:application/octet-stream;base64," + base64.b64encode(b"".join(parts)).decode()}],
    }  # fmt: skip
    (tmp_path / "quad.gltf").write_text(json.dumps(content))
    content["buffers"][0].pop("uri")
    text = json.dumps(content).encode() + b" " * (-len(json.dumps(content)) % 4)
    binary = b"".join(parts) + b"\0" * (-starts[-1] % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    (tmp_path / "quad.glb").write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    for name in ("quad.gltf", "quad.glb"):
        model, notes = read_model(tmp_path / name)
        red, green, blue, alpha = seen(render_model(model, FRONT, 32, light=FLAT)[0], "top left")
        expected = 188 if material else 255  # of half the light
        assert notes == [] and abs(red - 128) <= 1 and abs(green - expected) <= 1 and (blue, alpha) == (0, 255)


def test_opacity() -> None:
    """Opaque materials forget their alpha, masks cut it, and the others are blended with what is behind."""
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 102))
    back = quad(-0.5, baseColorFactor=[0, 0, 255, 255])
    expected = {"OPAQUE": [255, 0, 0, 255], "MASK": [0, 0, 255, 255], "BLEND": [102, 0, 153, 255]}
    for mode, colour in expected.items():
        model = model_of([quad(baseColorTexture=image, alphaMode=mode), back])
        assert seen(render_model(model, FRONT, 32, light=FLAT)[0], "top left") == colour, mode
    alone = model_of([quad(baseColorTexture=image, alphaMode="BLEND")])
    assert seen(render_model(alone, FRONT, 32, light=FLAT)[0], "top left") == [102, 0, 0, 102]


def test_polygons_that_others_cut_otherwise_keep_their_colours(tmp_path: Path) -> None:
    """A concave polygon, fanned wrongly by the reader of colours: its shape is ours, its texture goes on across it."""
    four_colours().save(tmp_path / "map.png")
    (tmp_path / "l.mtl").write_text("newmtl m\nKd 1 1 1\nmap_Kd map.png\n")

    outline = [(1, 0), (1, 1), (0, 1), (0.7, 0.7)]
    lines = [f"v {2 * x - 1} {2 * y - 1} 0" for x, y in outline] + [f"vt {x} {y}" for x, y in outline]
    order = " ".join(f"{i}/{i}" for i in (1, 2, 3, 4))
    (tmp_path / "l.obj").write_text("\n".join(["mtllib l.mtl", *lines, "v -1 -1 0", "usemtl m", f"f {order}", ""]))
    model, notes = read_model(tmp_path / "l.obj")
    image = render_model(model, FRONT, 32, light=FLAT)[0]
    assert notes == [] and image[3, 13, 18] == 0, "between the reflex corner and the line that a fan would draw"
    assert image[3, 9, 22] == 1
    assert seen(image, "top right") == [*COLOURS["top right"], 255]


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.glb").write_bytes(b"glTF")
    with pytest.raises(UserError, match=r"bad\.glb"):
        read_model(tmp_path / "bad.glb")
    with pytest.raises(ValueError, match="render_model: resolution must be at least 1, got 0"):
        render_mesh(quad(), FRONT, 0)
    (tmp_path / "quad.mtl").write_text("newmtl m\nmap_Kd ../outside.png\n")  # a file that is not there, nor may be read
    (tmp_path / "quad.obj").write_text("mtllib quad.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
    model, notes = read_model(tmp_path / "quad.obj")
    assert model.textures == [] and len(model.tree.faces) == 1
    assert [note.removeprefix(f"{tmp_path}/") for note in notes] == [
        "quad.obj: ../outside.png is outside its folder, and not read: what it colours has its plain colour"
    ]


def test_files_that_are_outside_or_missing_are_said(tmp_path: Path) -> None:
    """What is outside the folder is not read, although it is there."""
    four_colours().save(tmp_path / "outer.png")
    (tmp_path / "outer.mtl").write_text("newmtl m\nmap_Kd texture.png\n")
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("texture.png", "my texture.png"):
        four_colours().save(folder / name)
    face = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
    libraries = {
        "inner.mtl": "map_Kd -s 1 1 1 texture.png",
        "windows.mtl": "map_Kd images\\texture.png",
        "spaces.mtl": "map_Kd my texture.png",
        "none.mtl": "map_Kd nothing.png",
        "out.mtl": "map_Kd ../outer.png",
        "moved.mtl": "map_Kd ../textures/texture.png",  # which is beside the mesh
        "null.mtl": "map_Kd \0.png",
    }
    for name, line in libraries.items():
        (folder / name).write_text(f"newmtl m\n{line}\n")
    said = {}
    for library in (*libraries, "../outer.mtl", str(tmp_path / "outer.mtl"), "gone.mtl"):
        (folder / "a.obj").write_text(f"mtllib {library}\n{face}")
        model, notes = read_model(folder / "a.obj")
        said[library] = [note.split(": ")[1] for note in notes]
        coloured = [texture for texture in model.textures if texture[..., :3].std(-1).max() > 0.1]
        assert len(coloured) == (library in ("inner.mtl", "moved.mtl", "windows.mtl", "spaces.mtl"))
    outside = "is outside its folder, and not read"
    assert said == {
        "inner.mtl": [],
        "windows.mtl": [],
        "spaces.mtl": [],
        "none.mtl": ["nothing.png is missing"],
        "out.mtl": [f"../outer.png {outside}"],
        "moved.mtl": [],
        "null.mtl": ["\\x00.png is missing"],
        "../outer.mtl": [f"../outer.mtl {outside}"],
        str(tmp_path / "outer.mtl"): [f"{tmp_path / 'outer.mtl'} {outside}"],
        "gone.mtl": ["gone.mtl is missing"],
    }


@pytest.mark.parametrize("uri", ["../outer.png", "%2e%2e/outer.png", "nothing.png", "texture.png"])
def test_textures_of_gltf_are_in_its_folder(tmp_path: Path, uri: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    four_colours().save(tmp_path / "outer.png")
    four_colours().save(folder / "texture.png")
    quad(baseColorTexture=four_colours()).export(folder / "quad.gltf")
    content = json.loads((folder / "quad.gltf").read_text())
    content["images"] = [{"uri": uri}]
    (folder / "quad.gltf").write_text(json.dumps(content))
    model, notes = read_model(folder / "quad.gltf")
    assert len(model.textures) == (uri == "texture.png") and len(notes) == (uri != "texture.png")
    for note in notes:
        assert note.startswith(f"{folder / 'quad.gltf'}: ") and ("missing" if "nothing" in uri else "outside") in note


FACE = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"


def noted(folder: Path, line: str, obj: str = FACE) -> tuple[Model, list[str]]:
    """A triangle whose material has this line."""
    (folder / "a.mtl").write_text(f"newmtl m\n{line}\n")
    (folder / "a.obj").write_text(obj)
    model, notes = read_model(folder / "a.obj")
    return model, [note.removeprefix(f"{folder / 'a.obj'}: ") for note in notes]


def test_textures_that_are_no_images_are_said(tmp_path: Path) -> None:
    four_colours().save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    Image.fromarray(np.full((8, 8), 7.0, np.float32)).save(tmp_path / "seven.tif")
    broken = {"text.png": b"text", "empty.png": b"", "half.png": good[: len(good) // 2]}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    for name in (*broken, "seven.tif"):
        model, notes = noted(tmp_path, f"map_Kd {name}")
        assert not model.textures
        assert notes[-1] == f"{name} is not an image that is read: what it colours has its plain colour"
    assert noted(tmp_path, "map_kd gone.png")[1] == ["gone.png is missing: what it colours has its plain colour"]
    assert noted(tmp_path, "map_Kd good.png")[1] == []


def test_images_in_a_gltf_that_are_none_are_said(tmp_path: Path) -> None:
    """In the file itself, in its buffer, and in a URI; each once, however often it is used."""
    quad(baseColorTexture=four_colours()).export(tmp_path / "quad.gltf")
    content = json.loads((tmp_path / "quad.gltf").read_text())
    view = content["bufferViews"][content["images"][0]["bufferView"]]
    (buffer,) = (tmp_path / buffer["uri"] for buffer in [content["buffers"][view["buffer"]]])
    quad(baseColorTexture=four_colours()).export(tmp_path / "quad.glb")
    files = [tmp_path / "quad.glb", tmp_path / "quad.gltf"]
    assert [read_model(path)[1] for path in files] == [[], []]
    for path in (tmp_path / "quad.glb", buffer):
        path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"text"))
    for uri in ("data:text/plain,text", "data:image/png;base64,!!!!", "data:image/png;base64,iVBORw=="):
        files.append(tmp_path / f"{len(files)}.gltf")
        inside = {**content, "images": [{"uri": uri}], "textures": 2 * content["textures"]}
        files[-1].write_text(json.dumps(inside))
    for path in files:
        model, notes = read_model(path)
        assert not model.textures
        assert notes == [f"{path}: image 0 in it is not an image that is read: what it colours has its plain colour"]


def test_materials_that_a_library_lacks_are_said(tmp_path: Path) -> None:
    face = FACE.replace("usemtl m", "usemtl  m \nf 1/1 2/2 3/3\nusemtl dark\tred\nf 1/1 2/2 3/3\nusemtl gone")
    model, notes = noted(tmp_path, "Kd 1 0 0\nnewmtl blue\nKd 0 0 1", face)
    lacks = "is missing from a.mtl: what it colours is grey"
    assert notes == [f"material dark\\tred {lacks}", f"material gone {lacks}"]
    assert int((model.colours[:, 0, :3].std(-1) == 0).sum()) == 2
    both = FACE.replace("mtllib a.mtl", "mtllib a.mtl\nmtllib b.mtl").replace("usemtl m", "usemtl gone")
    assert noted(tmp_path, "Kd 1 0 0", both)[1] == ["b.mtl is missing: what it colours has its plain colour"]
    (tmp_path / "b.mtl").write_text("newmtl gone\nKd 0 1 0\n")
    assert noted(tmp_path, "Kd 1 0 0", both)[1] == []
    assert noted(tmp_path, "Kd 1 0 0", FACE.replace("mtllib a.mtl", ""))[1] == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("map_Kd -s 4 4 1 a.png", "option -s of map_Kd is not read: its textures look different"),
        ("map_Kd -blendu on -o 0.5 0 a.png", "option -o of map_Kd is not read: its textures look different"),
        ("map_Kd -clamp on a.png", "option -clamp of map_Kd is not read: its textures look different"),
        ("map_Kd -mm 0.5 0.5 a.png", "option -mm of map_Kd is not read: its textures look different"),
        ("Kd 1 1 1\nd 0.5", "opacity (d) is not read: the mesh is opaque"),
        ("Kd 1 1 1\nTr 0.5", "opacity (Tr) is not read: the mesh is opaque"),
        ("Kd 1 1 1\nKe 0 0 0", None),
        ("Kd 1 1 1\nKe 0 0.5 0", "emission (Ke) is not read: what emits light looks darker"),
        ("Kd 1 1 1\nd 0.5 # glass", "opacity (d) is not read: the mesh is opaque"),
        (
            "Kd spectral red.rfl 1",
            "Kd spectral red.rfl 1 is not R G B, and not read: what it colours is grey",
        ),
        ("Kd xyz 0.4 0.2 0.1", "Kd xyz 0.4 0.2 0.1 is not R G B, and not read: what it colours is grey"),
        ("Kd 0.2,0.4,0.6", "Kd 0.2,0.4,0.6 is not R G B, and not read: what it colours is grey"),
        ("Kd 0.2 0.4", "Kd 0.2 0.4 is not R G B, and not read: what it colours is grey"),
        ("map_Kd -s 1 1 1 -o 0 0 0 -clamp off -mm 0 1 -bm 2 a.png\nd 1.0\nTr 0", None),
    ],
)
def test_what_is_not_followed_of_materials_is_said(tmp_path: Path, lines: str, said: str | None) -> None:
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png")
    assert noted(tmp_path, lines)[1] == ([said] if said else [])


@pytest.mark.parametrize(
    ("line", "colour"),
    [
        ("Kd 0.2 0.4 0.6 # blue", [0.2, 0.4, 0.6]),
        ("Kd 0.6#", [0.6, 0.6, 0.6]),
        ("kd 0.2", [0.2, 0.2, 0.2]),  # the specification: G and B are R where they are left out
        ("\tKd\t.2 .4\t.6\r", [0.2, 0.4, 0.6]),
    ],
)
def test_colours_of_a_material_as_the_specification_has_them(tmp_path: Path, line: str, colour: list[float]) -> None:
    model, notes = noted(tmp_path, line)
    assert notes == [] and model.colours[0, 0, :3].tolist() == pytest.approx(colour, abs=1 / 255)


def test_a_texture_without_a_colour_beside_it_is_as_bright_as_its_file(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png")
    for lines, factor in (("", 1.0), ("Kd 0.5 0.5 0.5\n", 0.5), ("Kd 0.4 0.4 0.4\n", 0.4)):
        model, notes = noted(tmp_path, f"{lines}map_Kd a.png")
        albedo = model.albedo(torch.tensor([0]), torch.full((1, 3), 1 / 3))[0, :3] * 255
        assert notes == [] and np.allclose(albedo, factor * np.array([200, 100, 50]), atol=1)


def test_faces_without_texture_coordinates_are_said(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png")
    model, notes = noted(tmp_path, "map_Kd a.png", FACE + "\nf 1 2 3\n")
    assert notes == ["a texture is not used: not all of its faces have texture coordinates"] and not model.textures


@pytest.mark.parametrize(("values", "suffix"), [(np.uint16(32896), "png"), (np.float32(0.50196), "tif")])
def test_textures_of_more_than_8_bits(tmp_path: Path, values: np.generic, suffix: str) -> None:
    Image.fromarray(np.full((8, 8), values)).save(tmp_path / f"a.{suffix}")
    (texture,) = noted(tmp_path, f"map_Kd a.{suffix}")[0].textures
    assert torch.equal(texture[..., :3], torch.full((8, 8, 3), 128 / 255))


def test_texture_coordinates_may_be_any_numbers(tmp_path: Path) -> None:
    four_colours().save(tmp_path / "a.png")
    model, _ = noted(tmp_path, "map_Kd a.png", FACE.replace("vt 1 0", "vt nan inf").replace("vt 0 1", "vt 1e30 -3e38"))
    assert len(model.textures) == 1 and render_model(model, FRONT, 16).isfinite().all()


def test_names_of_files_take_no_time(tmp_path: Path) -> None:
    """Each of these took minutes, or for ever, by patterns that go back."""
    begin = time.process_time()
    many = 10**6
    for line in (f"map_Kd a{' ' * many}b.png", f"map_Kd {'-1 ' * many}", f"map_Kd -s{' 1' * many}x"):
        assert len(noted(tmp_path, line, f"mtllib a{' ' * many}b\n{FACE}")[1]) == 2
    quad(baseColorTexture=four_colours()).export(tmp_path / "quad.gltf")
    content = json.loads((tmp_path / "quad.gltf").read_text())
    content["images"] = [{"uri": "-1 " * 100 + "a\nb"}]
    (tmp_path / "quad.gltf").write_text(json.dumps(content))
    (note,) = read_model(tmp_path / "quad.gltf")[1]
    assert "\n" not in note and time.process_time() - begin < 20


def test_textures_run_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file's name."""
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(tmp_path / "gs"))
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(Exception, match="gs"), Image.open(tmp_path / "a.png") as image:
        image.load()
    (tmp_path / "ran").unlink()
    assert not noted(tmp_path, "map_Kd a.png")[0].textures and not (tmp_path / "ran").exists()
    assert EpsImagePlugin.gs_binary == str(tmp_path / "gs")


@pytest.mark.parametrize(
    ("texture", "use", "note"),
    [
        ({"source": 0}, {"extensions": {"KHR_texture_transform": {"scale": [2, 2]}}}, "KHR_texture_transform is not"),
        ({"source": 0}, {"extensions": {"KHR_texture_transform": {"scale": [1, 1], "offset": [0, 0]}}}, None),
        ({"source": 0}, {"texCoord": 1}, "texture coordinates other than the first are not"),
        ({"extensions": {"KHR_texture_basisu": {"source": 0}}}, {}, "KHR_texture_basisu is not"),
        ({"source": 0, "extensions": {"KHR_texture_basisu": {"source": 1}}}, {"texCoord": 0}, None),
    ],
)
def test_what_is_not_followed_of_gltf_is_said(
    tmp_path: Path, texture: dict[str, object], use: dict[str, object], note: str | None
) -> None:
    quad(baseColorTexture=four_colours()).export(tmp_path / "quad.gltf")
    content = json.loads((tmp_path / "quad.gltf").read_text())
    content["textures"] = [texture]
    content["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"].update(use)
    (tmp_path / "quad.gltf").write_text(json.dumps(content))
    notes = read_model(tmp_path / "quad.gltf")[1]
    assert len(notes) == (note is not None)
    assert note is None or notes[0].startswith(f"{tmp_path / 'quad.gltf'}: {note} read: ")


@pytest.mark.parametrize(
    ("wraps", "columns", "rows"),
    [
        ({}, "RGRGRG", "RBRBRB"),  # repeat, glTF's default
        ({"wrapS": 33071, "wrapT": 10497}, "RRRGGG", "RBRBRB"),
        ({"wrapS": 33648}, "GRRGGR", "RBRBRB"),
        ({"wrapS": 10497, "wrapT": 33071}, "RGRGRG", "RRRBBB"),
        ({"wrapT": 33648}, "RGRGRG", "BRRBBR"),
        ({"wrapS": 33648, "wrapT": 33071}, "GRRGGR", "RRRBBB"),
        ({"wrapS": 4, "wrapT": "x"}, "RGRGRG", "RBRBRB"),  # somebody's mistake
    ],
)
def test_textures_go_on_outside_as_samplers_say(
    tmp_path: Path, wraps: dict[str, object], columns: str, rows: str
) -> None:
    """Places from -1 to 2 in the middles of half textures, along the upper left ones: red, green right, blue below."""
    quad(baseColorTexture=four_colours()).export(tmp_path / "quad.gltf")
    content = json.loads((tmp_path / "quad.gltf").read_text())
    content["samplers"] = [wraps]
    content["textures"][0]["sampler"] = 0
    (tmp_path / "quad.gltf").write_text(json.dumps(content))
    model, notes = read_model(tmp_path / "quad.gltf")
    places = torch.tensor([-0.75, -0.25, 0.25, 0.75, 1.25, 1.75])
    along = torch.stack([places, torch.full_like(places, 0.75)], 1)  # v upwards: the upper half
    down = torch.stack([torch.full_like(places, 0.25), 1 - places], 1)
    letters = {(255, 0, 0): "R", (0, 255, 0): "G", (0, 0, 255): "B"}
    for uv, expected in ((along, columns), (down, rows)):
        one = model._replace(uv=uv[:, None].expand(-1, 3, -1), colours=torch.ones(len(uv), 3, 4))
        one = one._replace(texture=torch.zeros(len(uv), dtype=torch.int64))
        colour = one.albedo(torch.arange(len(uv)), torch.full((len(uv), 3), 1 / 3))[:, :3].mul(255).round()
        assert "".join(letters[tuple(map(int, rgb))] for rgb in colour.tolist()) == expected
    assert notes == []


@pytest.mark.parametrize("wrap", [10497, 33071])
def test_diffuse_colours_of_specular_glossiness(tmp_path: Path, wrap: int) -> None:
    """The extension of before metallic-roughness was all that is used: its diffuse colours are what is seen."""
    path = tmp_path / "quad.gltf"
    quad(baseColorTexture=four_colours()).export(path)
    content = json.loads(path.read_text())
    texture = content["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    content["samplers"] = [{"wrapS": wrap, "wrapT": wrap}]
    content["textures"][0]["sampler"] = 0
    extension = {"diffuseTexture": texture, "diffuseFactor": [1.0, 0.25, 1.0, 1.0]}
    content["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": extension}}]
    path.write_text(json.dumps(content))
    model, notes = read_model(path)
    image = render_model(model, FRONT, 32, light=FLAT)[0]
    assert notes == [] and model.wraps == [("repeat" if wrap == 10497 else "clamp",) * 2]
    green = 255 * (1.055 * 0.25 ** (1 / 2.4) - 0.055)  # of linear light, as sRGB has it
    assert seen(image, "top left") == [255, 0, 0, 255]
    assert seen(image, "top right")[1] == pytest.approx(green, abs=1.5)


def test_emission_is_said(tmp_path: Path) -> None:
    path = tmp_path / "quad.gltf"
    quad(baseColorTexture=four_colours()).export(path)
    content = json.loads(path.read_text())
    for emitted, said in (([0, 0, 0], 0), ([0, 0.5, 0], 1), ("x", 0)):
        content["materials"][0]["emissiveFactor"] = emitted
        path.write_text(json.dumps(content))
        notes = read_model(path)[1]
        assert sum("emissiveFactor is not read: what emits light looks darker" in note for note in notes) == said


@pytest.mark.parametrize(
    "material", [None, {}, {"doubleSided": True}, {"pbrMetallicRoughness": {"roughnessFactor": 1}}]
)
def test_a_material_without_a_colour_is_white(tmp_path: Path, material: dict[str, object] | None) -> None:
    """As glTF's default is; a mesh without a material is grey, as one of any other format."""
    path = tmp_path / "quad.gltf"
    quad(baseColorFactor=[0, 0, 255, 255]).export(path)
    content = json.loads(path.read_text())
    content["materials"] = [material or {}]
    if material is None:
        del content["materials"], content["meshes"][0]["primitives"][0]["material"]
    path.write_text(json.dumps(content))
    model, notes = read_model(path)
    grey = 178 if material is None else 255
    assert notes == [] and seen(render_model(model, FRONT, 32, light=FLAT)[0], "top left") == [grey, grey, grey, 255]


@pytest.mark.parametrize("wrong", ["x", 7, [1]])
def test_materials_of_other_types_leave_the_model_grey(tmp_path: Path, wrong: object) -> None:
    quad(baseColorTexture=four_colours()).export(tmp_path / "quad.gltf")
    content = json.loads((tmp_path / "quad.gltf").read_text())
    content["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] = wrong
    (tmp_path / "quad.gltf").write_text(json.dumps(content))
    model, notes = read_model(tmp_path / "quad.gltf")
    assert len(model.tree.faces) == 2 and not model.textures
    assert [note.split(": ")[1] for note in notes] == ["colours, if it has any, cannot be read; it is grey"]


def test_each_image_may_have_a_light_of_its_own() -> None:
    sides = FRONT.expand(2, 3, 3)
    dim, bright = render_model(model_of([quad()]), sides, 32, light=Lighting(torch.tensor([0.25, 1.0]), 0.0))
    assert (dim[:3] - 0.25 * bright[:3]).abs().max() < 1e-6 and torch.equal(dim[3], bright[3]) and bright[3].any()
    light = Lighting.random(sides, torch.Generator().manual_seed(0))
    images = render_model(model_of([quad()]), sides, 32, light=light)
    assert not torch.equal(images[0], images[1])
