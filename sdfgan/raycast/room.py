"""Room for the samples of an image before anybody has counted them, so that the host never waits for a GPU.

How many samples an image has is known on the device alone. Arrays are therefore made a little longer than those of the
images before needed; what is beyond the count is evaluated, and adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

KINDS = ("layers", "samples", "hits", "misses", "edges", "creases")

_SPARE = 1.25  # times what was needed
_AT_FIRST = 2.0  # the same for the first image, until it is settled
_TOO_LARGE = 1.5  # times what would do: then there is less
_STEP = 256  # sizes are multiples of this, so that they seldom change


class Room:
    """How many samples of each kind the next images have room for; all that are rendered with it should be alike.

    The first rendering counts its samples, for which the host waits; those after it wait for nothing. `settle` them
    where waiting costs nothing, such as after the losses of a step have been read. Samples that find no room are
    missing from images, at the end of their batch: `settle` says how many, and then there is room for them.
    """

    def __init__(self) -> None:
        self.lost = 0  # samples, so far
        self._sizes: dict[str, int] = {}
        self._needed: Tensor | None = None  # [6] int64: the most samples of each kind in an image since `settle`
        self._settings: object = None

    def keep_while(self, settings: object) -> None:
        """Begin anew if these settings, on which the number of samples depends, differ from the previous ones."""
        if settings != self._settings:
            self._sizes, self._needed, self._settings = {}, None, settings

    def settle(self) -> int:
        """Take in what images have needed since the last time, and make room for it; returns how many samples were
        lost. The host waits for the counts, unless the device has finished those images anyway."""
        if self._needed is None:
            return 0
        lost = 0
        for kind, count in zip(KINDS, self._needed.tolist(), strict=True):
            size, wanted = self._sizes.get(kind, 0), _with_spare(count)
            lost += max(0, count - size)
            if wanted > size or size > _TOO_LARGE * wanted:
                self._sizes[kind] = wanted
        self.lost += lost
        self._needed.zero_()
        return lost

    def sizes(self, kinds: Sequence[str], counts: Tensor) -> list[int]:
        """How many of these kinds there is room for, where [K] int64 are counted."""
        if self._needed is None:
            self._needed = torch.zeros(len(KINDS), dtype=torch.int64, device=counts.device)
        first = KINDS.index(kinds[0])
        own = self._needed[first : first + len(kinds)]
        torch.maximum(own, counts, out=own)
        if kinds[0] not in self._sizes:
            for kind, count in zip(kinds, counts.tolist(), strict=True):
                self._sizes[kind] = _with_spare(count, _AT_FIRST)
        return [self._sizes[kind] for kind in kinds]


def counted(room: Room | None, kinds: Sequence[str], counts: Tensor) -> list[int]:
    """How long arrays of these kinds are made: as there is room, or exactly as counted [K], for which the host waits.

    Kinds are neighbours in `KINDS`.
    """
    return counts.tolist() if room is None else room.sizes(kinds, counts)


def places(chosen: Tensor, kind: str, room: Room | None) -> tuple[Tensor, Tensor | None]:
    """[K] int64: where the chosen [N] are; and [K] bool, which of these places count, None: all.

    Without room, K is how many are chosen, for which the host waits.
    """
    if room is None:
        return chosen.nonzero()[:, 0], None
    total = chosen.sum()[None]
    (size,) = room.sizes((kind,), total)
    return first_places(chosen, size), torch.arange(size, device=total.device) < total


def first_places(chosen: Tensor, count: int) -> Tensor:
    """[count] int64: where the first so many of the chosen [N] are; if there are fewer, then the last of them again,
    and if there are none, the first of all. The host need not wait to know how many."""
    running = chosen.cumsum(0)
    wanted = torch.arange(1, count + 1, device=chosen.device)
    return torch.searchsorted(running, torch.minimum(wanted, running[-1:]) if len(running) else wanted)


def only(flags: Tensor, valid: Tensor | None) -> Tensor:
    """The flags of what counts [N, ...]; None: all does."""
    return flags if valid is None else flags & valid.view(-1, *(1,) * (flags.ndim - 1))


def _with_spare(count: int, spare: float = _SPARE) -> int:
    """A size that has room for so many, and more."""
    return (int(spare * count) // _STEP + 1) * _STEP
