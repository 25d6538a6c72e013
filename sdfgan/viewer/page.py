"""The page in the browser: a viser server whose clients each have a camera, controls and pictures of their own."""

from __future__ import annotations

import contextlib
import io
import math
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import viser
from PIL import Image, ImageDraw
from torch import Tensor
from viser import uplot

from sdfgan.errors import UserError
from sdfgan.images import image_grid, to_bytes
from sdfgan.raycast import Lighting
from sdfgan.viewer.generator import SLIDERS, Choice, GeneratorScene
from sdfgan.viewer.runs import Progress, Result
from sdfgan.viewer.scenes import Check, Scene
from sdfgan.viewer.scheduler import Scheduler
from sdfgan.viewer.view import Style, View

_SIZES = ("256", "512", "768", "1024")
_BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5)}
_LIGHTS = {"headlight": None, "left": (-1.0, 0.6, 0.6), "right": (1.0, 0.6, 0.6), "above": (0.0, 1.0, 0.2)}
_PLANES = {"off": None, "x": 0, "y": 1, "z": 2}
_SEEDS = {"min": 0, "max": 2**31 - 1, "step": 1}
_WALL, _COLUMNS, _TILE = 24, 4, 96  # shapes to choose from, and the pixels of each
_COARSE_QUALITY, _QUALITY = 70, 92  # of JPEGs
_WATCH = 2.0  # seconds between looks at a run


class Viewer:
    """Serves a page until it is closed.

    `look` says what there is to view now, `load` makes a scene of it; they are asked again as a run goes on. `progress`
    are the numbers of a run. Raises UserError where there is nothing to view.
    """

    def __init__(
        self,
        look: Callable[[], Result],
        load: Callable[[Result], Scene],
        progress: Progress,
        *,
        host: str,
        port: int,
        resolution: int,
        mesh_resolution: int,
    ) -> None:
        self._look, self._load, self.progress = look, load, progress
        self.resolution, self.mesh_resolution = resolution, mesh_resolution
        self._result = look()
        self.scene = load(self._result)
        self.scheduler = Scheduler()
        self._pages: dict[int, Page] = {}
        self._closed = threading.Event()
        with silent():
            self.server = viser.ViserServer(host, port, label="sdfgan view", verbose=False)
        self.server.scene.set_up_direction("+y")
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        distance = 1 / math.tan(self.server.initial_camera.fov / 2)
        direction = View(*self.scene.start).axes[0, 2]
        self.server.initial_camera.position = tuple((distance * direction).tolist())
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def close(self) -> None:
        """End it; pages say that they have lost their server."""
        self._closed.set()
        self.scheduler.close()
        with silent():
            self.server.stop()

    def _connect(self, client: viser.ClientHandle) -> None:
        self._pages[client.client_id] = Page(self, client)

    def _disconnect(self, client: viser.ClientHandle) -> None:
        page = self._pages.pop(client.client_id, None)
        if page is not None:
            self.scheduler.drop(page)

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH):
            pages = list(self._pages.values())
            try:
                result = self._look()
                if result != self._result:
                    scene = self._load(result)
                    self._result, self.scene = result, scene
                    for page in pages:
                        self.scheduler.ask(page)
                for page in pages:
                    page.follow()
            except Exception as error:
                for page in pages:
                    page.fail(error)


