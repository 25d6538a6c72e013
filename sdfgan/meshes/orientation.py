"""How the faces of a mesh hang together: neighbours across edges, and parts whose faces look the same way."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sdfgan.meshes.nesting import flat_parts

_MAX_CROWDED, _MAX_AROUND = 2**12, 16  # edges of more than two faces, and faces of one: up to these, parts are joined


def neighbours(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of faces [P, 2] across edges of two faces; whether both look the same way [P]; for each edge one of its
    faces and how many it has [E, 2]."""
    order, ascending, starts, counts = _edges(faces)
    two = starts[counts == 2]
    first, second = order[two], order[two + 1]
    pairs = np.stack([first // 3, second // 3], 1)
    return pairs, ascending[first] != ascending[second], np.stack([order[starts] // 3, counts], 1)


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Half-edges in the order of their edges [3F] (those of face i are 3i to 3i + 2), whether each ascends [3F], and
    for each edge where its half-edges start in that order and how many it has [E]."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ascending = edges[:, 0] < edges[:, 1]
    edges = np.sort(edges, axis=1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    starts = np.flatnonzero(np.r_[True, (np.diff(edges[order], axis=0) != 0).any(1)])
    return order, ascending, starts, np.diff(np.r_[starts, len(order)])


def orient(
    vertices: np.ndarray, faces: np.ndarray, pairs: np.ndarray, agree: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each face [F], and whether it must be turned [F] so that its part agrees: the lesser area turns.

    For vertices [V, 3], faces [F, 3] and what `neighbours` gives of them, pairs [P, 2] and agree [P].

    The graph has each face twice, as it is and turned, and joins what would agree. A part that can be oriented falls
    into two components, one the other's mirror; one that cannot (a Moebius strip) stays as it is.
    """
    n = len(faces)
    a, b = pairs.T
    rows = np.concatenate([a, a + n])
    columns = np.concatenate([np.where(agree, b, b + n), np.where(agree, b + n, b)])
    doubled = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(2 * n, 2 * n))
    _, side = connected_components(doubled, directed=False)
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kept = np.bincount(side[:n], area, 2 * n)  # area that each component leaves as it is
    as_is, mirrored = kept[side[:n]], kept[side[n:]]
    turned = (as_is < mirrored) | ((as_is == mirrored) & (side[:n] > side[n:]))
    return part, turned


def join_parts(vertices: np.ndarray, faces: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The part of each face [F], where parts that continue each other across edges of more than two faces are one.

    Two boxes that share a side have edges of four faces: two of them go one way along the edge and two the other way,
    and each side continues the rest of one box. Parts are joined in pairs that leave no face over: first sides with
    what is closed enough to have an inside, two of which are never joined; of these pairs first those that have the
    most such edges in common, of equal ones those nearest in the file. What continues its own part needs no other. So a
    box that is inside out is turned with all of its sides.
    """
    order, ascending, starts, counts = _edges(faces)
    crowded = np.flatnonzero((counts > 2) & (counts <= _MAX_AROUND) & (counts % 2 == 0))
    if not 0 < len(crowded) <= _MAX_CROWDED:
        return part
    ways: list[Counter[int]] = []  # for each of these edges, by part: faces along it less faces the other way
    shared: dict[tuple[int, int], list[int]] = {}  # by pairs of parts, the edges across which they may continue
    for edge in crowded:
        here = order[starts[edge] : starts[edge] + counts[edge]]
        way: Counter[int] = Counter()
        for owner, up in zip(part[here // 3].tolist(), ascending[here].tolist(), strict=True):
            way[owner] += 1 if up else -1
        if sum(way.values()) == 0:
            for p, q in combinations(sorted(way), 2):
                if way[p] * way[q] < 0:
                    shared.setdefault((p, q), []).append(len(ways))
            ways.append(way)
    first = np.unique(part, return_index=True)[1]  # face of each part
    body = np.arange(len(first))  # of each part
    has_inside = ~flat_parts(vertices[faces], part)
    at: dict[int, set[int]] = {}  # by body, which of these edges it has
    for i, way in enumerate(ways):
        for owner in way:
            at.setdefault(owner, set()).add(i)

    def order_of(pair: tuple[int, int]) -> tuple[bool, int, int]:
        p, q = pair
        return bool(has_inside[p] == has_inside[q]), -len(shared[pair]), abs(int(first[p] - first[q]))

    for pair in sorted(shared, key=order_of):
        p, q = body[list(pair)].tolist()
        if p == q or (has_inside[p] and has_inside[q]) or not any(ways[i][p] * ways[i][q] < 0 for i in shared[pair]):
            continue
        for i in at[q]:
            ways[i][p] += ways[i].pop(q)
        at[p] |= at.pop(q)
        body[body == q] = p
        has_inside[p] |= has_inside[q]
    return np.unique(body, return_inverse=True)[1].reshape(-1)[part]
