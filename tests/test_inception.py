"""The Inception network: its shapes, its layers, and the files it takes its weights from. (No weights are at hand.)"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdfgan.errors import UserError
from sdfgan.inception import Inception, MixedA, find_weights, load_inception
from sdfgan.training.weights import load_weights


@pytest.fixture(scope="module")
def network() -> Inception:
    torch.manual_seed(0)
    return Inception()


def test_features(network: Inception) -> None:
    pictures = torch.rand(2, 3, 32, 32)
    features = network(pictures)
    assert features.shape == (2, 2048) and features.isfinite().all() and not torch.allclose(features[0], features[1])
    assert sum(p.numel() for p in network.parameters()) == 21_785_568  # without the classifier
    pictures.requires_grad_()
    early = network.early(pictures)
    assert early.shape == (2, 192, 35, 35)
    early.sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0


def test_pooling_leaves_out_padding() -> None:
    """The mean at the border is over what is there: a block gives the same everywhere for the same everywhere."""
    pooled = MixedA(4, 64).eval()(torch.ones(1, 4, 5, 5))[:, -64:]  # the last of its branches
    torch.testing.assert_close(pooled, pooled[:, :, 2:3, 2:3].expand_as(pooled))
    assert pooled.abs().sum() > 0


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file(network: Inception, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"inception{suffix}"
    state = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    state["fc.weight"] = torch.zeros(1008, 2048)
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = load_inception(path)
    assert not loaded.training and all(
        torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items() if name in state
    )


def test_bad_weights_are_named(network: Inception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path))
    monkeypatch.delenv("SDFGAN_INCEPTION", raising=False)
    assert find_weights(None) is None
    with pytest.raises(UserError, match=r"nowhere: no such file; put pt_inception.* --inception"):
        find_weights(tmp_path / "nowhere")
    state = network.state_dict()
    for name, change, message in (
        ("short", lambda s: s.pop("Mixed_7c.branch1x1.conv.weight"), "Mixed_7c.branch1x1.conv.weight is missing"),
        (
            "shape",
            lambda s: s.update({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}),
            "Conv2d_1a_3x3.conv.weight must be",
        ),
        ("other", lambda s: s.update({"AuxLogits.fc.weight": torch.zeros(1)}), "another Inception"),
    ):
        changed = dict(state)
        change(changed)
        save_file({k: v.clone() for k, v in changed.items()}, tmp_path / f"{name}.safetensors")
        with pytest.raises(UserError, match=message):
            load_inception(tmp_path / f"{name}.safetensors")
    save_file(dict(state), tmp_path / "inception-fid.safetensors")
    assert find_weights(None) == tmp_path / "inception-fid.safetensors"


class Evil:
    """What a hostile file would run."""

    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('ran')",))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth: holds pickled objects, which are never loaded"):
        load_weights(tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("text")
    (tmp_path / "text.safetensors").write_text("text")
    torch.save({"step": 3}, tmp_path / "empty.pth")
    for name, message in (
        ("text.pth", "not a file of weights: expected .safetensors, or what torch"),
        ("text.safetensors", "not a readable"),
        ("empty.pth", "no tensors in it"),
    ):
        with pytest.raises(UserError, match=f"{name}: .*{message}"):
            load_weights(tmp_path / name)
    torch.save({"gen": {"a": torch.ones(2)}, "b": torch.zeros(1)}, tmp_path / "nested.pth")
    assert set(load_weights(tmp_path / "nested.pth")) == {"gen.a", "b"}
