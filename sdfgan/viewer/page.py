"""The page in the browser: a viser server whose clients each have a camera, controls and images of their own."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import viser
from PIL import Image, ImageDraw
from torch import Tensor
from viser import uplot

from sdfgan.errors import UserError, one_line
from sdfgan.gan.models import Weights
from sdfgan.images import image_grid, to_bytes
from sdfgan.raycast import Lighting
from sdfgan.viewer.generator import SLIDERS, Choice, GeneratorScene
from sdfgan.viewer.origin import own_pages_only
from sdfgan.viewer.runs import Progress, find_result, open_scene
from sdfgan.viewer.scenes import Check, Scene
from sdfgan.viewer.scheduler import Scheduler
from sdfgan.viewer.view import Style, View

_HEIGHTS = ("256", "512", "768", "1024")
_BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5)}
_LIGHTS = {"camera": None, "left": (-1.0, 0.6, 0.6), "right": (1.0, 0.6, 0.6), "above": (0.0, 1.0, 0.2)}
_PLANES = {"none": None, "x": 0, "y": 1, "z": 2}
_WALL, _COLUMNS, _TILE = 24, 4, 96  # shapes to choose from, and the pixels of each
_WIDEST = 4.0  # images, in their heights
_QUALITY = (70, 92)  # of the JPEGs of coarse and full images
_EMPTY = np.full((8, 8, 3), 255, np.uint8)
_BUSY = 1.25  # load per core: our own threads make 1
_WATCH = 2.0  # seconds between looks at a run


class Viewer:
    """Serves the page of a path until it is closed. Raises UserError where there is nothing to view.

    `resolution` is the height of full images, `cells` the side of the grid of meshes to download.
    """

    def __init__(
        self, path: Path, run: Path, device: torch.device, weights: Weights, *, host: str, port: int, resolution: int,
        cells: int,
    ) -> None:  # fmt: skip
        self.path, self.device, self.weights, self.resolution, self.cells = path, device, weights, resolution, cells
        self.threads = torch.get_num_threads()
        self.progress, self._result = Progress(run), find_result(path)
        self.scene = open_scene(self._result, device, weights)
        self.scheduler, self._pages, self._closed = Scheduler(), dict[int, Page](), threading.Event()
        with _silent(), own_pages_only(host):
            self.server = viser.ViserServer(host, port, label="sdfgan view", verbose=False)
        self.server.scene.set_up_direction("+y")
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        camera = self.server.initial_camera
        camera.position = tuple((View(*self.scene.start).axes[0, 2] / math.tan(camera.fov / 2)).tolist())
        camera.look_at = (0.0, 0.0, 0.0)
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def close(self) -> None:
        """End it; pages say that they have lost their server."""
        self._closed.set()
        self.scheduler.close()
        with _silent():
            self.server.stop()

    def _connect(self, client: viser.ClientHandle) -> None:
        self._pages[client.client_id] = Page(self, client)
        if client.client_id not in self.server.get_clients():  # it has left meanwhile
            self._disconnect(client)

    def _disconnect(self, client: viser.ClientHandle) -> None:
        if (page := self._pages.pop(client.client_id, None)) is not None:
            page.has_left = True
            self.scheduler.drop(page)

    def _watch(self) -> None:
        said = ""
        while not self._closed.wait(_WATCH):
            pages = list(self._pages.values())
            try:
                if (result := find_result(self.path)) != self._result:
                    if result.kind != self._result.kind:
                        raise UserError(f"{self.path}: holds another kind of result now; start sdfgan view again")
                    self.scene, self._result = open_scene(result, self.device, self.weights), result
                    for page in pages:
                        page.renew()
                for page in pages:
                    page.follow()
                said = ""
            except Exception as error:
                if str(error) != said:
                    said = str(error)
                    say(error, pages)


class Page:
    """What one client sees; see `scheduler.Client`."""

    def __init__(self, viewer: Viewer, client: viser.ClientHandle) -> None:
        self.viewer, self.client, self.gui = viewer, client, client.gui
        self.has_left = False
        self._error, self._sample = "", Path()  # what was said and shown last
        self._kept: tuple[Any, Any, Any] = (None, None, None)  # scene, choice and its condition
        scene = viewer.scene
        self.title = self.gui.add_markdown(f"**{scene.title}**")
        self.moves: list[Any] = []
        self.plot: Any = None
        self._tabs = tabs = self.gui.add_tab_group()
        if isinstance(scene, GeneratorScene):
            with tabs.add_tab("Shape"):
                self._add_shape(scene)
            with tabs.add_tab(f"{_WALL} shapes"):
                self._add_wall()
        with tabs.add_tab("View"):
            self._add_view(scene)
        self.follow()
        client.camera.on_update(self.ask)
        self.ask()

    def ask(self, _: Any = None) -> None:
        """Something has changed."""
        if not self.has_left:
            self.viewer.scheduler.ask(self)

    def renew(self) -> None:
        """There is another scene."""
        self.ask()
        if isinstance(self.viewer.scene, GeneratorScene):
            self._begin_wall()

    # ----------------------------------------------------------------------------------------------------- controls

    def _slider(self, label: str, low: float, high: float, step: float, value: float, hint: str | None = None) -> Any:
        slider = self.gui.add_slider(label, min=low, max=high, step=step, initial_value=value, hint=hint)
        slider.on_update(self.ask)
        return slider

    def _choice(self, label: str, options: Any, value: str | None = None, hint: str | None = None) -> Any:
        dropdown = self.gui.add_dropdown(label, tuple(options), initial_value=value, hint=hint)
        dropdown.on_update(self.ask)
        return dropdown

    def _seed(self, label: str, value: int, on_update: Callable[[Any], None], step: int = 1) -> Any:
        seed = self.gui.add_number(label, value, min=0, max=2**31 - 1, step=step)
        seed.on_update(on_update)
        return seed

    def _button(self, label: str, task: Callable[[], None]) -> None:
        self.gui.add_button(label).on_click(lambda _: self._do(task))

    def _do(self, task: Callable[[], None]) -> None:
        if not self.has_left:
            self.viewer.scheduler.do(self, task)

    def _add_view(self, scene: Scene) -> None:
        self.kind = self._choice("Show", ("colour", "normals", "depth"))
        self.background = self._choice("Background", _BACKGROUNDS)
        self.fov = self._slider("Perspective", 5, 90, 1, round(math.degrees(scene.fov)), "field of view, degrees")
        self.height = self._choice("Height", _HEIGHTS, str(self.viewer.resolution), "pixels, when nothing moves")
        if scene.lit:
            with self.gui.add_folder("Light"):
                self.light = self._choice("From", _LIGHTS)
                self.ambient = self._slider("Ambient", 0, 1, 0.05, 0)
        if scene.sliced:
            with self.gui.add_folder("Slice of the distance field"):
                self.plane = self._choice("Across", _PLANES)
                self.plane_at = self._slider("At", -1, 1, 0.01, 0)
        self._button("Save image (PNG)", self._save_image)
        self._button("Save mesh (GLB)", self._save_mesh)
        self._button("Camera to its start", self._reset)

    def _add_shape(self, scene: GeneratorScene) -> None:
        self.seed = self._seed("Seed", 0, self.ask)
        self.texture_seed = self._seed("Texture seed", 0, self.ask) if len(scene.groups) > 1 else self.seed
        self.psi = self._slider("Truncation", 0, 1.5, 0.05, 1, "0: the mean shape")
        with self.gui.add_folder("Towards another"):
            self.other = self._seed("Other seed", 1, self.ask)
            self.share = self._slider("Way", 0, 1, 0.01, 0)
        for group in scene.groups:
            with self.gui.add_folder(f"Principal directions of the {group}"):
                self.moves += [self._slider(f"{group} {i + 1}", -3, 3, 0.05, 0) for i in range(SLIDERS)]
        self._button("Sliders to 0", self._zero)

    def _add_wall(self) -> None:
        self.first = self._seed("From seed", 0, self._begin_wall, step=_WALL)
        self.chosen = self._seed("Take seed", 0, lambda _: None)
        self._button("Take it", self._take)
        self.wall = self.gui.add_image(_EMPTY)
        self._begin_wall()

    def _add_run(self) -> None:
        names = tuple(self.viewer.progress.curves()) or ("none yet",)
        first = next((name for name in names if "loss" in name), names[0])
        self.number = self.gui.add_dropdown("Curve", names, initial_value=first)
        self.number.on_update(lambda _: self.follow())
        series = uplot.Series(label="step"), uplot.Series(label="value", stroke="#2563eb", width=1.5)
        scales = {"x": uplot.Scale(time=False)}
        self.plot = self.gui.add_uplot((np.zeros(2), np.zeros(2)), series, scales=scales, aspect=1.6)
        self.sample = self.gui.add_image(_EMPTY, label="Newest samples")

    # ---------------------------------------------------------------------------- actions, in the scheduler's thread

    def _zero(self) -> None:
        for slider in (*self.moves, self.share):
            slider.value = 0.0
        self.ask()

    def _take(self) -> None:
        self.seed.value = self.texture_seed.value = self.chosen.value
        self._zero()

    def _reset(self) -> None:
        start = self.viewer.server.initial_camera
        self.client.camera.position, self.client.camera.look_at = start.position, start.look_at

    def _begin_wall(self, _: Any = None) -> None:
        first = int(self.first.value)
        self._wall = np.full((_WALL // _COLUMNS * _TILE, _COLUMNS * _TILE, 3), 255, np.uint8)
        self._do(lambda: self._draw_wall(first, 0))

    def _draw_wall(self, first: int, row: int) -> None:
        """A row of it, and then the next, so that images come between."""
        scene = self.viewer.scene
        if row < _WALL // _COLUMNS and first == self.first.value and isinstance(scene, GeneratorScene):
            seeds = range(first + row * _COLUMNS, first + (row + 1) * _COLUMNS)
            self._wall[row * _TILE :][:_TILE] = numbered(scene.wall(seeds, _TILE, float(self.psi.value)), seeds)
            self.wall.image = self._wall
            self._do(lambda: self._draw_wall(first, row + 1))

    def _save_image(self) -> None:
        file = io.BytesIO()
        Image.fromarray(self.draw(None, lambda: None)[0]).save(file, "PNG")
        self._send("png", file.getvalue())

    def _save_mesh(self) -> None:
        scene = self.viewer.scene
        note = self.client.add_notification("Mesh", "is being made", loading=True)
        try:
            self._send("glb", scene.glb(self._condition(scene), self.viewer.cells))
        finally:
            note.remove()

    def _send(self, suffix: str, content: bytes) -> None:
        words = [*self.viewer.scene.title.split(), *([str(self.seed.value)] if self.moves else [])]
        stem = "-".join("".join(c for c in word if c.isalnum() or c in "-_.") for word in words)
        self.client.send_file_download(f"{stem.removesuffix('.glb')}.{suffix}", content, save_immediately=True)

    def follow(self) -> None:
        """Show what the run has newly written."""
        self.title.content = f"**{self.viewer.scene.title}**"
        if self.plot is None:
            if not self.viewer.progress.exists:
                return
            with self._tabs.add_tab("Run"):
                self._add_run()
        curves, name = self.viewer.progress.curves(), self.number.value
        if curves and tuple(curves) != tuple(self.number.options):
            self.number.options = tuple(curves)
            self.number.value = name = name if name in curves else next(iter(curves))
        if name in curves and (self.plot.title != name or len(curves[name][0]) != len(self.plot.data[0])):
            self.plot.data, self.plot.title = tuple(curves[name]), name
        if (sample := self.viewer.progress.newest_sample()) not in (None, self._sample):
            with Image.open(sample, formats=("PNG",)) as image:
                self.sample.image = np.asarray(image.convert("RGB"))
            self._sample = sample

    # ------------------------------------------------------------------------------------------------------- images

    def _condition(self, scene: Scene) -> Any:
        """Of what is chosen; the last one is kept."""
        choice = None
        if isinstance(scene, GeneratorScene):
            seed, texture, other = (int(seed.value) for seed in (self.seed, self.texture_seed, self.other))
            moves = tuple(float(slider.value) for slider in self.moves)
            choice = Choice(seed, texture, other, float(self.share.value), float(self.psi.value), moves)
        if self._kept[:2] != (scene, choice):
            self._kept = scene, choice, scene.condition(choice)
        return self._kept[2]

    def _style(self, scene: Scene, fine: bool) -> Style:
        light, cut = Lighting(), None
        if scene.lit:
            ambient, direction = float(self.ambient.value), _LIGHTS[self.light.value]
            rest = 1 - ambient
            light = Lighting(ambient, rest) if direction is None else Lighting(ambient, 0, rest, direction)
        if scene.sliced and (axis := _PLANES[self.plane.value]) is not None:
            cut = (axis, float(self.plane_at.value))
        return Style(self.kind.value, _BACKGROUNDS[self.background.value], light, cut, fine)

    def draw(self, height: int | None, check: Check) -> tuple[np.ndarray, int]:
        """The image as it is wanted now, uint8 [H, W, 3], and the quality of its JPEG."""
        torch.set_num_threads(self.viewer.threads if machine_is_free() else 1)  # of this thread alone
        scene, camera, style = self.viewer.scene, self.client.camera, self._style(self.viewer.scene, height is None)
        size = height or int(self.height.value)
        width = max(2, round(size * min(camera.aspect, _WIDEST)))
        fov = math.radians(self.fov.value)
        view = View.of(camera.position, camera.look_at, camera.fov, fov=fov, height=size, width=width)
        return to_bytes(scene.image(view, style, self._condition(scene), check)), _QUALITY[style.fine]

    def show(self, image: tuple[np.ndarray, int]) -> None:
        """Send it to the browser."""
        self.client.scene.set_background_image(image[0], "jpeg", jpeg_quality=image[1])
        self._error = ""

    def fail(self, error: Exception) -> None:
        """Say on the page and on the terminal, once, what went wrong."""
        if str(error) != self._error:
            self._error = str(error)
            say(error, [self])


def say(error: Exception, pages: Sequence[Page]) -> None:
    """What went wrong, on the terminal and on pages."""
    message = one_line(error) if isinstance(error, UserError) else f"{type(error).__name__}: {one_line(error)}"
    print(f"sdfgan view: error: {message}", file=sys.stderr, flush=True)
    for page in pages:
        page.client.add_notification("Something went wrong", message[:500], color="red", auto_close_seconds=20)


def machine_is_free() -> bool:
    """Whether an image may use all cores. Beside a training its threads would spin while they wait for one another."""
    return not hasattr(os, "getloadavg") or os.getloadavg()[0] < _BUSY * (os.cpu_count() or 1)


def numbered(images: Tensor, seeds: range) -> np.ndarray:
    """Images [N, 3, S, S] side by side, uint8 [S, N S, 3], with their seeds."""
    sheet = Image.fromarray(to_bytes(image_grid(images, len(images))))
    draw = ImageDraw.Draw(sheet)
    for index, seed in enumerate(seeds):
        draw.text((index * images.shape[-1] + 3, 2), str(seed), fill=(90, 90, 90))
    return np.asarray(sheet)


def _silent() -> contextlib.redirect_stdout[io.StringIO]:
    """Within its block viser does not print lines of its own."""
    return contextlib.redirect_stdout(io.StringIO())
