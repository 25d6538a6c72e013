"""Curricula: settings of a run, and what changes at which step, as data.

The JSON files beside this one are recipes of this project, and those of dfr and pi-GAN.

{"about": "...", "settings": {setting: value, ...}, "stages": [{"step": 0, setting: value, ...}, ...]}

Settings are the fields of `GanConfig`; `STAGE_SETTINGS` are those that may change in the middle of a run.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sdfgan.errors import UserError
from sdfgan.training.config import Config, current_name, is_of_type, type_name
from sdfgan.training.files import read_json

STAGE_SETTINGS = {
    "resolution": int,
    "batch_size": int,
    "chunk_size": int,
    "march_steps": int,
    "eikonal_points": int,
    "discriminator_steps": int,
    "learning_rate_generator": float,
    "learning_rate_discriminator": float,
    "r1_gamma": float,
    "gradient_penalty": float,
    "gradient_clip": float,
    "eikonal_weight": float,
    "back_face_weight": float,
    "minimal_surface_weight": float,
    "latent_weight": float,
    "pose_weight": float,
}
_OTHER_NAMES = {"spatialsirenbaseline": "celeba"}  # the default of pi-GAN's command line
_NOT_IN_A_CURRICULUM = {"curriculum", "stages", "output_dir", "resume", "load_dir", "dry_run", "device", "data"}


@dataclass(frozen=True)
class Stage:
    """From `step` on, `changes` are in force."""

    step: int
    changes: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {"step": self.step, **self.changes}

    @classmethod
    def from_json(cls, values: Any, config_type: type[Config]) -> Stage:
        """Undo `to_json`, for stages of a configuration of some type. Raises ValueError for what is none."""
        if not isinstance(values, dict) or type(values.get("step")) is not int or values["step"] < 0:
            raise ValueError(f'a stage must be {{"step": number, ...}}, got {json.dumps(values)}')
        changes = {current_name(config_type, name): value for name, value in values.items() if name != "step"}
        for name, value in changes.items():
            if name not in STAGE_SETTINGS:
                raise ValueError(f"a stage cannot change {name!r}: must be one of {', '.join(STAGE_SETTINGS)}")
            if not is_of_type(value, STAGE_SETTINGS[name]):
                raise ValueError(f"{name} must be {type_name(STAGE_SETTINGS[name])}, got {json.dumps(value)}")
        return cls(values["step"], changes)


@dataclass(frozen=True)
class Curriculum:
    """What a file says."""

    about: str
    settings: dict[str, Any]
    stages: tuple[Stage, ...]


def curricula() -> dict[str, Path]:
    """The curricula that the package brings, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.json"))}


def load_curriculum(name_or_path: str, config: Config) -> Curriculum:
    """The curriculum of a name (in any case) or a file, for a configuration like `config`. Raises UserError."""
    name, ours = name_or_path.lower(), curricula()
    path = ours.get(_OTHER_NAMES.get(name, name), Path(name_or_path))
    if path.suffix != ".json":
        raise UserError(f"--curriculum must be one of {', '.join(ours)} or a .json file, got {name_or_path!r}")
    values = read_json(path)
    try:
        if not isinstance(values, dict) or not values.keys() <= {"about", "settings", "stages"}:
            raise ValueError('expected {"about": ..., "settings": {...}, "stages": [...]}')
        settings = _settings(values.get("settings", {}), type(config))
        stages = values.get("stages", [])
        if not isinstance(stages, list):
            raise ValueError("stages must be a list")
        # A run keeps its stages, and with at least one it does not look for its curriculum again.
        found = tuple(Stage.from_json(stage, type(config)) for stage in stages) or (Stage(0, {}),)
        check_stages(found)
        return Curriculum(str(values.get("about", "")), settings, found)
    except (ValueError, UserError) as error:
        raise UserError(f"{path}: {error}") from error


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Raises UserError unless the steps of the stages rise from 0."""
    steps = [stage.step for stage in stages]
    if steps and (steps[0] != 0 or any(b <= a for a, b in pairwise(steps))):
        raise UserError(f"stages must begin at step 0 and have rising steps, got {steps}")


def _settings(values: Any, config_type: type[Config]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("settings must be an object")
    hints = typing.get_type_hints(config_type)
    allowed = {field.name for field in dataclasses.fields(config_type)} - _NOT_IN_A_CURRICULUM
    settings = {}
    for given, value in values.items():
        name = current_name(config_type, given)
        if name not in allowed:
            raise ValueError(f"unknown setting {given!r}")
        value = tuple(value) if isinstance(value, list) else value
        if not is_of_type(value, hints[name]):
            raise ValueError(f"{name} must be {type_name(hints[name])}, got {json.dumps(value)}")
        settings[name] = value
    return settings
