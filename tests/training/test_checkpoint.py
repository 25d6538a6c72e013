"""Checkpoints: whole or not at all, exact, and refused with one line when they are not what they should be."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from sdfgan.errors import UserError
from sdfgan.training import checkpoint as ckpt
from sdfgan.training.files import atomic_file, atomic_folder


def some_tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.randn(3, 4), "b": torch.arange(5)}


def test_round_trip(tmp_path: Path) -> None:
    tensors = some_tensors()
    folder = ckpt.save_checkpoint(tmp_path, 12, tensors, {"kind": "test"})
    assert folder == tmp_path / "checkpoints" / "step-0000012"
    loaded, state = ckpt.load_checkpoint(ckpt.resolve_checkpoint(tmp_path))
    assert state["step"] == 12 and state["kind"] == "test"
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[k], tensors[k]) for k in tensors)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        ckpt.save_checkpoint(tmp_path, step, some_tensors(), {}, keep=2)
    assert [path.name for path in ckpt.list_checkpoints(tmp_path)] == ["step-0000015", "step-0000020"]


def test_module_optimizer_and_generator_continue_exactly(tmp_path: Path) -> None:
    def fresh() -> tuple[torch.nn.Linear, torch.optim.Adam, torch.Generator]:
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        return module, torch.optim.Adam(module.parameters(), 1e-2), torch.Generator().manual_seed(1)

    def train(module, optimizer, random, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            module(torch.randn(4, 3, generator=random)).square().sum().backward()
            optimizer.step()

    straight = fresh()
    train(*straight, steps=6)
    half = fresh()
    train(*half, steps=3)
    module, optimizer, random = half
    tensors = {
        **ckpt.pack_module(module, "m"),
        **ckpt.pack_optimizer(optimizer, "o"),
        **ckpt.pack_generator_state(random, "r"),
    }
    loaded, _ = ckpt.load_checkpoint(ckpt.save_checkpoint(tmp_path, 3, tensors, {}))
    module, optimizer, random = fresh()
    ckpt.unpack_module(module, loaded, "m", tmp_path)
    ckpt.unpack_optimizer(optimizer, loaded, "o", tmp_path)
    ckpt.unpack_generator_state(random, loaded, "r", tmp_path)
    train(module, optimizer, random, steps=3)
    assert torch.equal(module.weight, straight[0].weight)


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing", "state", "foreign"])
def test_a_bad_checkpoint_is_named_and_an_earlier_one_offered(tmp_path: Path, damage: str) -> None:
    ckpt.save_checkpoint(tmp_path, 1, some_tensors(), {})
    folder = ckpt.save_checkpoint(tmp_path, 2, some_tensors(), {})
    tensors, state = folder / "tensors.safetensors", folder / "state.json"
    content = tensors.read_bytes()
    if damage == "truncate":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        tensors.unlink()
    elif damage == "state":
        state.write_text('{"format": 1, "st')
    else:
        state.write_text(json.dumps({"weights": [1, 2]}))
    with pytest.raises(UserError, match=r"another checkpoint is .*step-0000001") as caught:
        ckpt.load_checkpoint(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run or checkpoint"):
        ckpt.resolve_checkpoint(tmp_path / "nowhere")
    for name, advised in (("theirs.pth", True), ("theirs.safetensors", True), ("notes.txt", False)):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match="a file, expected a run folder") as refused:
            ckpt.resolve_checkpoint(tmp_path / name)
        assert ("import-weights" in str(refused.value)) is advised
    with pytest.raises(UserError, match="expected a run folder with checkpoints/"):
        ckpt.resolve_checkpoint(tmp_path)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    tensors = {"m.weight": torch.zeros(2, 3), "m.bias": torch.tensor([0.0, float("inf")])}
    with pytest.raises(UserError, match=r"tensor m.bias has values that are not finite"):
        ckpt.unpack_module(module, tensors, "m", tmp_path)
    with pytest.raises(UserError, match=r"tensor m.bias is missing"):
        ckpt.unpack_module(module, {"m.weight": torch.zeros(2, 3)}, "m", tmp_path)
    with pytest.raises(UserError, match=r"tensor m.bias must be \[2\], got \[3\]"):
        ckpt.unpack_module(module, {"m.weight": torch.zeros(2, 3), "m.bias": torch.zeros(3)}, "m", tmp_path)
    with pytest.raises(UserError, match=r"r\.state is not the state of a random generator"):
        ckpt.unpack_generator_state(torch.Generator(), {"r.state": torch.zeros(3)}, "r", tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first = ckpt.save_checkpoint(tmp_path, 1, some_tensors(), {})

    def full(*args: object) -> None:
        raise error

    monkeypatch.setattr(ckpt, "save_file", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        ckpt.save_checkpoint(tmp_path, 2, some_tensors(), {}, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000001"]
    ckpt.load_checkpoint(first)


def test_partial_folders_are_not_checkpoints_and_are_cleared(tmp_path: Path) -> None:
    ckpt.save_checkpoint(tmp_path, 1, some_tensors(), {})
    (tmp_path / "checkpoints" / "step-0000002.partial").mkdir()
    assert len(ckpt.list_checkpoints(tmp_path)) == 1
    ckpt.remove_partial(tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_files_and_folders_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "b") as partial:
        (partial / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):  # which replaces the first
        with atomic_folder(tmp_path / "c") as partial:
            (partial / text).write_text(text)
    assert [path.name for path in tmp_path.rglob("*")] == ["c", "second"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), atomic_file(tmp_path / "file" / "a.txt") as partial:
        partial.write_text("never")
