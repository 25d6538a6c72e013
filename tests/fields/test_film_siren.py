"""The FiLM-SIREN field: its explicit adjoint, its layouts of points, its initialisation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from sdfgan.fields import Field, FilmSirenSDF, film_siren
from sdfgan.fields.film_siren import hsv_to_rgb


def make(**options) -> FilmSirenSDF:
    torch.manual_seed(0)
    field = FilmSirenSDF(**{"width": 16, "latent_size": 4, "mapping_width": 8, **options}).double()
    with torch.no_grad():
        field.sdf_head.mul_(30)  # far from the ball it starts as, so that the network counts
    return field


def some_points(counts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return torch.rand(len(image), 3, dtype=torch.float64) * 2 - 1, image


OPTIONS = [
    {},
    {"trunk_layers": 1, "sdf_layers": 2, "texture_layers": 2},
    {"texture_latent_size": 3},
    {"color_space": "hsv"},
    {"color_space": "palette"},
]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_adjoint_pass_equals_autograd(options: dict, native: bool) -> None:
    field = make(**options)
    field.native_gradients = native
    points, image = some_points((5, 0, 9))
    condition = field.condition(torch.randn(3, field.latent_size, dtype=torch.float64))
    value, gradient, rgb = field.evaluate(points, condition, image)
    reference_value, reference = Field.sdf_and_gradient(field, points, condition, image)
    torch.testing.assert_close(value, reference_value)
    torch.testing.assert_close(gradient, reference)
    torch.testing.assert_close(rgb, field.rgb(points, condition, image))
    assert rgb.min() >= 0 and rgb.max() <= 1


@pytest.mark.parametrize("options", [*OPTIONS, {"width": 20}])
@pytest.mark.parametrize("name", ["sdf", "sdf_and_gradient", "rgb", "evaluate"])
def test_native_gradients_are_those_of_torch(options: dict, name: str) -> None:
    field = make(**options)
    points, image = some_points((5, 0, 70))
    latents = torch.randn(3, field.latent_size, dtype=torch.float64, requires_grad=True)
    own = [points.requires_grad_(), latents, *field.parameters()]
    found, graphs = [], []
    for native in (True, False):
        field.native_gradients = native
        answers = getattr(field, name)(points, field.condition(latents), image)
        answers = [answers] if isinstance(answers, torch.Tensor) else list(answers)
        graphs.append({type(node).__name__ for node in nodes(answers)})
        loss = sum((answer * (1 + answer.detach().cos())).sum() for answer in answers)
        found.append(torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True))
    assert any("film_siren" in node for node in graphs[0]) == (field.width == 16)
    assert not any("film_siren" in node for node in graphs[1])
    for a, e in zip(*found, strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize(("value", "native"), [("native", True), ("torch", False), (None, True)])
def test_the_environment_chooses_gradients_on_cuda(monkeypatch: pytest.MonkeyPatch, value: str | None, native: bool):
    """Asked for once; a field that says itself does not ask."""
    monkeypatch.delenv("SDFGAN_CUDA_GRADIENT", raising=False)
    if value is not None:
        monkeypatch.setenv("SDFGAN_CUDA_GRADIENT", value)
    assert film_siren._native_on_cuda.__wrapped__() == native
    monkeypatch.setenv("SDFGAN_CUDA_GRADIENT", "yes")
    with pytest.raises(ValueError, match="SDFGAN_CUDA_GRADIENT must be 'native' or 'torch', got 'yes'"):
        film_siren._native_on_cuda.__wrapped__()


def test_a_network_with_a_graph_is_padded_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the CUDA kernels are given, made here on a CPU; gradients come back through the padding."""
    field = make().float()
    monkeypatch.setattr(film_siren._C, "cuda", True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(film_siren, "_native_on_cuda", lambda: True)
    points, condition = torch.rand(4, 3), field.condition(torch.randn(2, field.latent_size))
    network = field._for_kernels(points, condition)
    assert network is not None
    width, layers = film_siren.ops.CUDA_WIDTHS[0], len(field.omegas)
    assert network.first.shape == (width, 3) and network.scale.shape == (2, layers, width)
    assert network.transposed.shape == (layers - 1, width, width) and not network.hidden.requires_grad
    assert torch.equal(network.transposed[0, : field.width, : field.width], field.weights[1])
    monkeypatch.undo()
    sum(tensor.sum() for tensor in network.tensors if tensor.requires_grad).backward()
    assert all((weight.grad == 1).all() for weight in field.weights)


def test_native_gradients_within_checkpoints() -> None:
    field = make()
    points, image = some_points((5, 9))
    condition = field.condition(torch.randn(2, field.latent_size, dtype=torch.float64))
    own = [points.requires_grad_(), *field.parameters()]

    def gradients(answer: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for tensor in own:
            tensor.grad = None
        answer.square().sum().backward(retain_graph=True)
        return tuple(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in own)

    kept = checkpoint(lambda points: field.sdf(points, condition, image), points, use_reentrant=False)
    for a, e in zip(gradients(kept), gradients(field.sdf(points, condition, image)), strict=True):
        torch.testing.assert_close(a, e)


def test_forward_mode_is_left_to_torch() -> None:
    field = make()
    points, image = some_points((5, 9))
    condition, direction = field.condition(torch.randn(2, field.latent_size, dtype=torch.float64)), torch.rand(14, 3)
    expected = (field.sdf_and_gradient(points, condition, image)[1] * direction).sum(-1)
    for graph in (True, False):
        with torch.set_grad_enabled(graph), forward_ad.dual_level():
            dual = forward_ad.make_dual(points, direction.double())
            tangent = forward_ad.unpack_dual(field.sdf(dual, condition, image)).tangent
        torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("graph", [True, False])
def test_fields_of_half_precision_are_left_to_torch(dtype: torch.dtype, graph: bool) -> None:
    field = make()
    points, image = some_points((5, 9))
    latents = torch.randn(2, field.latent_size, dtype=torch.float64)
    exact = field.sdf(points, field.condition(latents), image)
    half = field.to(dtype)
    with torch.set_grad_enabled(graph):
        found = half.sdf(points.to(dtype), half.condition(latents.to(dtype)), image)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, atol=0.1, rtol=0)


def test_image_indices_may_have_strides() -> None:
    field = make()
    points, image = some_points((5, 9))
    condition = field.condition(torch.randn(2, field.latent_size, dtype=torch.float64))
    strided = torch.stack([image, image], 1)[:, 0]
    assert torch.equal(field.sdf(points, condition, strided), field.sdf(points, condition, image))


def nodes(answers: list[torch.Tensor]) -> set:
    """Of the graph of the answers."""
    waiting, seen = [answer.grad_fn for answer in answers], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return seen


def test_without_a_graph_the_same_numbers() -> None:
    field = make()
    points, image = some_points((5, 0, 9, 1))
    condition = field.condition(torch.randn(4, 4, dtype=torch.float64))
    with_graph = field.sdf(points, condition, image)
    with torch.no_grad():
        torch.testing.assert_close(field.sdf(points, condition, image), with_graph)
        one = field.condition(torch.zeros(1, 4, dtype=torch.float64))
        torch.testing.assert_close(field.sdf(points, one), field.sdf(points, one, torch.zeros(15, dtype=torch.int64)))


@pytest.mark.parametrize("options", OPTIONS)
def test_without_a_graph_all_answers_are_the_same(options: dict) -> None:
    field = make(**options)
    points, image = some_points((5, 0, 9))
    condition = field.condition(torch.randn(3, field.latent_size, dtype=torch.float64))
    for name in ("sdf", "sdf_and_gradient", "rgb", "evaluate"):
        expected = getattr(field, name)(points, condition, image)
        with torch.no_grad():
            actual = getattr(field, name)(points, condition, image)
        torch.testing.assert_close(actual, expected, msg=name)


def test_gathered_film_gives_the_same_values() -> None:
    """What a GPU evaluates while it traces."""
    field = make()
    points, image = some_points((5, 0, 9))
    condition = field.condition(torch.randn(3, field.latent_size, dtype=torch.float64))
    with torch.no_grad():
        gathered = field._sdf_without_counts(points, condition, image)
        torch.testing.assert_close(gathered, field.sdf(points, condition, image))


def change_in_place(field: FilmSirenSDF) -> FilmSirenSDF:
    optimizer = torch.optim.SGD(field.parameters(), lr=0.1)
    points, image = some_points((3, 2))
    field.evaluate(points, field.condition(torch.ones(2, 4).double()), image).sdf.sum().backward()
    optimizer.step()
    return field


def replace_a_parameter(field: FilmSirenSDF) -> FilmSirenSDF:
    field.weights[1] = torch.nn.Parameter(field.weights[1].detach() * 1.1)
    return field


def load_a_state(field: FilmSirenSDF) -> FilmSirenSDF:
    field.load_state_dict({name: 1.1 * tensor for name, tensor in field.state_dict().items()})
    return field


def change_a_copy(field: FilmSirenSDF) -> FilmSirenSDF:
    return change_in_place(copy.deepcopy(field))


def average(field: FilmSirenSDF) -> FilmSirenSDF:
    other = change_in_place(copy.deepcopy(field))
    with torch.no_grad():
        torch._foreach_lerp_(list(field.parameters()), list(other.parameters()), 0.5)
    return field


def change_dtype(field: FilmSirenSDF) -> FilmSirenSDF:
    return load_a_state(field.double())


def step_fused(field: FilmSirenSDF) -> FilmSirenSDF:
    """Such optimisers do not count what they write as versions."""
    torch.manual_seed(7)
    for parameter in field.parameters():
        parameter.grad = torch.randn_like(parameter)
    torch.optim.Adam(field.parameters(), 0.05, fused=True).step()
    return field


@pytest.mark.parametrize(
    "change", [change_in_place, replace_a_parameter, load_a_state, change_a_copy, average, change_dtype, step_fused]
)
def test_packed_weights_follow_the_parameters(change) -> None:
    field = make()
    points, image = some_points((3, 2))
    latents = torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        before = field.sdf(points, field.condition(latents), image)
    field = change(field)
    expected = field.sdf(points, field.condition(latents), image)
    with torch.no_grad():
        torch.testing.assert_close(field.sdf(points, field.condition(latents), image), expected)
    assert (expected - before).abs().max() > 1e-4


def test_packing_happens_once() -> None:
    field = make()
    with torch.no_grad():
        condition = field.condition(torch.zeros(1, 4, dtype=torch.float64))
        packed = field.network(condition).hidden.data_ptr()
        assert field.network(condition).hidden.data_ptr() == packed
    with torch.inference_mode():  # what is made there cannot be saved for a gradient
        assert field.network(condition).hidden.data_ptr() != packed
    joined = field.condition(torch.zeros(1, 4, dtype=torch.float64))  # with a graph: for one backward pass
    with torch.no_grad():
        packed = field.network(joined).hidden.data_ptr()
    with_a_graph = field._for_kernels(torch.rand(1, 3, dtype=torch.float64), joined)
    assert with_a_graph is not None and with_a_graph.hidden.data_ptr() == packed and with_a_graph.hidden.requires_grad
    found = []
    for _ in range(2):  # one after the other, from the same condition without a graph
        loss = field.sdf(torch.ones(1, 3, dtype=torch.float64), condition).sum()
        found.append(torch.autograd.grad(loss, [field.weights[1], field.sdf_bias]))
    assert all(map(torch.equal, *found))


def test_a_condition_that_is_kept_sees_the_weights_of_now() -> None:
    """Fused optimisers write to weights without counting it."""
    field = FilmSirenSDF(width=32, latent_size=4)
    condition = field.condition(torch.randn(1, 4)).detach()
    points = torch.rand(50, 3)
    optimizer = torch.optim.Adam(field.parameters(), lr=0.05, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        loss = field.sdf(points, condition).square().sum()
        loss.backward()
        field.native_gradients = False
        assert loss.item() == pytest.approx(field.sdf(points, condition).square().sum().item(), rel=1e-4)
        field.native_gradients = None
        optimizer.step()


def test_second_order_gradients() -> None:
    field = make()
    points, image = some_points((2, 1))
    latents = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def gradient_of(latents: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return field.sdf_and_gradient(points, field.condition(latents), image)[1]

    assert torch.autograd.gradcheck(gradient_of, (latents, points.requires_grad_()))


def test_untrained_it_is_a_ball() -> None:
    torch.manual_seed(1)
    field = FilmSirenSDF()
    points = torch.randn(2000, 3) * 0.5
    value, gradient = field.sdf_and_gradient(points, field.condition(torch.randn(1, 64)))
    torch.testing.assert_close(value, points.norm(dim=-1) - 0.5, atol=0.15, rtol=0)
    far = points.norm(dim=-1) > 0.2
    assert (gradient.norm(dim=-1)[far] - 1).abs().mean() < 0.2


def test_the_texture_latent_changes_the_texture_alone() -> None:
    field = make(texture_latent_size=3)
    points, _ = some_points((20,))
    latents = torch.randn(1, 7, dtype=torch.float64)
    other = latents.clone()
    other[:, 4:] += 1
    a, b = (field.evaluate(points, field.condition(z)) for z in (latents, other))
    torch.testing.assert_close(a.sdf, b.sdf)
    assert (a.rgb - b.rgb).abs().mean() > 1e-3


def test_hsv() -> None:
    hues = torch.tensor([[0.0, 1, 1], [1 / 3, 1, 1], [2 / 3, 1, 1], [0.5, 1, 0.5], [0.3, 0, 0.7]])
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.5, 0.5], [0.7, 0.7, 0.7]])
    torch.testing.assert_close(hsv_to_rgb(hues), expected, atol=1e-5, rtol=0)


