"""The plan's figures: held to what the run then measures, and to independent counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import sovereign
from test_run_distributed import repository
from torch.utils.flop_counter import FlopCounterMode

from sovereign.contract.model import Decoder as Shape
from sovereign.contract.training import Adamw8bit, Muon, Schedule, Training
from sovereign.model.decoder import build
from sovereign.training import memory
from sovereign.training.memory import Taken, expected_peak, forget_peak, peak_bytes, taken

CPU = torch.device("cpu")
SMALL = {"hidden": 256, "layers": 4, "heads": 8, "kv_heads": 4, "ffn": 768, "context": 256}
LARGE = {"hidden": 512, "layers": 6, "heads": 8, "kv_heads": 4, "ffn": 1536, "context": 512}
CASES: list[tuple[dict[str, int], int, str, dict[str, Any]]] = [
    (SMALL, 4096, "fp32", {"sequences": 8}),
    (SMALL, 4096, "fp32", {"sequences": 32, "micro_batch": 8}),
    (SMALL, 4096, "fp32", {"sequences": 8, "activation_checkpointing": True}),
    (SMALL, 4096, "bf16", {"sequences": 8}),
    (SMALL, 4096, "bf16", {"sequences": 32}),
    (SMALL, 4096, "bf16", {"sequences": 8, "compile": True}),
    (LARGE, 8192, "fp32", {"sequences": 4}),
    (LARGE, 8192, "bf16", {"sequences": 4}),
    (LARGE, 8192, "fp32", {"sequences": 2, "optimizer": {"kind": "muon"}}),
]


def training(asked: dict[str, Any]) -> Training:
    values = {"steps": 10, "schedule": {"kind": "constant", "peak": 1e-3}, **asked}
    return Training.model_validate_json(json.dumps(values))


def measure(shape: dict[str, int], vocabulary: int, precision: Any, asked: dict[str, Any]) -> None:
    """Print the predicted and the measured peak of this process while it trains."""
    import numpy as np
    from test_training_loop import Windows

    from sovereign.training.loop import train
    from sovereign.training.optimizer import optimizer_for

    settings, form = training(asked), Shape(**shape)

    class Drawn:
        def batch(self, step: int, rank: int = 0, world: int = 1) -> Windows:
            drawn = np.random.default_rng(step).integers(0, vocabulary, (settings.sequences, form.context + 1))
            return Windows(drawn, np.arange(len(drawn)) + step)

    needed = taken(lambda: build(form, vocabulary, 0), settings, settings.sequences, form.context, precision, "cpu")
    predicted = expected_peak(needed)
    forget_peak(CPU)
    model = build(form, vocabulary, 0)
    train(
        model, optimizer_for(model, settings.optimizer), Drawn(), settings, device=CPU, precision=precision, seed=0,
        evaluate_every=99, log=lambda *_, **__: None, until=3,
    )  # fmt: skip
    print(json.dumps([predicted, peak_bytes()]))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_predicted_peak_is_the_measured_one(case: Any) -> None:
    """Within 15 %, for small and large shapes, both precisions, micro-batches, recomputation and Muon."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_plan import measure; measure(*{case!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    predicted, measured = json.loads(ran.stdout)

    assert predicted == pytest.approx(measured, rel=0.15)


def test_what_takes_memory_is_counted() -> None:
    """State, activations, their recomputation and micro-batches each move the prediction as they must."""

    def tensors(**asked: Any) -> int:
        return taken(lambda: build(form, 512, 0), training(asked), asked["sequences"], 64, "fp32", "cpu").tensors

    form = Shape(hidden=64, layers=4, heads=4, kv_heads=2, ffn=128, context=64)
    state = form.parameters(512) * 16
    plain = tensors(sequences=16)

    assert plain > state
    assert tensors(sequences=32) - state == pytest.approx(2 * (plain - state), rel=0.25)
    assert tensors(sequences=16, micro_batch=4) < 0.6 * plain
    assert tensors(sequences=16, activation_checkpointing=True) < 0.6 * plain


