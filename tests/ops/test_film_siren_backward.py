"""Gradients of film_siren and film_siren_sample by everything: against the reference in float64, and by gradcheck."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from networks import RandomNetwork, rounded_to_half, some_grads, some_points, worst_error
from sdfgan import _C, build_info
from sdfgan.ops import FilmSirenNetwork, film_siren, film_siren_sample, film_siren_variation, pack_matrices, reference

SIMD = build_info()["simd_compiled"][: build_info()["simd_compiled"].index(build_info()["simd"]) + 1]


class Weights(NamedTuple):
    """What a network is made of, and the points: everything that there is a gradient by."""

    points: Tensor
    first: Tensor
    matrices: Tensor  # [layers - 1, W, W]
    sdf_head: Tensor
    texture_head: Tensor
    constants: Tensor
    scale: Tensor
    shift: Tensor

    def network(self, layers: tuple[int, int, int]) -> FilmSirenNetwork:
        packed = pack_matrices(self.matrices)
        transposed = pack_matrices(self.matrices.detach().transpose(1, 2).contiguous())
        return FilmSirenNetwork(self.first, packed, transposed, *self[3:], layers=layers)

    def leaves(self, dtype: torch.dtype) -> Weights:
        return Weights(*(tensor.detach().to(dtype).requires_grad_() for tensor in self))


class Case:
    """Random weights of the size that an initialised network has, points, and gradients by its three answers."""

    def __init__(self, counts: list[int], width: int, layers: tuple[int, int, int] = (2, 1, 1), seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> Tensor:  # numbers that float32 has
            return (2 * torch.rand(shape, generator=random) - 1).double()

        self.layers, film = layers, (len(counts), sum(layers), width)
        self.image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
        n = len(self.image)
        self.weights = Weights(
            uniform(n, 3), uniform(width, 3) / 3, uniform(sum(layers) - 1, width, width) * (6 / width) ** 0.5 / 10,
            uniform(width) / width**0.5, uniform(3, width) / width**0.5, torch.tensor([0.01, -0.5]).double(),
            10 + 3 * uniform(*film), 3 * uniform(*film),
        )  # fmt: skip
        self.grads = [uniform(n), uniform(n, 3), uniform(n, 3)]

    def gradients(
        self, dtype: torch.dtype = torch.float32, op=film_siren_sample, answers: tuple[int, ...] = (0, 1, 2)
    ) -> Weights:
        """By everything, of a loss that depends on the chosen answers."""
        own = self.weights.leaves(dtype)
        found = op(own.points, self.image, own.network(self.layers))
        found = (found,) if isinstance(found, Tensor) else found
        loss = sum((found[i] * self.grads[i].to(dtype)).sum() for i in answers)
        return Weights(*torch.autograd.grad(loss, own, materialize_grads=True, allow_unused=True))


def tolerance(layers: tuple[int, int, int], dtype: torch.dtype) -> float:
    """As for the answers: a layer about doubles rounding errors, and the gradient goes through them twice."""
    return 2 * 5e-7 * 2 ** sum(layers) if dtype == torch.float32 else 1e-10


def test_a_variation_is_zero_and_has_the_gradient_of_the_sdf() -> None:
    case = Case([70, 0, 3], 32)
    network = case.weights.network(case.layers)
    assert not film_siren_variation(case.weights.points, case.image, network).any()
    found, expected = (case.gradients(op=op, answers=(0,)) for op in (film_siren_variation, film_siren))
    for own, wanted in zip(found, expected, strict=True):
        assert torch.equal(own, wanted)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 110), min_size=1, max_size=5),
    width=st.sampled_from([16, 32, 48, 64, 80, 128]),
    layers=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    answers=st.sampled_from([(0, 1, 2), (0, 1), (0,), (1,), (2,), (0, 2), (1, 2)]),
    seed=st.integers(0, 1000),
)
def test_matches_reference(counts, width, layers, dtype, answers, seed):
    case = Case(counts, width, layers, seed)
    expected = case.gradients(torch.float64, reference.film_siren_sample, answers)
    assert worst_error(case.gradients(dtype, answers=answers), expected) < tolerance(layers, dtype)
    if answers == (0,):
        assert worst_error(case.gradients(dtype, film_siren, answers), expected) < tolerance(layers, dtype)


@pytest.mark.parametrize("width", [32, 64, 128, 256, 320])
@pytest.mark.parametrize("counts", [[1], [0, 0], [0, 130, 0, 7, 49, 0], [300, 700]])
def test_widths_and_counts(width, counts):
    case = Case(counts, width, (3, 1, 1))
    expected = case.gradients(torch.float64, reference.film_siren_sample)
    # What the networks of a GAN have: 1e-6 of the largest, with some room for the machine's own order of sums.
    assert worst_error(case.gradients(), expected) < 4e-6


@pytest.mark.parametrize("layers", [(1, 1, 0), (2, 1, 1), (1, 2, 2)])
def test_gradcheck(layers):
    case = Case([3, 0, 2], 16, layers)
    own = case.weights.leaves(torch.float64)

    def answers(*tensors):
        return film_siren_sample(tensors[0], case.image, Weights(*tensors).network(layers))

    assert torch.autograd.gradcheck(answers, tuple(own), fast_mode=True)
    few = [own.points, own.scale, own.shift, own.constants]  # slowly: every number by every one

    def of_few(points, scale, shift, constants):
        return answers(*own._replace(points=points, scale=scale, shift=shift, constants=constants))

    assert torch.autograd.gradcheck(of_few, few)


@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-30])
def test_scales_of_zero(zero):
    """Of one feature, of a whole layer, and of everything."""
    for rows in ((0, 0, 3), (1, 2), (0,)):
        case = Case([20, 60], 32, (2, 1, 1))
        case.weights.scale[rows] = zero
        expected = case.gradients(torch.float64, reference.film_siren_sample)
        for dtype in (torch.float32, torch.float64):
            assert worst_error(case.gradients(dtype), expected) < tolerance(case.layers, dtype)


def test_images_in_any_order():
    case = Case([100, 3, 77], 32)
    sorted_by_image = case.gradients(torch.float64)
    order = torch.randperm(180, generator=torch.Generator().manual_seed(0))
    case.image, case.grads = case.image[order], [grad[order] for grad in case.grads]
    case.weights = case.weights._replace(points=case.weights.points[order])
    shuffled = case.gradients(torch.float64)
    assert torch.equal(shuffled.points, sorted_by_image.points[order])
    assert worst_error(shuffled, sorted_by_image._replace(points=shuffled.points)) < 1e-12


def test_points_of_no_image_add_nothing():
    case = Case([5, 6], 32)
    expected = case.gradients()
    case.image = torch.cat([case.image, torch.tensor([-1, 2])])
    case.weights = case.weights._replace(points=torch.cat([case.weights.points, torch.ones(2, 3).double()]))
    case.grads = [torch.cat([grad, torch.ones(2, *grad.shape[1:]).double()]) for grad in case.grads]
    found = case.gradients()
    assert found.points[-2:].isnan().all()
    assert all(map(torch.equal, found._replace(points=found.points[:-2]), expected))


def test_the_same_bits_for_any_number_of_threads():
    case = Case([1000, 3, 0, 500, 40], 64, (3, 1, 1))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(case.gradients())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [48, 64])
def test_every_instruction_set(dtype, width):
    case = Case([40, 160], width, (2, 1, 1))
    expected = case.gradients(torch.float64, reference.film_siren_sample)
    try:
        for level in SIMD:
            _C.set_simd(level)
            assert worst_error(case.gradients(dtype), expected) < tolerance(case.layers, dtype), level
    finally:
        _C.set_simd("")


def test_a_batch_of_nan_spoils_its_own_points_alone():
    case = Case([60, 60], 32)
    expected = case.gradients()
    case.weights.points[3] = torch.nan
    found = case.gradients()
    assert found.points[3].isnan().all() and found.matrices.isnan().any()
    kept = torch.arange(120) != 3
    assert torch.equal(found.points[kept], expected.points[kept])


def test_opcheck():
    case = Case([5, 4], 16)
    own = case.weights.leaves(torch.float32)
    network = [tensor.detach().requires_grad_() for tensor in own.network(case.layers).tensors]
    network[2].requires_grad_(False)
    arguments = (own.points, case.image, network, list(case.layers))
    torch.library.opcheck(torch.ops.sdfgan.film_siren.default, arguments)
    torch.library.opcheck(torch.ops.sdfgan.film_siren_sample.default, arguments)
    plain = (own.points.detach(), case.image, [tensor.detach() for tensor in network], list(case.layers))
    for given_ in itertools.product((True, False), repeat=3):
        grads = [grad.float() if there else None for grad, there in zip(case.grads, given_, strict=True)]
        torch.library.opcheck(torch.ops.sdfgan.film_siren_backward.default, (*plain, *grads))


def test_compiles():
    case = Case([50, 30], 32)
    own = case.weights.leaves(torch.float32)

    def loss(points, scale):
        sdf, gradient, texture = film_siren_sample(
            points, case.image, own._replace(points=points, scale=scale).network(case.layers)
        )
        return sdf.square().sum() + (gradient.norm(dim=1) - 1).square().sum() + texture.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss(own.points, own.scale), own)
    for a, e in zip(torch.autograd.grad(compiled(own.points, own.scale), own), expected, strict=True):
        torch.testing.assert_close(a, e)


def test_autocast_changes_nothing():
    case = Case([50, 30], 32)
    expected = case.gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, case.gradients(), expected))


def test_no_graph_where_there_is_to_be_none():
    case = Case([5, 4], 16)
    own = case.weights.leaves(torch.float32)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            answers = film_siren_sample(own.points, case.image, own.network(case.layers))
            assert not any(answer.requires_grad for answer in answers)


def test_the_graph_keeps_nothing_but_what_it_was_given():
    case = Case([2000, 3000], 32)
    own, kept = case.weights.leaves(torch.float32), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    network = own.network(case.layers)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        film_siren_sample(own.points, case.image, network)
    given_ = [own.points, case.image, *network.tensors]
    assert sum(kept.values()) == sum(tensor.untyped_storage().nbytes() for tensor in given_)


def test_there_is_no_second_derivative():
    case = Case([5, 4], 16)
    own = case.weights.leaves(torch.float64)
    _, gradient, _ = film_siren_sample(own.points, case.image, own.network(case.layers))
    (by_points,) = torch.autograd.grad(gradient.sum(), own.points, create_graph=True)
    with pytest.raises(RuntimeError, match=r"film_siren_sample: has no second derivative; .* native_gradients = False"):
        by_points.sum().backward()
    sdf = film_siren(own.points, case.image, own.network(case.layers))
    (by_scale,) = torch.autograd.grad(sdf.sum(), own.scale, create_graph=True)
    with pytest.raises(RuntimeError, match="film_siren_sample: has no second derivative"):
        by_scale.sum().backward()


def test_values_differentiate_twice_by_the_points():
    case = Case([5, 4], 16)
    own = case.weights.leaves(torch.float64)
    found = []
    for op in (film_siren, reference.film_siren):
        sdf = op(own.points, case.image, own.network(case.layers))
        (gradient,) = torch.autograd.grad(sdf.sum(), own.points, create_graph=True)
        eikonal = (gradient.norm(dim=1) - 1).square().sum()
        found.append(Weights(*torch.autograd.grad(eikonal, own, allow_unused=True, materialize_grads=True)))
    assert worst_error(*found) < 1e-10


def test_rejections(monkeypatch):
    case = Case([5, 4], 16)
    own = case.weights.leaves(torch.float32)
    monkeypatch.setenv("SDFGAN_EMULATE_BF16", "1")
    bf16 = pack_matrices(own.matrices.detach(), "bf16")
    with pytest.raises(RuntimeError, match="film_siren: not differentiable with bfloat16 matrices, but points"):
        film_siren(own.points, case.image, own.network(case.layers)._replace(hidden=bf16, transposed=bf16))
    plain = own.points.detach(), case.image, [t.detach() for t in own.network(case.layers).tensors], list(case.layers)
    backward = torch.ops.sdfgan.film_siren_backward.default
    with pytest.raises(ValueError, match=r"film_siren_backward: grad_sdf must be \[N\] float32, got \[4\] float32"):
        backward(*plain, torch.zeros(4), None, None)
    with FakeTensorMode() as mode:
        cuda = [torch.empty_like(mode.from_tensor(t), device="cuda") for t in plain[2]]
        points, image = torch.rand(9, 3, device="cuda"), torch.zeros(9, dtype=torch.int64, device="cuda")
        network = FilmSirenNetwork(*cuda, layers=case.layers)._replace(hidden=cuda[1].requires_grad_())
        with pytest.raises(RuntimeError, match="not differentiable by packed matrices on CUDA, but by `transposed`"):
            film_siren_sample(points, image, network)
        with pytest.raises(ValueError, match="film_siren_backward: on CUDA the width must be one of"):
            backward(points, image, [tensor.detach() for tensor in cuda], list(case.layers), None, None, None)


@pytest.mark.parametrize("layers", [(3, 1, 1), (1, 1, 0), (2, 2, 3)])
def test_the_reference_of_rounded_operands(layers):
    """What CUDA's fp16 is compared with: exact without rounding; with it, as far off as 11 bits make it."""
    x = (1 + torch.rand(1000)).double()  # from float64 torch rounds twice
    assert torch.equal(rounded_to_half(x), x.half().double())
    points, image = some_points([1])
    errors = []
    for seed in range(20):
        net = RandomNetwork(1, 64, layers, seed)
        for answers in ((0, 1, 2), (0,), (1, 2)):
            grads = [grad if i in answers else None for i, grad in enumerate(some_grads(1))]
            exact = net.exact_gradients(points, image, grads)
            assert worst_error(net.exact_gradients(points, image, grads, rounded=lambda x: x), exact) < 1e-12
            errors.append(worst_error(net.exact_gradients(points, image, grads, rounded=rounded_to_half), exact))
    assert 2**-12 < sorted(errors)[30] < 2**-9 and max(errors) < 2**-7
