"""Training on a GPU: that it is really used, with the kernels that were meant, and that it repeats itself.

    make test-all

Skipped where there is no GPU; what a long run there must reach are the criteria GPUTRAIN-001 to 005.
"""

import pytest
import torch
import torch.distributed as dist
from test_training_loop import CountingStream, settings
from torch.nn.attention import SDPBackend, sdpa_kernel

from sovereign.contract.model import Decoder as Shape
from sovereign.contract.training import Schedule
from sovereign.model.decoder import build
from sovereign.training.checkpoint import load, save, weights_digest
from sovereign.training.distributed import Ranks, shared_loss
from sovereign.training.loop import train
from sovereign.training.optimizer import optimizer_for
from sovereign.training.placement import placement
from sovereign.training.replay import replay

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

GPU = torch.device("cuda")
SHAPE = Shape(hidden=256, layers=2, heads=4, kv_heads=2, ffn=512, context=128)  # heads of 64, as in the 370M shape
VOCABULARY = 512


def trained(steps=6, compiled=False, folder=None, precision="bf16"):
    """Return model, optimizer and losses after some steps on the GPU, with a checkpoint at 3 if asked."""
    training = settings(steps, compile=compiled, schedule=Schedule(kind="constant", peak=1e-3), checkpoint_every=3)
    model = build(SHAPE, VOCABULARY, seed=0).to(GPU)
    optimizer = optimizer_for(model, training.optimizer)
    losses, digests = [], []

    def log(kind, **row):
        if kind == "step":
            losses.append(row["loss"])
            digests.append(weights_digest(model))

    train(
        model, optimizer, CountingStream(context=SHAPE.context), training, device=GPU, precision=precision, seed=0,
        evaluate_every=1000, log=log,
        checkpoint=lambda step: folder and save(folder, step, model, optimizer, {}, keep=9),
    )  # fmt: skip
    return training, model, optimizer, losses, digests


def test_training_takes_place_on_the_gpu():
    """CASE-09: weights and moments are on the device, its allocator has given them out, and none is on the CPU."""
    _, model, optimizer, _, _ = trained(2)
    found = {(one["what"], one["device"]): one["bytes"] for one in placement(model, optimizer)}

    assert {("weights", "cuda"), ("moments", "cuda"), ("allocated", "cuda")} == found.keys()
    assert found["allocated", "cuda"] >= found["weights", "cuda"] + found["moments", "cuda"]
    assert found["moments", "cuda"] == 2 * found["weights", "cuda"]


def test_a_compiled_step_in_bf16_runs_on_flash_attention():
    """With every other kernel forbidden, compiled steps run, learn, and follow the eager ones within bf16's rounding."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        *_, compiled, _ = trained(20, compiled=True)
    *_, eager, _ = trained(20)

    assert compiled == pytest.approx(eager, rel=0.02)
    assert compiled[-1] < compiled[0] - 0.5


def test_training_in_fp16_follows_bf16():
    """For a card without bf16: the loss is scaled, and falls as in bf16, within what the two round."""
    *_, half, _ = trained(20, precision="fp16")
    *_, brain, _ = trained(20)

    assert half == pytest.approx(brain, rel=0.02)
    assert half[-1] < half[0] - 0.5


def test_a_replay_on_the_gpu_repeats_the_losses(tmp_path):
    """From the checkpoint at 3, steps 4 to 6 come out within 1e-5; on a device that adds atomically bits may differ."""
    training, _, _, losses, _ = trained(6, folder=tmp_path)
    again = replay(
        tmp_path / "step-000003", [4, 5, 6], lambda: build(SHAPE, VOCABULARY, seed=99),
        CountingStream(context=SHAPE.context), training, device=GPU, precision="bf16", seed=0,
    )  # fmt: skip

    assert [one.loss for one in again] == pytest.approx(losses[3:], abs=1e-5)


def test_a_checkpoint_of_the_gpu_loads_on_the_cpu(tmp_path):
    """Weights have the same bits wherever they are put."""
    *_, digests = trained(3, folder=tmp_path)
    model = build(SHAPE, VOCABULARY, seed=99)
    load(tmp_path / "step-000003", model, optimizer_for(model, settings(3).optimizer))

    assert weights_digest(model) == digests[-1]


def test_gradients_through_nccl_are_the_plain_ones(tmp_path):
    """One process in a group of NCCL: what DDP leaves in the weights is what a plain backward leaves."""
    ids = torch.arange(4 * (SHAPE.context + 1), device=GPU).view(4, -1) % VOCABULARY
    plain, shared = (build(SHAPE, VOCABULARY, seed=0).to(GPU) for _ in range(2))
    plain.loss(ids[:, :-1], ids[:, 1:]).backward()
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        loss, exchanging = shared_loss(shared, Ranks(0, 2))
        with exchanging(True):
            loss(ids[:, :-1], ids[:, 1:]).backward()
    finally:
        dist.destroy_process_group()

    for one, other in zip(plain.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)
