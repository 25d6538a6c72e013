# The native module (csrc/bindings.cpp).
from types import ModuleType
from typing import Protocol

from torch import Tensor

class Kernels(Protocol):
    """The kernels of one dtype, on one device: see `sdfgan.ops._library.native`. csrc/kernels says what they take.

    In `f32` and `f64` each has a first argument more: (device or -1 for the CPU, CUDA stream, threads).
    """

    def composite(
        self,
        *,
        at: dict,
        densities: Tensor | None,
        deltas: Tensor | None,
        colors: Tensor | None,
        distances: Tensor | None,
        weights: Tensor | None,
        opacity: Tensor | None,
        out: Tensor | None,
        depth: Tensor | None,
        channels: int,
    ) -> None: ...
    def composite_backward(
        self,
        *,
        at: dict,
        densities: Tensor | None,
        deltas: Tensor | None,
        colors: Tensor | None,
        distances: Tensor | None,
        weights: Tensor | None,
        grad_weights: Tensor | None,
        grad_opacity: Tensor | None,
        grad_out: Tensor | None,
        grad_depth: Tensor | None,
        grad_densities: Tensor | None,
        grad_deltas: Tensor | None,
        grad_colors: Tensor | None,
        grad_distances: Tensor | None,
        channels: int,
    ) -> None: ...
    def distortion(
        self, *, edges: Tensor | None, weights: Tensor | None, out: Tensor | None, rays: int, bins: int
    ) -> None: ...
    def film_siren(
        self,
        *,
        network: dict,
        points: Tensor | None,
        image: Tensor | None,
        sdf: Tensor | None,
        gradient: Tensor | None,
        texture: Tensor | None,
        count: int,
    ) -> None: ...
    def film_siren_backward(
        self,
        *,
        network: dict,
        points: Tensor | None,
        image: Tensor | None,
        grad_sdf: Tensor | None,
        grad_gradient: Tensor | None,
        grad_texture: Tensor | None,
        grad_points: Tensor | None,
        grad_first: Tensor | None,
        grad_hidden: Tensor | None,
        grad_sdf_head: Tensor | None,
        grad_texture_head: Tensor | None,
        grad_constants: Tensor | None,
        grad_scale: Tensor | None,
        grad_shift: Tensor | None,
        order: Tensor | None,
        begin: Tensor | None,
        workspace: Tensor | None,
        count: int,
    ) -> None: ...
    def film_siren_trace(
        self,
        *,
        network: dict,
        cameras: Tensor | None,
        levels: list[dict],
        jitter: Tensor | None,
        status: Tensor | None,
        distance: Tensor | None,
        nearest: Tensor | None,
        counts: Tensor | None,
        layers: dict,
        workspace: Tensor | None,
        plane_distance: float,
        mirror: dict,
    ) -> None: ...
    def frustum_gaussians(
        self,
        *,
        origins: Tensor | None,
        directions: Tensor | None,
        edges: Tensor | None,
        radii: Tensor | None,
        means: Tensor | None,
        covariances: Tensor | None,
        rays: int,
        samples: int,
        cylinder: bool,
        full: bool,
    ) -> None: ...
    def generate_rays(
        self,
        *,
        cameras: Tensor | None,
        pixels: Tensor | None,
        origins: Tensor | None,
        directions: Tensor | None,
        near: Tensor | None,
        far: Tensor | None,
        rays: int,
        camera_count: int,
        height: int,
        width: int,
        plane_distance: float,
        radius: float,
        radii: Tensor | None,
    ) -> None: ...
    def hash_encoding(self, *, grid: dict, out: Tensor | None) -> None: ...
    def hash_points_gradient(self, *, grid: dict, gradient: Tensor | None, out: Tensor | None) -> None: ...
    def hash_table_gradient(self, *, grid: dict, gradient: Tensor | None, out: Tensor | None) -> None: ...
    def integrated_directional_encoding(
        self,
        *,
        directions: Tensor | None,
        roughness: Tensor | None,
        table: Tensor | None,
        out: Tensor | None,
        grad_out: Tensor | None,
        grad_directions: Tensor | None,
        grad_roughness: Tensor | None,
        count: int,
        width: int,
        levels: int,
    ) -> None: ...
    def integrated_positional_encoding(
        self,
        *,
        means: Tensor | None,
        variances: Tensor | None,
        out: Tensor | None,
        points: int,
        dims: int,
        octaves: int,
    ) -> None: ...
    def layer_edges(
        self,
        *,
        pixel: Tensor | None,
        hit: Tensor | None,
        opaque: Tensor | None,
        near: Tensor | None,
        t: Tensor | None,
        nearest: Tensor | None,
        normal: Tensor | None,
        size: Tensor | None,
        camera: Tensor | None,
        source: Tensor | None,
        nearest_out: Tensor | None,
        area: Tensor | None,
        layers: int,
        resolution: int,
        all_hits: bool,
    ) -> None: ...
    def layer_step(
        self,
        *,
        values: Tensor | None,
        gradients: Tensor | None,
        alive: Tensor | None,
        count: Tensor | None,
        origins: Tensor | None,
        directions: Tensor | None,
        state: Tensor | None,
        stage: Tensor | None,
        points: Tensor | None,
        alive_out: Tensor | None,
        count_out: Tensor | None,
        workspace: Tensor | None,
        workspace_size: int,
        entries: int,
        layers: int,
    ) -> None: ...
    def lazy_adam(
        self,
        *,
        parameter: Tensor | None,
        gradient: Tensor | None,
        mean: Tensor | None,
        square: Tensor | None,
        step: Tensor | None,
        skip: Tensor | None,
        count: int,
        rate: float,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> None: ...
    def march_count(self, *, march: dict, counts: Tensor | None, next: Tensor | None, most: int) -> None: ...
    def march_reached(
        self,
        *,
        at: dict,
        densities: Tensor | None,
        deltas: Tensor | None,
        depth: Tensor | None,
        reached: Tensor | None,
        next: Tensor | None,
        limit: float,
    ) -> None: ...
    def march_samples(
        self,
        *,
        march: dict,
        at: dict,
        points: Tensor | None,
        directions: Tensor | None,
        distances: Tensor | None,
        deltas: Tensor | None,
    ) -> None: ...
    def mesh_distance(
        self,
        *,
        tree: dict,
        points: Tensor | None,
        order: Tensor | None,
        distance: Tensor | None,
        face: Tensor | None,
        closest: Tensor | None,
        winding: Tensor | None,
        count: int,
    ) -> None: ...
    def mesh_raycast(
        self,
        *,
        tree: dict,
        origins: Tensor | None,
        directions: Tensor | None,
        distance: Tensor | None,
        face: Tensor | None,
        barycentric: Tensor | None,
        count: int,
    ) -> None: ...
    def overlap_sums(
        self,
        *,
        edges: Tensor | None,
        others: Tensor | None,
        weights: Tensor | None,
        out: Tensor | None,
        rays: int,
        bins: int,
        other_bins: int,
    ) -> None: ...
    def perceptron(
        self,
        *,
        x: Tensor | None,
        weights: list[Tensor | None],
        biases: list[Tensor | None],
        out: Tensor | None,
        count: int,
        sizes: list[int],
        sine: bool,
        constant: float,
    ) -> None: ...
    def perceptron_backward(
        self,
        *,
        network: dict,
        gradient: Tensor | None,
        grad_x: Tensor | None,
        grad_layers: Tensor | None,
    ) -> None: ...
    def positional_encoding(
        self,
        *,
        x: Tensor | None,
        out: Tensor | None,
        points: int,
        dims: int,
        width: int,
        octaves: int,
        include_input: bool,
        times_pi: bool,
    ) -> None: ...
    def sample_pdf(
        self,
        *,
        edges: Tensor | None,
        weights: Tensor | None,
        u: Tensor | None,
        out: Tensor | None,
        rays: int,
        bins: int,
        samples: int,
        u_stride: int,
    ) -> None: ...
    def sample_pixels(
        self,
        *,
        cameras: Tensor | None,
        intrinsics: Tensor | None,
        distortion: Tensor | None,
        fisheye: Tensor | None,
        widths: Tensor | None,
        starts: Tensor | None,
        pixels: Tensor | None,
        images: Tensor | None,
        mask: Tensor | None,
        origins: Tensor | None,
        directions: Tensor | None,
        radii: Tensor | None,
        colors: Tensor | None,
        count: int,
        views: int,
        channels: int,
        stored: int,
        terms: int,
        masked: int,
        bytes: bool,
    ) -> None: ...
    def start_level(
        self,
        *,
        cameras: Tensor | None,
        parent_state: Tensor | None,
        parent_status: Tensor | None,
        jitter: Tensor | None,
        origins: Tensor | None,
        directions: Tensor | None,
        start: Tensor | None,
        far: Tensor | None,
        state: Tensor | None,
        status: Tensor | None,
        points: Tensor | None,
        alive: Tensor | None,
        count: Tensor | None,
        workspace: Tensor | None,
        workspace_size: int,
        images: int,
        size: int,
        parent_size: int,
        plane_distance: float,
        radius: float,
        offset: float,
        parent_reach: float,
        radii: Tensor | None,
    ) -> None: ...
    def trace_step(
        self,
        *,
        values: Tensor | None,
        alive: Tensor | None,
        count: Tensor | None,
        origins: Tensor | None,
        directions: Tensor | None,
        far: Tensor | None,
        state: Tensor | None,
        status: Tensor | None,
        points: Tensor | None,
        alive_out: Tensor | None,
        count_out: Tensor | None,
        workspace: Tensor | None,
        workspace_size: int,
        entries: int,
        rays: int,
        rules: dict,
        layers: dict,
        last: bool,
    ) -> None: ...

f32: ModuleType
f64: ModuleType  # without mesh_distance and mesh_raycast
openmp: bool
simd_levels: str
cuda: bool
cuda_architectures: str

class MeshTree:
    """What csrc/cpu/mesh_tree.cpp built; takes addresses of arrays."""

    nodes: int
    leaves: int
    def __init__(self, vertices: int, faces: int, face_count: int, threads: int) -> None: ...
    def write(self, nodes: int, children: int, leaves: int, leaf_faces: int) -> None: ...

def simd() -> str: ...
def set_simd(level: str) -> None: ...
def start_level_workspace(device: int, rays: int) -> int: ...
def trace_step_workspace(device: int, entries: int) -> int: ...
def film_siren_backward_workspace(device: int, count: int, images: int, width: int, layers: int, half: bool) -> int: ...
def film_siren_trace_workspace(device: int, images: int, sizes: list[int]) -> int: ...
def has_bf16() -> bool: ...
def multiply_adds(threads: int, bf16: bool) -> float: ...
