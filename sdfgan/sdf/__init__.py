"""A mesh as a neural signed-distance field: its ground truth, training points and fit."""

from sdfgan.sdf.normalise import Placement, normalise
from sdfgan.sdf.read import read_mesh
from sdfgan.sdf.repair import RepairReport, repair
from sdfgan.sdf.sampling import Samples, SampleStream, sample
from sdfgan.sdf.truth import GroundTruth

__all__ = [
    "GroundTruth",
    "Placement",
    "RepairReport",
    "SampleStream",
    "Samples",
    "normalise",
    "read_mesh",
    "repair",
    "sample",
]