def test_what_attention_takes_inside_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One operation to torch, in bf16 it multiplies blocks; taken for a single step its products would not be seen."""

    def found() -> Taken:
        asked = training({"sequences": 4})
        return taken(lambda: build(form, 512, 0), asked, 4, 192, "bf16", "cpu")

    form = Shape(hidden=64, layers=2, heads=4, kv_heads=2, ffn=128, context=192)
    inside = found()
    monkeypatch.setattr(memory, "WRITTEN_OUT", {})
    outside = found()

    assert inside.products >= outside.products + 3 * 4  # of three blocks one product forward, four back, some alike
    assert inside.tensors >= outside.tensors


def test_two_kinds_of_moments_are_smaller() -> None:
    """Muon keeps one moment of a matrix, 8-bit AdamW two bytes a weight."""
    form = Shape(hidden=128, layers=2, heads=4, kv_heads=2, ffn=256, context=16)
    schedule = Schedule(kind="constant", peak=1e-3)

    def tensors(optimizer: Any = None) -> int:
        more = {"optimizer": optimizer} if optimizer else {}
        settings = Training(steps=2, sequences=1, schedule=schedule, **more)
        return taken(lambda: build(form, 64, 0), settings, 1, 16, "fp32", "cpu").tensors

    assert tensors(Adamw8bit(kind="adamw8bit")) < tensors(Muon(kind="muon")) < tensors()


def test_operations_are_those_that_torch_counts() -> None:
    """The contract's count a token agrees with torch's own counter over a training step, to a hundredth."""
    form = Shape(hidden=64, layers=3, heads=4, kv_heads=4, ffn=128, context=64)
    model = build(form, 512, 0)
    ids = torch.zeros(4, 65, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model.loss(ids[:, :-1], ids[:, 1:]).backward()

    assert counter.get_total_flops() == pytest.approx(form.flops_per_token(512) * 4 * 64, rel=0.01)


def test_the_plan_says_all_of_it(tmp_path: Path) -> None:
    """Sizes, memory, time, utilisation, every setting with its default, as a table and as JSON; no evidence is written."""
    root = repository(tmp_path)
    asked = ["plan", "--contract", str(root / "contracts/toy.yaml"), "--device", "cpu"]
    found = json.loads(sovereign(root, *asked, "--json").stdout)
    shown = sovereign(root, *asked).stdout
    quick = json.loads(sovereign(root, *asked, "--json", "--no-calibrate").stdout)

    assert found["parameters"] == 16 * 300 + 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 32 + 3 * 16
    assert found["target tokens"] == 10 * 2 * 32
    assert found["most exposures of a window"] == 1
    assert found["peak memory of a process, MiB"] > found["all tensors of training at once, MiB"] > 0
    assert found["estimated seconds, evaluations included"] >= 0
    assert 0 < found["model FLOPs utilisation"] < 1
    assert found["effective"]["training"]["early_stopping"] is None
    assert found["effective"]["training"]["optimizer"]["beta2"] == 0.95
    assert "training.optimizer.beta2  0.95" in shown
    assert "training.early_stopping  null" in shown
    assert set(found) - set(quick) == {
        "seconds a step, measured eager in one process", "tokens a second", "matrix peak, GFLOP/s",
        "model FLOPs utilisation", "estimated seconds, evaluations included",
    }  # fmt: skip
    assert not (root / "evidence").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["training.early_stopping={}"], "early_stopping compares documents, and"),
        (["training.early_stopping={}", "evaluation.every=6"], "do not meet checkpoints every 4"),
        (["training.optimizer={kind: adamw8bit}", "training.distributed=fsdp"], "use ddp, or adamw"),
    ],
)
def test_what_cannot_be_done_is_refused(more: list[str], message: str, tmp_path: Path) -> None:
    """Each refusal says what does not fit, with the numbers."""
    root = repository(tmp_path)
    settings = [word for one in more for word in ("--set", one)]
    refused = sovereign(root, "plan", "--contract", str(root / "contracts/toy.yaml"), "--no-calibrate", *settings)

    assert refused.returncode in (3, 7)
    assert message in refused.stderr
