"""Which parts of a mesh are inside out, by what lies in what."""

from __future__ import annotations

import numpy as np
import torch

from sdfgan import ops

_ENCLOSES = 0.6  # difference of the winding numbers below and above the faces: 1 of a solid, 0 of a flat sheet
_BELOW = 1e-4  # of a part's diagonal
_OPENING = 0.4  # of a part's area: what encloses something has less; a tetrahedron without a face has 1/3
_PROBES = 48  # points by which it is found out whether a part encloses something
_POINTS = 9  # of a part, by which it is found out what it lies in
_DIRECT = 2**18  # faces times points, up to which a sum is faster than a tree


def inside_out(
    vertices: np.ndarray, faces: np.ndarray, part: np.ndarray, turned: np.ndarray, uses: np.ndarray
) -> np.ndarray:
    """Which parts are to be turned as a whole [parts].

    Args:
        part: [F] which part each face belongs to.
        turned: [F] which faces have been turned to agree with the rest of their part.
        uses: [E, 2] one face of each edge, and of how many faces it is.
    """
    parts = int(part.max()) + 1
    corners = vertices[faces]  # [F, 3, 3]
    low, high = np.full((parts, 3), np.inf), np.full((parts, 3), -np.inf)
    np.minimum.at(low, part, corners.min(1))
    np.maximum.at(high, part, corners.max(1))
    relative = corners - ((low + high) / 2)[part][:, None]
    volume = np.bincount(part, np.linalg.det(relative), parts)
    if (volume >= 0).all():
        return np.zeros(parts, bool)
    mixed = np.bincount(part, turned, parts) > 0
    is_open = np.bincount(part[uses[uses[:, 1] != 2, 0]], minlength=parts) > 0
    order = np.argsort(part, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(part, minlength=parts))[:-1])  # faces of each part
    solids = [_Solid(corners[rows[i]]) for i in range(parts)]
    side = np.sign(volume)  # 1: outwards
    is_flat = flat_parts(corners, part)
    for i in np.flatnonzero(is_open):
        side[i] = 0 if is_flat[i] or volume[i] == 0 else solids[i].side()
    wrong = (volume < 0) & mixed & (side == 0)
    for i in np.flatnonzero(side != 0):
        solids[i].volume = abs(volume[i])
    wrong[_negative(solids, side, low, high)] = True
    return wrong


def flat_parts(corners: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Which parts are too open to enclose anything [parts]; for triangles [F, 3, 3] and the part of each [F]."""
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # of a closed part they cancel
    opening = np.linalg.norm([np.bincount(part, areas[:, k]) for k in range(3)], axis=0)
    return opening > _OPENING * np.bincount(part, np.linalg.norm(areas, axis=1))


def _negative(solids: list[_Solid], side: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[int]:
    """Parts to be turned so that no winding number is negative, from the outside inwards; what lies in one, with it."""
    around = _around(solids, side, low, high)
    within: dict[int, list[int]] = {i: [] for i in around}
    for i, holders in around.items():
        for holder in holders:
            within[holder].append(i)
    before = side.copy()
    for i in sorted(around, key=lambda i: len(around[i])):
        if side[around[i]].sum() + side[i] < 0:
            side[[i, *within[i]]] *= -1
    return [i for i in around if side[i] != before[i]]


def _around(solids: list[_Solid], side: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[int, list[int]]:
    """The parts that enclose something, each with those that it lies in."""
    chosen = np.flatnonzero(side != 0)
    around: dict[int, list[int]] = {int(i): [] for i in chosen}
    chosen = chosen[np.argsort(low[chosen, 0], kind="stable")]
    low, high = low[chosen], high[chosen]
    volumes = np.array([solids[i].volume for i in chosen])
    begins = np.searchsorted(low[:, 0], low[:, 0])
    ends = np.searchsorted(low[:, 0], high[:, 0], side="right")
    for k, holder in enumerate(chosen):
        some = slice(begins[k], ends[k])
        boxed = (low[some] >= low[k]).all(1) & (high[some] <= high[k]).all(1) & (volumes[some] < volumes[k])
        inner = chosen[some][boxed]
        if len(inner):
            points = np.concatenate([solids[i].points() for i in inner])
            inside = np.abs(solids[holder].winding(points)).reshape(len(inner), -1) > 0.5
            for i in inner[inside.mean(1) > 0.5]:
                around[int(i)].append(int(holder))
    return around


class _Solid:
    """One part alone: triangles [F, 3, 3]."""

    def __init__(self, corners: np.ndarray) -> None:
        self.corners = corners
        self.volume = 0.0
        self._tree: ops.MeshTree | None = None

    def winding(self, points: np.ndarray) -> np.ndarray:
        """Of this part, at points [N, 3]."""
        low, high = self.corners.min((0, 1)), self.corners.max((0, 1))
        centre, size = (low + high) / 2, float(np.linalg.norm(high - low))
        if len(points) * len(self.corners) <= _DIRECT:
            return _winding((self.corners - centre) / size, (points - centre) / size)
        if self._tree is None:
            placed = torch.from_numpy((self.corners - centre).reshape(-1, 3) / size).float()
            faces = torch.arange(len(placed), dtype=torch.int32, device="cpu").reshape(-1, 3)
            self._tree = ops.mesh_tree(placed, faces)
        return (
            ops.mesh_distance(self._tree, torch.from_numpy((points - centre) / size).float()).winding.double().numpy()
        )

    def points(self) -> np.ndarray:
        """Some of the middles of its faces [_POINTS, 3], the same one several times where there are few."""
        return self.corners[np.linspace(0, len(self.corners) - 1, _POINTS).round().astype(int)].mean(1)

    def side(self) -> int:
        """1 where the faces enclose something and look outwards, -1 where inwards, 0 where they enclose nothing.

        The winding number falls by one across each face; of what encloses something it is 1 to 0 or 0 to -1, of a
        sheet 1/2 to -1/2.
        """
        a, b, c = self.corners.transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)
        area = np.linalg.norm(normals, axis=1)
        random = np.random.default_rng(0)
        chosen = random.choice(len(area), _PROBES, p=area / area.sum())
        reach = _BELOW * np.linalg.norm(np.ptp(self.corners.reshape(-1, 3), axis=0))
        middles = self.corners[chosen].mean(1)
        offset = reach * normals[chosen] / area[chosen, None]
        both = self.winding(np.concatenate([middles - offset, middles + offset])).reshape(2, -1)
        mean = both.sum(0).mean()
        return int(np.sign(mean)) if abs(mean) > _ENCLOSES else 0


def _winding(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[N] winding numbers of triangles [F, 3, 3], as a sum of solid angles (van Oosterom and Strackee, 1983)."""
    a, b, c = (corners[:, k] - points[:, None] for k in range(3))  # [N, F, 3]
    x, y, z = (np.sqrt(np.einsum("nfi,nfi->nf", v, v)) for v in (a, b, c))
    ab, bc, ca = (np.einsum("nfi,nfi->nf", v, w) for v, w in ((a, b), (b, c), (c, a)))
    triple = np.einsum("nfi,nfi->nf", a, np.cross(b, c))
    return np.arctan2(triple, x * y * z + ab * z + bc * x + ca * y).sum(1) / (2 * np.pi)
