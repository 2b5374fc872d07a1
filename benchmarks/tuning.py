"""Tokens a second of tuning beside PEFT and `transformers.Trainer`: every weight, adapters, adapters on four bits.

    python benchmarks/tuning.py [--rounds N] [--steps N] [--method full|lora|qlora]

Same shape, examples, order of magnitude of lengths, batch, precision and threads; every round runs each of them once,
one after another in this process, so that a noisy machine is noisy for all. What is reported is the ratio of a round,
its median over rounds with a bootstrap interval, and the peak memory of each in a process of its own.

Trainer is as a user would configure it: `LlamaForCausalLM`, `get_peft_model`, for four bits a `BitsAndBytesConfig` (NF4,
double quantization) and `prepare_model_for_kbit_training`, `DataCollatorForSeq2Seq`, bf16 where we use bf16,
`adamw_torch_fused`, clipping, no evaluation, no saving, no progress bar, nothing reported. Ours is the loop as shipped,
with a log that writes every row, and it measures the movement of the weights every fifty steps as a run does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sovereign.contract.method import Adapter
from sovereign.contract.model import Decoder as Shape
from sovereign.contract.training import Adamw, Schedule, Training
from sovereign.corpus.examples import IGNORED, Encoded, ExampleStream
from sovereign.model import adapters
from sovereign.model.decoder import build, hf_config
from sovereign.quantization import nf4
from sovereign.training.device import choose_device, choose_precision
from sovereign.training.loop import train
from sovereign.training.memory import peak_bytes
from sovereign.training.optimizer import optimizer_for

SHAPE = Shape(hidden=256, layers=4, heads=8, kv_heads=4, ffn=768, context=256)
VOCABULARY, EXAMPLES, SEQUENCES, RATE = 4096, 1200, 8, 2e-4
ADAPTER = Adapter(rank=8, alpha=16.0, dropout=0.0, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
METHODS = ("full", "lora", "qlora")
Round = Callable[[int], list[float]]  # steps -> the moment each of them ended


def examples() -> list[Encoded]:
    """Return examples as long as signatures with their docstrings are: 16 to 128 tokens, a third of them given."""
    draw, found = np.random.default_rng(0), []
    weights = 1 / np.arange(1, VOCABULARY + 1)
    for number in range(EXAMPLES):
        length = int(np.clip(draw.lognormal(3.8, 0.5), 16, 128))
        ids = draw.choice(VOCABULARY, length + 1, p=weights / weights.sum()).astype(np.int64)
        targets = np.where(np.arange(length) < length // 3, IGNORED, ids[1:])
        found.append(Encoded(f"{number:016x}", ids[:-1], targets))
    return found


SOME = examples()
TOKENS = SEQUENCES * sum(len(one.inputs) for one in SOME) / len(SOME)  # of a step, in the mean: padding is not counted


def ours(method: str, device: torch.device, bf16: bool) -> Round:
    """Return a round of our loop as shipped."""
    model: Any = build(SHAPE, VOCABULARY, seed=0)
    if method == "qlora":
        nf4.quantize(model, adapters.layer_matrices(model), double=True)
    if method != "full":
        adapters.attach(model, ADAPTER, seed=0)
    model = model.to(device)
    settings = Training(
        steps=100_000, sequences=SEQUENCES, optimizer=Adamw(beta2=0.999, weight_decay=0.0), wrap_around=True, most_passes=1e6,
        schedule=Schedule(kind="constant", peak=RATE),
    )  # fmt: skip
    stream = ExampleStream(SOME, SEQUENCES, 0, wrap_around=True, most_passes=1e6)
    optimizer, rows, done = optimizer_for(model, settings.optimizer), tempfile.TemporaryFile("w"), 0  # noqa: SIM115

    def log(kind: str, **row: Any) -> None:
        rows.write(json.dumps({"run": "benchmark", "kind": kind, **row}) + "\n")
        rows.flush()

    def some(steps: int) -> list[float]:
        nonlocal done
        ends: list[float] = []
        train(
            model, optimizer, stream, settings, device=device, precision="bf16" if bf16 else "fp32", seed=0,
            evaluate_every=10**9, log=log, progress=lambda *_: ends.append(time.perf_counter()), done=done, until=done + steps,
        )  # fmt: skip
        done += steps
        return ends

    return some


def theirs(method: str, device: torch.device, bf16: bool) -> Round:
    """Return a round of PEFT and `transformers.Trainer`."""
    import transformers
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**hf_config(SHAPE, VOCABULARY)))
    if method == "qlora":
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            model.save_pretrained(place)
            model = transformers.LlamaForCausalLM.from_pretrained(
                place, quantization_config=config, device_map={"": str(device)}
            )
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if method != "full":
        lora = LoraConfig(
            r=ADAPTER.rank, lora_alpha=int(ADAPTER.alpha), target_modules=list(ADAPTER.targets), task_type="CAUSAL_LM"
        )  # fmt: skip
        model = get_peft_model(model, lora)
    given = [{"input_ids": one.inputs.tolist(), "labels": one.targets.tolist()} for one in SOME]
    ends: list[float] = []

    class Ends(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class Padded:
        """What DataCollatorForSeq2Seq makes of a batch, without a tokenizer."""

        def __call__(self, some: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
            longest = max(len(one["input_ids"]) for one in some)

            def filled(key: str, value: int) -> torch.Tensor:
                return torch.tensor([one[key] + [value] * (longest - len(one[key])) for one in some])

            mask = [[1] * len(one["input_ids"]) + [0] * (longest - len(one["input_ids"])) for one in some]
            return {
                "input_ids": filled("input_ids", 0), "labels": filled("labels", IGNORED), "attention_mask": torch.tensor(mask)
            }  # fmt: skip

    def some(steps: int) -> list[float]:
        ends.clear()
        arguments = transformers.TrainingArguments(
            output_dir=tempfile.gettempdir(), per_device_train_batch_size=SEQUENCES, max_steps=steps, bf16=bf16,
            optim="adamw_torch_fused", learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0,
            use_cpu=device.type == "cpu", logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, seed=0,
        )  # fmt: skip
        transformers.Trainer(model, arguments, train_dataset=given, data_collator=Padded(), callbacks=[Ends()]).train()
        return list(ends)

    return some


LOOPS = {"ours": ours, "trainer": theirs}


def rate(ends: list[float]) -> float:
    """Return tokens a second between the end of the first step and the end of the last."""
    return (len(ends) - 1) * TOKENS / (ends[-1] - ends[0])


def compare(method: str, rounds: int, steps: int, device: torch.device, bf16: bool) -> None:
    """Print rates and ratios over alternating rounds."""
    loops = {name: loop(method, device, bf16) for name, loop in LOOPS.items()}
    for loop in loops.values():
        loop(max(8, steps // 2))  # kernels for the lengths that come
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for index in range(rounds):
        for name in list(loops) if index % 2 == 0 else list(reversed(loops)):
            rates[name].append(rate(loops[name](steps)))
    for name, values in rates.items():
        print(
            f"{method:6} {name:8} {statistics.median(values):8,.0f} tokens/s  ({min(values):,.0f} to {max(values):,.0f})"
        )
    ratios = np.array(rates["ours"]) / np.array(rates["trainer"])
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    print(f"{method:6} ours / trainer: {np.median(ratios):.2f}  [{low:.2f}, {high:.2f}]", flush=True)


def alone(name: str, method: str, steps: int) -> None:
    """Print, as JSON, the peak memory of one loop in this process, and what it was before training."""
    import peft
    import transformers  # the cost of importing a peer is not its cost of training

    assert transformers.Trainer
    assert peft.get_peft_model
    if method == "qlora":
        import bitsandbytes

        assert bitsandbytes
    device = choose_device("auto")
    before = peak_bytes()
    LOOPS[name](method, device, choose_precision("auto", device)[0] == "bf16")(steps)
    print(json.dumps({"peak_mib": peak_bytes() / 2**20, "grown_mib": (peak_bytes() - before) / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25, help="in a round")
    parser.add_argument("--method", choices=METHODS, help="one of them alone")
    parser.add_argument("--alone", choices=LOOPS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        return alone(asked.alone, asked.method, asked.steps)

    device = choose_device("auto")
    precision, why = choose_precision("auto", device)
    print(f"{device}, {torch.get_num_threads()} threads, {precision} ({why}), torch {torch.__version__}")
    for method in [asked.method] if asked.method else METHODS:
        compare(method, asked.rounds, asked.steps, device, precision == "bf16")
        for name in LOOPS:
            command = [
                sys.executable, str(Path(__file__)), "--alone", name, "--method", method, "--steps", str(4 * asked.steps)
            ]  # fmt: skip
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            told = json.loads(said)
            print(
                f"{method:6} {name:8} peak memory {told['peak_mib']:,.0f} MiB ({told['grown_mib']:,.0f} above the imports)",
                flush=True,
            )
    return None


if __name__ == "__main__":
    main()