def test_a_palette_mixes_its_four_colours() -> None:
    field = make(color_space="palette")
    points, image = some_points((40, 30))
    condition = field.condition(torch.randn(2, 4, dtype=torch.float64))
    with torch.no_grad():
        rgb = field.rgb(points, condition, image)
        palette = condition.base_color.sigmoid()
        # All weight on one colour: each is reached, and the first where the odds of the others are nil.
        for index in range(4):
            field.texture_bias.fill_(-1e3)
            field.texture_bias[max(index - 1, 0)] = 1e3 if index else -1e3
            there = field.rgb(points, condition, image)
            torch.testing.assert_close(there, palette[image, index])
    # Colours are convex combinations: solving for the weights of the palette gives none that is negative.
    for row in range(2):
        system = torch.cat([palette[row].T, torch.ones(1, 4, dtype=torch.float64)])
        weights = torch.linalg.solve(system, torch.nn.functional.pad(rgb[image == row], (0, 1), value=1.0).T)
        assert weights.min() >= -1e-9
        assert weights.std(dim=1).min() > 1e-4, "the texture varies them"


def test_palettes_are_mixed_into_other_shapes() -> None:
    field = make(color_space="palette")
    shapes, colours = (field.condition(torch.randn(2, 4, dtype=torch.float64)) for _ in range(2))
    assert torch.equal(field.mixed(shapes, colours).base_color, colours.base_color)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="width must be at least 1"):
        FilmSirenSDF(width=0)
    with pytest.raises(ValueError, match="color_space"):
        FilmSirenSDF(color_space="cmyk")
    field = make()
    with pytest.raises(ValueError, match=r"latents must be \[B, 4\], got \[2, 3\]"):
        field.condition(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="image indices are needed"):
        field.rgb(torch.zeros(1, 3).double(), field.condition(torch.zeros(2, 4).double()))


@pytest.mark.parametrize("native", [True, False])
def test_the_variation_is_that_of_the_sdf(native: bool) -> None:
    torch.manual_seed(0)
    field = FilmSirenSDF(latent_size=4, width=32).double()
    field.native_gradients = native
    points, latents = torch.randn(50, 3).double().requires_grad_(), torch.randn(2, 4).double()
    image = torch.arange(2).repeat_interleave(25)
    leaves = [points, *field.parameters()]
    ways = (field.sdf, field.sdf_variation)
    found = [way(points, field.condition(latents), image) for way in ways]
    assert not found[1].any()
    grads = [torch.autograd.grad((f * torch.arange(50.0)).sum(), leaves, allow_unused=True) for f in found]
    for expected, own in zip(*grads, strict=True):
        assert (expected is None) == (own is None)
        assert expected is None or torch.allclose(own, expected, rtol=1e-9, atol=1e-12)
