"""Random damage to sound files, decided by the dice alone."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

VALUES = [
    "null", "true", "false", "0", "-1", "1e308", "1" + "0" * 400, "NaN", "-Infinity", '""', '"x"', '"\\u0000"', '".."',
    '"/"', f'"{"a" * 5000}"', '"\\ud800"', "[]", "[null]", "{}", '{"a": 1}', "[[1]]", str([1] * 25), str([0.0] * 25),
    '"images/r_1.png"', '"OPENCV_FISHEYE"', "[" * 2000 + "]" * 2000,
]  # fmt: skip
NAMES = ["k3", "k4", "k6", "cx", "camera_angle_y", "ftheta_p9", "latlong", "mask_path", "is_fisheye", "val_filenames"]
WORDS = [b"nan", b"inf", b"", b"\n", b"x", b"-1", b"1e999", b"9" * 500, b"\xff\xfe", b"#", b"1 2 3\n", b"\r", b"\0" * 8]


def changed_json(values: Any, dice: random.Random) -> bytes:
    """One value or name somewhere in it is another, or is missing."""
    values = json.loads(json.dumps(values))
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(values)
    parent, key = dice.choice(places)
    mark = "the changed value"
    if dice.random() < 0.2:
        del parent[key]
    elif dice.random() < 0.2 and isinstance(parent, dict):
        parent[dice.choice(NAMES)] = mark
    else:
        parent[key] = mark
    text = json.dumps(values).replace(f'"{mark}"', dice.choice(VALUES)).encode()
    return text if dice.random() < 0.9 else changed_bytes(text, dice)


def changed_bytes(data: bytes, dice: random.Random) -> bytes:
    """A few bytes are others, or it ends early."""
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data) + 1)
        kind = dice.random()
        if kind < 0.4:
            data = data[:at] + dice.choice(WORDS) + data[at + dice.randint(0, 9) :]
        elif kind < 0.9:
            data = data[:at] + bytes([dice.choice((dice.randrange(256), *b"0123456789.- "))]) + data[at + 1 :]
        else:
            data = data[:at]
    return data


def changed_tensors(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file with another head (names, types, shapes, places, metadata), or with other bytes anywhere."""
    (size,) = struct.unpack_from("<Q", data)
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = dice.random()
    if kind < 0.2:
        return changed_bytes(data, dice)
    if kind < 0.4 and body:  # numbers that are none
        at = dice.randrange(len(body)) // 4 * 4
        body = body[:at] + struct.pack("<f", dice.choice((float("nan"), float("inf"), 1e38, -1e-45))) + body[at + 4 :]
    elif kind < 0.6:  # another, in itself sound, type or shape
        entry = head[dice.choice([name for name in head if name != "__metadata__"])]
        if dice.random() < 0.5:
            entry["shape"] = entry["shape"][::-1] if len(entry["shape"]) > 1 else [1, *entry["shape"]]
        else:
            entry["dtype"] = {"F32": "I32", "I32": "F32", "U8": "I8", "I64": "F64"}.get(entry["dtype"], "BOOL")
    elif kind < 0.7 and "__metadata__" in head:
        held = head["__metadata__"]
        key = dice.choice(list(held))
        held[key] = changed_json(json.loads(held[key]), dice).decode("utf-8", "replace")
    else:
        text = changed_json(head, dice)
        return struct.pack("<Q", len(text)) + text + body
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + body
