"""report.html: what a run was asked for and what came of it, on one page that needs no other file and no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sdfgan.errors import UserError
from sdfgan.training.files import add_to_curves, json_objects, parse_json, write_text

REPORT = "report.html"
MEANINGS = {  # of logged numbers and of those of summary.json
    "loss": "what training minimises",
    "loss_d": "the discriminator's adversarial loss; logistic: at 1.386 (two ln 2) it cannot tell fakes from reals",
    "loss_g": "the generator's adversarial loss; logistic: at 0.693 (ln 2) its images pass for real as often as not",
    "logit_real": "mean verdict on real images; positive: taken for real",
    "logit_fake": "mean verdict on generated images",
    "gap": "mean verdict on real images minus that on generated ones; 0: they cannot be told apart",
    "accuracy": "share of images that the discriminator classifies rightly; 0.5 is chance",
    "sign_real": "mean sign of the verdict on real images; near 1 the discriminator may overfit (--ada-target)",
    "logit_spread": "standard deviation of the verdicts",
    "moments": "mean verdict of the sphere loss",
    "latent_d": "squared error of the discriminator's guess of the latent",
    "latent": "the same in the generator's update",
    "pose_d": "squared error of its guess of the viewing direction",
    "pose": "the same in the generator's update",
    "pose_spread": "share of the ranges that learned poses are spread over; 1: evenly, near 0: one view is left",
    "r1": "squared gradient of the verdict by real images, which R1 penalises",
    "gradient_penalty": "the penalty of wgan-gp",
    "exposure_spread": "how much the images' exposures differ: the deviation of the logarithms of their factors",
    "camera_rotation": "how far --refine-cameras turns the images' cameras, in degrees, on average",
    "camera_translation": "how far it moves them, in scene units (the cube's half side), on average",
    "eikonal": "mean (|gradient of the field| - 1)^2; 0 for a true distance, above 0.1 surfaces crumple",
    "back_face": "mean penalty on visible normals that face away from the camera",
    "minimal_surface": "mean of exp(-12 |sdf|) at random points, which grows with the area of all surfaces",
    "coverage": "share of pixels that generated silhouettes cover",
    "empty": "share of generated images that show nothing",
    "full": "share of generated images that are covered entirely",
    "variety": "spread of mean colours and coverage over generated images, relative to real ones; near 0: collapse",
    "gradient_norm_d": "length of the discriminator's gradient, before clipping",
    "gradient_norm_g": "length of the generator's gradient, before clipping",
    "gradient_norm": "length of the gradient, before clipping",
    "skipped": "share of steps that were skipped because their gradient was not finite",
    "samples_lost": "samples of images that found no room on the GPU; there is room for so many from the next step on",
    "learning_rate": "the generator's, or the network's",
    "loss_scale": "factor on losses in half precision",
    "ada_probability": "probability of each augmentation that the discriminator sees",
    "swd": "sliced-Wasserstein distance to held-out images; smaller is better, the floor is that between real images",
    "fid": "Frechet Inception distance; smaller is better",
    "kid": "kernel Inception distance; smaller is better",
    "precision": "share of generated images that lie among the real ones",
    "recall": "share of real images that lie among the generated ones",
    "mmd": "mean Chamfer distance from true shapes to the nearest generated one; smaller is better",
    "evaluation/coverage": "share of true shapes that are the nearest to a generated one; 1 is best",
    "connected": "share of generated shapes that are one piece",
    "one_body": "share of generated shapes that are one piece but for cavities and parts under 1 % of their volume",
    "shapeless": "share of generated shapes without a surface",
    "one_nna": "1-NN accuracy between generated and true shapes; 0.5 is best",
    "reversed": "share of generated shapes that are nearer to a true one after half a turn",
    "either_mmd": "mmd with these shapes reversed",
    "either_coverage": "coverage with these shapes reversed",
    "either_one_nna": "one_nna with these shapes reversed",
    "psnr": "peak signal-to-noise ratio, dB; higher is better",
    "ssim": "structural similarity; 1 is best",
    "lpips": "perceptual distance; smaller is better",
    "iou": "intersection over union of the learnt solid and the mesh's; 1 is best",
    "chamfer": "Chamfer distance between the surfaces, in the mesh's units",
    "chamfer_percent": "Chamfer distance between the surfaces, percent of the bounding box's diagonal",
    "normal_consistency": "mean absolute cosine between normals of nearest points; 1 is best",
    "f_score": "points within 0.5 % of the diagonal of the other surface, harmonic mean of both shares; 1 is best",
    "error_grid": "mean error of the distance on a grid, in units of the normalised model",
    "error_near": "mean error of the distance near the surface",
    "error_surface": "mean distance of surface points from the learnt surface",
}
_LARGEST_FILE = 3 * 2**20  # bytes of a video or mesh that goes into the page
_LONGEST_SIDE = 1200  # pixels of an image in the page
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # whose decoders run no other program
_SAMPLES = 6  # grids of the evolution
_SIDE_BY_SIDE = 560  # pixels of an image where runs are compared
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --ink: #26c; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
img, video { max-width: 100%; background: #fff; border-radius: 4px; }
pre { background: #8882; padding: .6rem; overflow-x: auto; white-space: pre-wrap; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
tr + tr td { border-top: 1px solid var(--line); } td.n { font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.wide { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; opacity: .8; }
svg { width: 100%; height: auto; } svg path { fill: none; stroke-width: 1.5; }
iframe { border: 0; width: 100%; height: 26rem; }
.warning { border-left: 4px solid #d80; padding-left: .6rem; }
"""
_COLOURS = ("#26c", "#d63", "#393", "#a3a", "#088", "#b80", "#c36", "#66c")


