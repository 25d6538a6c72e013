"""The page in a browser: opened, turned, changed, downloaded from; by two, of whom one leaves; while a run goes on."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from results import gan_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = [name for name in ("viser", "selenium") if importlib.util.find_spec(name) is None]
MISSING += [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if path is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: see CONTRIBUTING.md"),
]
PATIENCE = 60.0  # seconds: the browser draws in software, and tests share the cores
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage", "--window-size=1000,700",
)  # fmt: skip


def eventually(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` gives as soon as that is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {PATIENCE:g} s")


class Browser:
    """One headless Chromium."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException

        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(self.downloads)})
        try:
            self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
        except WebDriverException as error:
            pytest.skip(f"{CHROMIUM} does not start here: {str(error).splitlines()[0]}")

    def find(self, path: str) -> Any:
        found = eventually(lambda: [e for e in self.driver.find_elements("xpath", path) if e.is_displayed()], path)
        return found[0]

    def tab(self, name: str) -> None:
        self.find(f"//*[@role='tab'][normalize-space()='{name}']").click()

    def button(self, name: str) -> None:
        self.find(f"//button[normalize-space()='{name}']").click()

    def enter(self, label: str, value: str) -> None:
        """Type into a number's field, or that of a slider."""
        from selenium.webdriver.common.keys import Keys

        row = f"//label[normalize-space()='{label}']/following::input[not(@type='hidden')][1]"
        self.find(row).send_keys(Keys.CONTROL + "a" + Keys.NULL, value, Keys.TAB)

    def slide(self, label: str, x: int) -> None:
        """Move the thumb of a slider by pixels."""
        from selenium.webdriver.common.action_chains import ActionChains

        thumb = self.find(f"//label[normalize-space()='{label}']/following::*[@role='slider'][1]")
        ActionChains(self.driver).drag_and_drop_by_offset(thumb, x, 0).perform()

    def choose(self, label: str, option: str) -> None:
        self.find(f"//label[normalize-space()='{label}']/following::input[1]").click()
        self.find(f"//*[@role='option'][normalize-space()='{option}']").click()

    def drag(self, x: int, y: int) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.find("//canvas")
        chain = ActionChains(self.driver).move_to_element_with_offset(canvas, -200, 0).click_and_hold()
        chain.move_by_offset(x, y).release().perform()

    def picture(self) -> np.ndarray:
        """What is left of the panel, below notifications: [H, W, 3]."""
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as image:
            return np.asarray(image.convert("RGB"), np.float32)[200:, :620]

    def still(self, unlike: np.ndarray | None = None) -> np.ndarray:
        """The picture, once it does not change any more, and is another one than `unlike`."""
        last: list[np.ndarray] = [self.picture()]

        def is_still() -> bool:
            time.sleep(0.8)
            last.append(self.picture())
            new = unlike is None or np.abs(last[-1] - unlike).mean() > 0.5
            return new and last[-1].std() > 3 and np.abs(last[-1] - last[-2]).max() < 8

        eventually(is_still, "another picture that stays")
        return last[-1]

    def downloaded(self, suffix: str) -> Path:
        return eventually(lambda: next(iter(self.downloads.glob(f"*{suffix}")), None), f"a {suffix} file")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = gan_run(tmp_path / "chairs")
    lines = [json.dumps({"step": step, "loss_g": 1 / step}) for step in range(1, 6)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


class Served:
    """`sdfgan view` in a process of its own."""

    def __init__(self, path: Path, errors: Path) -> None:
        command = [sys.executable, "-m", "sdfgan", "view", str(path), "--port", "0", "--mesh-resolution", "32"]
        self.errors = errors
        with errors.open("w") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.line)
        assert found, (self.line, errors.read_text())
        self.url = found[0]

    def end(self) -> tuple[int, str, str]:
        """Status, what else was printed, and the errors."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, rest, self.errors.read_text()


@pytest.fixture
def served(run: Path, tmp_path: Path) -> Iterator[Served]:
    made = Served(run, tmp_path / "errors")
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def open_browser(tmp_path: Path) -> Iterator[Callable[[str], Browser]]:
    opened: list[Browser] = []

    def open_one(url: str) -> Browser:
        opened.append(Browser(tmp_path / f"browser-{len(opened)}"))
        opened[-1].driver.get(url)
        return opened[-1]

    yield open_one
    for browser in opened:
        browser.driver.quit()


def test_one_looks(served: Served, open_browser: Callable[[str], Browser]) -> None:
    assert served.line == f"chairs, step 5: {served.url} (Ctrl-C ends)\n"
    browser = open_browser(served.url)
    first = browser.still()
    assert (first[-20:, :20] == 255).all()
    browser.enter("Seed", "3")
    seeded = browser.still(unlike=first)
    browser.slide("shape 1", 50)
    other = browser.still(unlike=seeded)
    browser.tab("View")
    browser.choose("Across", "z")
    sliced = browser.still(unlike=other)
    browser.drag(150, 60)
    turned = browser.still(unlike=sliced)
    browser.choose("Across", "none")
    browser.choose("Background", "black")
    black = browser.still(unlike=turned)
    assert black[-20:, :20].max() < 8

    browser.button("Save mesh (GLB)")
    assert len(trimesh.load(browser.downloaded(".glb"), force="mesh").faces) > 100
    browser.button("Save image (PNG)")
    with Image.open(browser.downloaded(".png")) as image:
        assert image.height == 512 and image.width > 512 and image.getpixel((0, 0)) == (0, 0, 0)

    browser.tab("24 shapes")
    browser.enter("Take seed", "7")
    browser.button("Take it")
    browser.still(unlike=black)
    browser.tab("Shape")
    assert browser.find("//label[normalize-space()='Seed']/following::input[1]").get_attribute("value") == "7"
    status, rest, errors = served.end()
    assert (status, rest, errors) == (130, "stopped\n", "")


def test_two_look_at_a_run_that_goes_on(run: Path, served: Served, open_browser: Callable[[str], Browser]) -> None:
    numbers = (run / "metrics.jsonl").rename(run / "later")  # the page is open before there are any
    one, two = open_browser(served.url), open_browser(served.url)
    first = one.still()
    two.still()
    two.enter("Seed", "3")
    two.still(unlike=first)
    assert np.abs(one.still() - first).mean() < 4, "what one does the other does not see"  # it may be finer by now
    one.driver.quit()

    gan_run(run, step=10)
    two.find("//*[normalize-space()='chairs, step 10']")
    numbers.rename(run / "metrics.jsonl")
    two.tab("Run")
    two.find("//label[normalize-space()='Curve']")
    two.tab("Shape")
    damaged = gan_run(run, step=11) / "checkpoints" / "step-0000011" / "tensors.safetensors"
    damaged.write_bytes(b"")
    two.find("//*[contains(text(), 'damaged, its checksum')]")
    before = two.still()
    two.enter("Seed", "8")
    two.still(unlike=before)
    status, rest, errors = served.end()
    assert (status, rest) == (130, "stopped\n")
    (said,) = errors.splitlines()
    assert said.startswith("sdfgan view: error: ") and "step-0000011" in said


def test_nothing_else_is_served(run: Path, served: Served) -> None:
    with urllib.request.urlopen(served.url) as page:
        assert b"<html" in page.read()
    state = "checkpoints/step-0000005/state.json"
    for path in (state, f"..{run}/{state}", f"%2e%2e/%2e%2e/{'%2e%2e/' * 20}etc/passwd", f"/{run}/{state}"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{served.url}/{path}")