class Page:
    """What one client sees; see `scheduler.Client`."""

    def __init__(self, viewer: Viewer, client: viser.ClientHandle) -> None:
        self.viewer, self.client = viewer, client
        self._error = ""
        self._kept: tuple[Any, Any, Any] = (None, None, None)  # scene, choice and condition
        gui = client.gui
        self.title = gui.add_markdown(f"**{viewer.scene.title}**")
        tabs = gui.add_tab_group()
        if isinstance(viewer.scene, GeneratorScene):
            with tabs.add_tab("Shape"):
                self._add_shape(viewer.scene)
            with tabs.add_tab(f"{_WALL} shapes"):
                self._add_wall()
        with tabs.add_tab("View"):
            self._add_view(viewer.scene)
        if viewer.progress.exists:
            with tabs.add_tab("Run"):
                self._add_run()
        client.camera.on_update(lambda _: self.ask())
        self.ask()

    def ask(self, _: Any = None) -> None:
        """Something has changed."""
        self.viewer.scheduler.ask(self)

    # ----------------------------------------------------------------------------------------------------- controls

    def _add_view(self, scene: Scene) -> None:
        gui = self.client.gui
        self.show_ = gui.add_dropdown("Show", ("colour", "normals", "depth"))
        self.background = gui.add_dropdown("Background", tuple(_BACKGROUNDS))
        degrees = round(math.degrees(scene.fov))
        self.fov = gui.add_slider(
            "Perspective", min=5, max=90, step=1, initial_value=degrees, hint="field of view, degrees"
        )
        self.size = gui.add_dropdown(
            "Height", _SIZES, initial_value=str(self.viewer.resolution), hint="pixels, when nothing moves"
        )
        followed = [self.show_, self.background, self.fov, self.size]
        if scene.lit:
            with gui.add_folder("Light"):
                self.light = gui.add_dropdown("From", tuple(_LIGHTS))
                self.ambient = gui.add_slider("Ambient", min=0, max=1, step=0.05, initial_value=0.0)
            followed += [self.light, self.ambient]
        if scene.sliced:
            with gui.add_folder("Slice of the distance field"):
                self.plane = gui.add_dropdown("Across", tuple(_PLANES))
                self.plane_at = gui.add_slider("At", min=-1, max=1, step=0.01, initial_value=0.0)
            followed += [self.plane, self.plane_at]
        for control in followed:
            control.on_update(self.ask)
        gui.add_button("Save picture (PNG)").on_click(lambda _: self._do(self._save_picture))
        gui.add_button("Save mesh (GLB)").on_click(lambda _: self._do(self._save_mesh))
        gui.add_button("Camera to its start").on_click(self._reset)

    def _add_shape(self, scene: GeneratorScene) -> None:
        gui = self.client.gui
        self.seed = gui.add_number("Seed", 0, **_SEEDS)
        followed: list[Any] = [self.seed]
        self.texture_seed = None
        if len(scene.groups) > 1:
            self.texture_seed = gui.add_number("Texture seed", 0, **_SEEDS)
            followed.append(self.texture_seed)
        self.psi = gui.add_slider("Truncation", min=0, max=1.5, step=0.05, initial_value=1.0, hint="0: the mean shape")
        with gui.add_folder("Towards another"):
            self.other = gui.add_number("Other seed", 1, **_SEEDS)
            self.share = gui.add_slider("Way", min=0, max=1, step=0.01, initial_value=0.0)
        followed += [self.psi, self.other, self.share]
        self.moves = []
        for group in scene.groups:
            with gui.add_folder(f"Principal directions of the {group}"):
                for index in range(SLIDERS):
                    name = f"{group} {index + 1}"
                    self.moves.append(gui.add_slider(name, min=-3, max=3, step=0.05, initial_value=0.0))
        gui.add_button("Sliders to 0").on_click(self._zero)
        for control in (*followed, *self.moves):
            control.on_update(self.ask)

    def _add_wall(self) -> None:
        gui = self.client.gui
        self.first = gui.add_number("From seed", 0, min=0, max=2**31 - _WALL, step=_WALL)
        self.wall = gui.add_image(np.full((8, 8, 3), 255, np.uint8))
        self.chosen = gui.add_number("Take seed", 0, **_SEEDS, hint="as written in the image")
        gui.add_button("Take it").on_click(self._take)
        self.first.on_update(lambda _: self._do(self._draw_wall))
        self._do(self._draw_wall)

    def _add_run(self) -> None:
        gui = self.client.gui
        curves = self.viewer.progress.curves()
        names = tuple(curves) or ("none yet",)
        first = next((name for name in names if "loss" in name), names[0])
        self.number = gui.add_dropdown("Curve", names, initial_value=first)
        self.number.on_update(lambda _: self.follow())
        nothing = np.zeros(2)
        self.plot = gui.add_uplot(
            (nothing, nothing), (uplot.Series(label="step"), uplot.Series(label=first, stroke="#2563eb", width=1.5)),
            scales={"x": uplot.Scale(time=False)}, aspect=1.6,
        )  # fmt: skip
        self._sample: Path | None = None
        self.sample = gui.add_image(np.full((8, 8, 3), 255, np.uint8), label="Newest samples")
        self.follow()

    # ------------------------------------------------------------------------------------------------------ actions

    def _do(self, task: Callable[[], None]) -> None:
        self.viewer.scheduler.do(self, task)

    def _zero(self, _: Any) -> None:
        for slider in (*self.moves, self.share):
            slider.value = 0.0
        self.ask()

    def _take(self, _: Any) -> None:
        self.seed.value = self.chosen.value
        if self.texture_seed is not None:
            self.texture_seed.value = self.chosen.value
        self._zero(None)

    def _reset(self, _: Any) -> None:
        start = self.viewer.server.initial_camera
        with self.client.atomic():
            self.client.camera.position, self.client.camera.look_at = start.position, start.look_at
        self.ask()

    def _draw_wall(self) -> None:
        scene = self.viewer.scene
        assert isinstance(scene, GeneratorScene)
        first = int(self.first.value)
        images = scene.wall(first, _WALL, _TILE, self.psi.value, lambda: None)
        self.wall.image = labelled(images, first)

    def _save_picture(self) -> None:
        picture = Image.fromarray(self.draw(None, lambda: None))
        with io.BytesIO() as file:
            picture.save(file, "PNG")
            self.client.send_file_download(f"{self._stem}.png", file.getvalue(), save_immediately=True)

    def _save_mesh(self) -> None:
        note = self.client.add_notification("Mesh", "being made", loading=True, with_close_button=False)
        try:
            content = self.viewer.scene.glb(self._subject(self.viewer.scene), self.viewer.mesh_resolution)
        finally:
            note.remove()
        self.client.send_file_download(f"{self._stem}.glb", content, save_immediately=True)

    @property
    def _stem(self) -> str:
        scene = self.viewer.scene
        seed = f"-{self.seed.value}" if isinstance(scene, GeneratorScene) else ""
        return "".join(c if c.isalnum() else "-" for c in Path(scene.title).stem).replace("--", "-") + seed

    def follow(self) -> None:
        """Show what the run has newly written."""
        self.title.content = f"**{self.viewer.scene.title}**"
        if not hasattr(self, "plot"):
            return
        curves = self.viewer.progress.curves()
        if curves and tuple(curves) != tuple(self.number.options):
            kept = self.number.value
            self.number.options = tuple(curves)
            self.number.value = kept if kept in curves else next(iter(curves))
        curve = curves.get(self.number.value)
        if curve is not None and not np.array_equal(curve[1], self.plot.data[1]):
            self.plot.data = (curve[0], curve[1])
            self.plot.title = self.number.value
        sample = self.viewer.progress.newest_sample()
        if sample is not None and sample != self._sample:
            with Image.open(sample) as image:
                self.sample.image = np.asarray(image.convert("RGB"))
            self._sample = sample

    # --------------------------------------------------------------------------------------- for the scheduler's thread

    def _subject(self, scene: Scene) -> Any:
        """The condition of what is chosen; the last one is kept."""
        choice = None
        if isinstance(scene, GeneratorScene):
            choice = Choice(
                int(self.seed.value),
                0 if self.texture_seed is None else int(self.texture_seed.value),
                float(self.psi.value),
                int(self.other.value),
                float(self.share.value),
                tuple(float(slider.value) for slider in self.moves),
            )
        if self._kept[:2] != (scene, choice):
            self._kept = (scene, choice, scene.condition(choice))
        return self._kept[2]

    def _style(self, scene: Scene, fine: bool) -> Style:
        light, cut = Lighting(), None
        if scene.lit:
            ambient, direction = float(self.ambient.value), _LIGHTS[self.light.value]
            light = Lighting(ambient, 1 - ambient)
            if direction is not None:
                light = Lighting(ambient, 0.0, 1 - ambient, direction)
        if scene.sliced:
            axis = _PLANES[self.plane.value]
            cut = None if axis is None else (axis, float(self.plane_at.value))
        return Style(self.show_.value, _BACKGROUNDS[self.background.value], light, cut, fine)

    def draw(self, height: int | None, check: Check) -> np.ndarray:
        """The picture as it is wanted now, uint8 [H, W, 3]."""
        scene, camera, fine = self.viewer.scene, self.client.camera, height is None
        height = int(self.size.value) if height is None else height
        view = View.of(
            camera.position,
            camera.look_at,
            camera.fov,
            fov=math.radians(self.fov.value),
            height=height,
            width=max(2, round(height * min(camera.aspect, 4.0))),
        )
        return to_bytes(scene.image(view, self._style(scene, fine), self._subject(scene), check))

    def show(self, picture: np.ndarray) -> None:
        """Send it to the browser."""
        coarse = picture.shape[0] < int(self.size.value)
        quality = _COARSE_QUALITY if coarse else _QUALITY
        self.client.scene.set_background_image(picture, "jpeg", jpeg_quality=quality)
        self._error = ""

    def fail(self, error: Exception) -> None:
        """Say it on the page and on the terminal, once."""
        words = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, UserError):
            words = f"{type(error).__name__}: {words}"
        if words != self._error:
            self._error = words
            print(f"sdfgan view: error: {words}", file=sys.stderr, flush=True)
            self.client.add_notification("This cannot be shown", words[:500], color="red", auto_close_seconds=20)


def silent() -> contextlib.redirect_stdout[io.StringIO]:
    """Within its block viser does not print lines of its own."""
    return contextlib.redirect_stdout(io.StringIO())


def labelled(images: Tensor, first: int) -> np.ndarray:
    """Images [N, 3, S, S] as a sheet, uint8 [H, W, 3], each with its number."""
    sheet = Image.fromarray(to_bytes(image_grid(images, _COLUMNS, fill=1.0)))
    draw, side = ImageDraw.Draw(sheet), images.shape[-1]
    for index in range(len(images)):
        row, column = divmod(index, _COLUMNS)
        draw.text((column * side + 3, row * side + 2), str(first + index), fill=(90, 90, 90))
    return np.asarray(sheet)
