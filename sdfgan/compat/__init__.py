"""What only older projects need: their fields, weights, flags and scalers, so that their results can be compared."""

from typing import TYPE_CHECKING

from sdfgan._lazy import lazy

if TYPE_CHECKING:
    from sdfgan.compat.dfr_field import DfrSDF
else:
    __getattr__, __dir__ = lazy(__file__)

__all__ = ["DfrSDF"]
