"""Readers of mesh files: each returns the polygons that a file declares, or raises MeshFormatError."""
