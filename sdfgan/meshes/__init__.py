"""Triangle meshes: read, repaired, placed, measured by their signed distance, made from fields, and written."""

from sdfgan.meshes.appearance import Model, model_of, read_model, render_mesh, render_model
from sdfgan.meshes.atlas import textured
from sdfgan.meshes.compare import chamfer_distance
from sdfgan.meshes.decimate import decimate
from sdfgan.meshes.export import MESH_SUFFIXES, export_mesh, export_volume
from sdfgan.meshes.isosurface import marching_cubes, sample_grid, without_floaters
from sdfgan.meshes.normalise import Placement, normalise
from sdfgan.meshes.read import read_mesh
from sdfgan.meshes.repair import RepairReport, repair
from sdfgan.meshes.sheets import sheet_mesh
from sdfgan.meshes.signed_distance import GroundTruth

__all__ = [
    "MESH_SUFFIXES",
    "GroundTruth",
    "Model",
    "Placement",
    "RepairReport",
    "chamfer_distance",
    "decimate",
    "export_mesh",
    "export_volume",
    "marching_cubes",
    "model_of",
    "normalise",
    "read_mesh",
    "read_model",
    "render_mesh",
    "render_model",
    "repair",
    "sample_grid",
    "sheet_mesh",
    "textured",
    "without_floaters",
]