class Run:
    """A run's folder, as its files tell. Raises UserError where it holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.summary = _object(path / "config.json"), _object(path / "summary.json")
        if not self.config and not self.summary:
            raise UserError(f"{path}: not the folder of a run: it has neither config.json nor summary.json")
        metrics = path / "metrics.jsonl"
        self.lines = list(json_objects(metrics.read_bytes() if metrics.is_file() else b""))

    @property
    def name(self) -> str:
        """The folder's."""
        return self.path.resolve().name

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """The logged numbers over the steps, by name; evaluations first."""
        found: dict[str, list[tuple[float, float]]] = {}
        add_to_curves(found, self.lines)
        return dict(sorted(found.items(), key=lambda item: not item[0].startswith("evaluation/")))

    def warnings(self) -> list[str]:
        """What the run warned of, with the step."""
        said = ((line, line.get("message", line.get("words"))) for line in self.lines)  # `words` in earlier versions
        return [f"step {line.get('step')}: {message}" for line, message in said if isinstance(message, str)]

    def numbers(self) -> dict[str, Any]:
        """The numbers and texts of the summary, nested ones by a path such as scores/val/psnr."""
        return {name: value for name, value in _flat(self.summary, "") if not _is_path(value)}

    def samples(self) -> list[Path]:
        """Images of the run's progress, at most so many, evenly spread, the last among them."""
        files = sorted((self.path / "samples").glob("step-*.png"))
        count = min(_SAMPLES, len(files))
        return [files[round((i + 1) * len(files) / count) - 1] for i in range(count)]

    def results(self) -> list[Path]:
        """The images, the learned poses and the first video that the run ends with, those there are."""
        images = [self.path / name for name in ("grid.png", "views.png", "poses.svg")]
        videos = sorted(file for kind in ("mp4", "webp", "gif") for file in self.path.glob(f"*.{kind}"))
        return [file for file in (*images, *videos[:1]) if file.is_file()]

    def meshes(self) -> list[Path]:
        """Its meshes."""
        return sorted([*self.path.glob("*.glb"), *self.path.glob("meshes/*.glb")])


def write_report(run: Path) -> Path:
    """Write RUN/report.html from the files of the run's folder, and return where it is. Raises UserError."""
    return _write([Run(run)], run / REPORT)


def compare_runs(runs: Sequence[Path], file: Path) -> Path:
    """Write a page with several runs side by side, and return where it is. Raises UserError."""
    return _write([Run(run) for run in runs], file)


def _write(runs: Sequence[Run], file: Path) -> Path:
    (title, body) = _page_of(runs[0]) if len(runs) == 1 else _comparison(runs)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    page = f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'
    write_text(file, page)
    return file


# ------------------------------------------------------------------------------------------------------------ the pages


