"""What only older projects need: their fields, weights, flags and scalers, so that their results can be compared."""

from sdfgan.compat.dfr_field import DfrSDF

__all__ = ["DfrSDF"]
