"""Devices and precisions: what was asked for, or an error that says what is there."""

import pytest
import torch

from sovereign.training.device import Unavailable, choose_device, choose_precision, keep_freed_memory

CPU = torch.device("cpu")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")


def test_auto_is_the_gpu_if_there_is_one():
    """`auto` never asks for what is absent; `cpu` is always the CPU."""
    expected = torch.device("cuda:0") if torch.cuda.is_available() else CPU

    assert choose_device("auto") == expected
    assert choose_device("cpu") == CPU


@without_gpu
@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:3"])
def test_an_absent_gpu_is_an_error(asked):
    """CASE-09: asking for a GPU where none is never becomes a run on the CPU."""
    with pytest.raises(Unavailable, match=r"no GPU is visible .* use cpu or auto"):
        choose_device(asked)


@pytest.mark.parametrize("asked", ["gpu", "cuda:x", "cuda:", "", "cpu:0"])
def test_an_unknown_device_is_an_error(asked):
    """The error lists what may be written."""
    with pytest.raises(Unavailable, match="expected auto, cpu, cuda or cuda:N"):
        choose_device(asked)


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_follows_the_hardware(fast, expected, monkeypatch):
    """bf16 where the CPU multiplies it, fp32 elsewhere, each with its reason; emulated bf16 is refused."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    precision, why = choose_precision("auto", CPU)

    assert precision == expected
    assert "bf16" in why
    assert choose_precision("fp32", CPU) == ("fp32", "asked for")
    if fast:
        assert choose_precision("bf16", CPU) == ("bf16", "asked for")
    else:
        with pytest.raises(Unavailable, match="no bf16 instructions"):
            choose_precision("bf16", CPU)


@pytest.mark.parametrize(
    ("name", "capability", "fast"), [("H100", (9, 0), "bf16"), ("T4", (7, 5), "fp16"), ("P100", (6, 0), "fp32")]
)
def test_a_gpu_without_bf16_multiplies_fp16(name, capability, fast, monkeypatch):
    """`auto` is what the card's units multiply; bf16 on a T4 is refused with what it has, and fp32 stays to be had."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda:0")

    assert choose_precision("auto", gpu)[0] == fast
    assert choose_precision("fp32", gpu) == ("fp32", "asked for")
    assert choose_precision("fp16", gpu) == ("fp16", "asked for")
    if fast != "bf16":
        offered = "use fp16, fp32 or auto" if fast == "fp16" else "use fp32 or auto"
        with pytest.raises(Unavailable, match=f"{name} has compute capability .* bf16 needs 8.0, fp16 7.0; {offered}"):
            choose_precision("bf16", gpu)


def test_fp16_may_be_tried_on_a_cpu():
    """What is meant for a GPU runs here too, and its reason says that it is slow."""
    assert choose_precision("fp16", CPU) == ("fp16", "asked for; a CPU multiplies it slowly")


def test_the_allocator_may_be_told_twice():
    """Keeping freed memory is idempotent, and says whether it took."""
    assert keep_freed_memory() == keep_freed_memory()