def _page_of(run: Run) -> tuple[str, str]:
    summary = run.summary
    state = "finished" if summary else "not finished"
    kind = str(summary.get("kind", "")).upper()
    title = f"{run.name}: {kind} run, {state}" if kind else f"{run.name}: a run, {state}"
    parts = [f"<h1>{escape(title)}</h1>"]
    if summary.get("command"):
        parts.append(f"<p>The command that repeats it:</p><pre>{escape(str(summary['command']))}</pre>")
    parts += [f'<p class="warning">{escape(message)}</p>' for message in run.warnings()]
    first, *others = [*(_figure(file, file.name) for file in run.results()), *map(_orbit, run.meshes()[:1]), ""]
    parts += _section("What came out", [first, f'<div class="wide">{"".join(others)}</div>'] if first else [])
    parts += _section("Numbers", [_table(run.numbers())])
    samples = "".join(_figure(file, _step_of(file)) for file in run.samples())
    parts += _section("Samples during training", [f'<div class="wide">{samples}</div>'] if samples else [])
    curves = "".join(_curve(name, [values], []) for name, values in run.curves().items() if len(values) > 1)
    parts += _section("Curves", [f'<div class="grid">{curves}</div>'] if curves else [])
    settings = "".join(_row(name, _formatted(value)) for name, value in sorted(run.config.items()))
    parts += _section("All settings", [f"<details><summary>config.json</summary><table>{settings}</table></details>"])
    return title, "".join(parts)


def _comparison(runs: Sequence[Run]) -> tuple[str, str]:
    names = [run.name if [other.name for other in runs].count(run.name) == 1 else str(run.path) for run in runs]
    title = f"{len(runs)} runs: {', '.join(names)}"
    key = " ".join(
        f'<b style="color:{_COLOURS[i % len(_COLOURS)]}">&#9632; {escape(name)}</b>' for i, name in enumerate(names)
    )
    parts = [f"<h1>{escape(title)}</h1><p>{key}</p>"]
    figures = [
        _figure(file, f"{name}: {file.name}", _SIDE_BY_SIDE)
        for name, run in zip(names, runs, strict=True)
        for file in run.results()[:1] or run.samples()[-1:]
    ]
    parts += _section("What came out", [f'<div class="wide">{"".join(figures)}</div>'] if figures else [])
    head = _row("", *map(escape, names), cell="th")
    configs = [run.config for run in runs]
    differing = [
        name
        for name in sorted({name for config in configs for name in config})
        if name != "output_dir" and len({json.dumps(config.get(name), sort_keys=True) for config in configs}) > 1
    ]
    rows = "".join(_row(name, *(_formatted(config.get(name)) for config in configs)) for name in differing)
    parts += _section("Settings that differ", [f"<table>{head}{rows}</table>" if rows else "<p>None.</p>"])
    numbers = [run.numbers() for run in runs]
    common = [name for name in numbers[0] if any(name in other for other in numbers[1:])]
    rows = "".join(_row(name, *(_formatted(found.get(name)) for found in numbers), _meaning(name)) for name in common)
    parts += _section("Numbers", [f"<table>{head}{rows}</table>"])
    curves = [run.curves() for run in runs]
    shared = [name for name in curves[0] if sum(len(found.get(name, ())) > 1 for found in curves) > 1]
    drawn = "".join(_curve(name, [found.get(name, []) for found in curves], names) for name in shared)
    parts += _section("Curves", [f'<div class="grid">{drawn}</div>'] if drawn else [])
    for name, run in zip(names, runs, strict=True):
        parts += [f'<p class="warning">{escape(f"{name}, {message}")}</p>' for message in run.warnings()]
    return title, "".join(parts)


def _section(title: str, content: list[str]) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", *content] if content else []


def _table(numbers: dict[str, Any]) -> str:
    return f"<table>{''.join(_row(name, _formatted(value), _meaning(name)) for name, value in numbers.items())}</table>"


def _row(name: str, *cells: str, cell: str = "td") -> str:
    return f"<tr><th>{escape(name)}</th>{''.join(f'<{cell} class=n>{text}</{cell}>' for text in cells)}</tr>"


def _formatted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(value if isinstance(value, str) else json.dumps(value)) if value is not None else "&ndash;"


