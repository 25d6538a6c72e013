"""The former name of `sdfgan.images`, for one version."""

from sdfgan.images import *  # noqa: F403
