"""A mesh as a neural signed-distance field: its ground truth, training points and fit."""

from typing import TYPE_CHECKING

from sdfgan._lazy import lazy

if TYPE_CHECKING:
    from sdfgan.meshes.normalise import Placement, normalise
    from sdfgan.meshes.read import read_mesh
    from sdfgan.meshes.repair import RepairReport, repair
    from sdfgan.meshes.sheets import sheet_mesh
    from sdfgan.meshes.signed_distance import GroundTruth
    from sdfgan.sdf.model import MeshSDF, load
    from sdfgan.sdf.runs import train
    from sdfgan.sdf.sampling import Samples, SampleStream, sample
else:
    __getattr__, __dir__ = lazy(__file__)

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
    "train",
]