def _meaning(name: str) -> str:
    return escape(MEANINGS.get(name) or MEANINGS.get(name.rpartition("/")[2], ""))


def _step_of(file: Path) -> str:
    number = file.stem.rpartition("-")[2]
    return f"step {int(number)}" if number.isdecimal() else file.stem


# ------------------------------------------------------------------------------------------------------- what they show


def _figure(file: Path, caption: str, side: int = _LONGEST_SIDE) -> str:
    try:
        if file.suffix in (".mp4", ".gif", ".webp", ".svg"):
            data = file.read_bytes()
            if len(data) > _LARGEST_FILE:
                return _too_large(caption, len(data))
            kind = {".mp4": "video/mp4", ".svg": "image/svg+xml"}.get(file.suffix, f"image/{file.suffix[1:]}")
            source = f'src="data:{kind};base64,{base64.b64encode(data).decode()}"'
            is_film = file.suffix == ".mp4"
            shown = f"<video {source} controls autoplay loop muted></video>" if is_film else f"<img {source}>"
        else:
            source = f"data:image/webp;base64,{base64.b64encode(_small_image(file, side)).decode()}"
            shown = f'<img src="{source}" alt="{escape(caption)}">'
    except Exception:  # decoders raise almost anything on damaged data
        return _unreadable(caption)
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def _too_large(name: str, size: int) -> str:
    return f"<figure><figcaption>{escape(name)}: {size / 2**20:.0f} MiB, in the run's folder</figcaption></figure>"


def _unreadable(name: str) -> str:
    return f'<figure><figcaption class="warning">{escape(name)}: cannot be read</figcaption></figure>'


def _small_image(file: Path, side: int) -> bytes:
    """The image as WebP, no side longer than so many pixels."""
    from PIL import Image

    with Image.open(file, formats=_IMAGE_FORMATS) as image:
        image.thumbnail((side, side))
        packed = io.BytesIO()
        image.save(packed, "webp", quality=85)
    return packed.getvalue()


def _orbit(mesh: Path) -> str:
    """The mesh in a frame where the mouse turns it: trimesh's page around three.js, which holds both."""
    import trimesh
    from trimesh.viewer.notebook import scene_to_html

    place = f"{mesh.parent.name}/{mesh.name}" if mesh.parent.name == "meshes" else mesh.name
    try:
        if (size := mesh.stat().st_size) > _LARGEST_FILE:
            return _too_large(place, size)
        scene = trimesh.load_scene(mesh)
    except Exception:  # as those of images
        return _unreadable(place)
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{escape(scene_to_html(scene))}"></iframe>'
    return f"<figure>{frame}<figcaption>{escape(place)}: drag to turn it</figcaption></figure>"


def _curve(name: str, series: Sequence[list[tuple[float, float]]], names: Sequence[str]) -> str:
    """A small plot of a number over steps, one line for each run."""
    width, height = 320.0, 130.0
    xs, ys = [x for line in series for x, _ in line], [y for line in series for _, y in line]
    low, high, last = min(ys), max(ys), max(max(xs), 1.0)
    span = (high - low) or 1.0
    paths = ""
    for index, line in enumerate(series):
        at = (f"{x / last * width:.1f} {height - (y - low) / span * height:.1f}" for x, y in line)
        if line:
            paths += f'<path stroke="{_COLOURS[index % len(_COLOURS)]}" d="M{" L".join(at)}"/>'
    ends = ", ".join(f"{line[-1][1]:.4g}" for line in series if line)
    caption = f"{low:.4g} to {high:.4g}; at the end {ends}"
    return (
        f'<figure><svg viewBox="-2 -2 {width + 4} {height + 4}" role="img" aria-label="{escape(name)}">{paths}</svg>'
        f"<figcaption><b>{escape(name)}</b> {caption}<br>{_meaning(name)}</figcaption></figure>"
    )


# ------------------------------------------------------------------------------------------------------- what they read


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; {} where the file is missing. Raises UserError for another file."""
    try:
        found = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: expected a JSON object, as runs write it: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object, as runs write it")
    return found


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "/" in value and " " not in value


def _flat(values: dict[str, Any], before: str) -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}/")
        elif not isinstance(value, list) and value is not None and name != "command":
            yield before + name, value
