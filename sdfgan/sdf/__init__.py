"""A mesh as a neural signed-distance field: its ground truth, training points and fit."""

from sdfgan.sdf.model import MeshSDF, load
from sdfgan.sdf.normalise import Placement, normalise
from sdfgan.sdf.read import read_mesh
from sdfgan.sdf.repair import RepairReport, repair
from sdfgan.sdf.sampling import Samples, SampleStream, sample
from sdfgan.sdf.sheets import sheet_mesh
from sdfgan.sdf.truth import GroundTruth

__all__ = [
    "GroundTruth",
    "MeshSDF",
    "Placement",
    "RepairReport",
    "SampleStream",
    "Samples",
    "load",
    "normalise",
    "read_mesh",
    "repair",
    "sample",
    "sheet_mesh",
]
