"""Tokens a second of our loop beside `transformers.Trainer` and a plain hand-written loop.

    python benchmarks/training.py [--quick] [--compiled | --only-compiled] [--shape 5m|25m|124m|370m]
                                  [--precision auto|bf16|fp32] [--rounds N] [--steps N]

Same shape, batch, data, precision and threads. Each stands in a process of its own, so that none trains with what another
has set, as ours sets how the allocator keeps memory; every round runs each of them once, one after another, so that a
noisy machine is noisy for all. What is reported is the ratio of a round, its median over rounds
and its extremes. A round's time runs from the end of its first step to the end of its last: data,
optimizer, clipping and our log are inside, start-up is not: it is reported apart, with peak memory.

Trainer is as a user would configure it: `LlamaForCausalLM`, bf16 where we use bf16, `adamw_torch_fused`, cosine
schedule, gradient clipping, pre-tokenised windows, no evaluation, no saving, no progress bar, nothing reported.
The plain loop is of the nanoGPT kind, with a model written in the plainest torch.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sovereign.contract.model import Decoder as Shape
from sovereign.contract.training import Schedule, Training
from sovereign.model.decoder import build, hf_config, rotation_table
from sovereign.training.device import choose_device, choose_precision
from sovereign.training.evaluation import evaluate
from sovereign.training.loop import train
from sovereign.training.optimizer import optimizer_for
from sovereign.training.sampling import sample

Asked = Literal["auto", "bf16", "fp32"]
Round = Callable[[int], list[float]]  # steps -> the moment each of them ended


class RandomStream:
    """Windows of tokens as unevenly frequent as words are (Zipf), so that losses fall as they do on text."""

    def __init__(self, context: int, vocabulary: int, sequences: int) -> None:
        self.sequences = sequences
        weights = 1 / np.arange(1, vocabulary + 1)
        ids = np.random.default_rng(0).choice(vocabulary, 2_000_000, p=weights / weights.sum()).astype(np.uint16)
        self.windows = ids[: len(ids) // (context + 1) * (context + 1)].reshape(-1, context + 1)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> SimpleNamespace:
        which = (np.arange(self.sequences) + step * self.sequences) % len(self.windows)
        ids = self.windows[which].astype(np.int64)
        return SimpleNamespace(inputs=ids[:, :-1], targets=ids[:, 1:], windows=which, passed=0)


@dataclass(frozen=True)
class Case:
    """What all loops train: a shape, on so many sequences a step."""

    shape: Shape
    vocabulary: int
    sequences: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.shape.context

    @cached_property
    def stream(self) -> RandomStream:
        return RandomStream(self.shape.context, self.vocabulary, self.sequences)


CASES = {
    "5m": Case(Shape(hidden=256, layers=4, heads=8, kv_heads=4, ffn=768, context=256), 4096, 8),
    "25m": Case(Shape(hidden=512, layers=7, heads=8, kv_heads=4, ffn=1536, context=256), 8192, 8),
    "124m": Case(Shape(hidden=768, layers=12, heads=12, kv_heads=12, ffn=2048, context=1024), 50257, 16),
    "370m": Case(Shape(hidden=1024, layers=24, heads=16, kv_heads=4, ffn=2816, context=2048), 32768, 8),
}


def settings(case: Case, steps: int, compiled: bool) -> Training:
    schedule = Schedule(kind="cosine", peak=1e-3, floor=1e-4, warmup=10)
    return Training(steps=steps, sequences=case.sequences, schedule=schedule, compile=compiled)


def ours(case: Case, device: torch.device, bf16: bool, compiled: bool) -> Round:
    """Return a round of our loop as shipped, with a log that writes every row as a run does."""
    model = build(case.shape, case.vocabulary, seed=0).to(device)
    rows = tempfile.TemporaryFile("w")  # noqa: SIM115 (open as long as the loop is)

    def log(kind: str, **row: Any) -> None:
        rows.write(json.dumps({"run": "benchmark", "kind": kind, **row}) + "\n")
        rows.flush()

    training = settings(case, 100_000, compiled)
    optimizer = optimizer_for(model, training.optimizer)
    done = 0

    def some(steps: int) -> list[float]:
        nonlocal done
        ends: list[float] = []
        train(
            model,
            optimizer,
            case.stream,
            training,
            device=device,
            precision="bf16" if bf16 else "fp32",
            seed=0,
            evaluate_every=10**9,
            log=log,
            progress=lambda *_: ends.append(time.perf_counter()),
            done=done,
            until=done + steps,
        )
        done += steps
        return ends

    return some


def trainer(case: Case, device: torch.device, bf16: bool, compiled: bool) -> Round:
    """Return a round of `transformers.Trainer`."""
    import transformers

    transformers.utils.logging.set_verbosity_error()

    class Windows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(case.stream.windows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            ids = torch.from_numpy(case.stream.windows[index, :-1].astype(np.int64))
            return {"input_ids": ids, "labels": ids}

    class Ends(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    ends: list[float] = []
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**hf_config(case.shape, case.vocabulary)))

    def some(steps: int) -> list[float]:
        ends.clear()
        arguments = transformers.TrainingArguments(
            output_dir=tempfile.gettempdir(),
            per_device_train_batch_size=case.sequences,
            max_steps=steps,
            bf16=bf16,
            optim="adamw_torch_fused",
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            weight_decay=0.1,
            max_grad_norm=1.0,
            torch_compile=compiled,
            use_cpu=device.type == "cpu",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=0,
        )
        transformers.Trainer(model, arguments, train_dataset=Windows(), callbacks=[Ends()]).train()
        return list(ends)

    return some


class PlainDecoder(nn.Module):
    """The same network in the plainest torch: nn.Linear, SDPA, all logits, F.cross_entropy."""

    def __init__(self, shape: Shape, vocabulary: int) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        h, kv = shape.hidden, shape.kv_heads * shape.head_dim

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False)

        self.embed = nn.Embedding(vocabulary, h)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.RMSNorm(h, shape.norm_epsilon),
                    "q": linear(h, h),
                    "k": linear(h, kv),
                    "v": linear(h, kv),
                    "o": linear(h, h),
                    "norm2": nn.RMSNorm(h, shape.norm_epsilon),
                    "gate": linear(h, shape.ffn),
                    "up": linear(h, shape.ffn),
                    "down": linear(shape.ffn, h),
                }
            )
            for _ in range(shape.layers)
        )
        self.norm = nn.RMSNorm(h, shape.norm_epsilon)
        self.head = linear(h, vocabulary)
        self.head.weight = self.embed.weight
        nn.init.normal_(self.embed.weight, std=0.02)
        cos, sin = rotation_table(shape, shape.context)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat((first * self.cos - second * self.sin, second * self.cos + first * self.sin), -1).to(x.dtype)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        b, t = ids.shape
        x = self.embed(ids)
        for layer in self.layers:
            y = layer["norm1"](x)
            q, k, v = (layer[name](y).view(b, t, -1, self.head_dim).transpose(1, 2) for name in "qkv")
            y = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v, is_causal=True, enable_gqa=True)
            x = x + layer["o"](y.transpose(1, 2).reshape(b, t, -1))
            y = layer["norm2"](x)
            x = x + layer["down"](F.silu(layer["gate"](y)) * layer["up"](y))
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())


def plain(case: Case, device: torch.device, bf16: bool, compiled: bool) -> Round:
    """Return a round of a plain training loop, as one writes it by hand."""
    torch.manual_seed(0)
    model: Any = PlainDecoder(case.shape, case.vocabulary).to(device)
    matrices, gains = ([p for p in model.parameters() if (p.dim() > 1) == is_matrix] for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    if compiled:
        model = torch.compile(model)
    done = 0

    def some(steps: int) -> list[float]:
        nonlocal done
        ends = []
        for step in range(done, done + steps):
            for group in optimizer.param_groups:
                group["lr"] = 1e-4 + 9e-4 * 0.5 * (1 + math.cos(math.pi * step / 100_000))
            batch = case.stream.batch(step)
            inputs, targets = torch.from_numpy(batch.inputs).to(device), torch.from_numpy(batch.targets).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = model(inputs, targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
            ends.append(time.perf_counter())
        done += steps
        return ends

    return some


LOOPS = {"ours": ours, "trainer": trainer, "plain": plain}


def rate(ends: list[float], tokens: int) -> float:
    """Return tokens a second between the end of the first step and the end of the last."""
    return (len(ends) - 1) * tokens / (ends[-1] - ends[0])


@contextmanager
def apart(name: str, shape: str, compiled: bool, bf16: bool) -> Iterator[Round]:
    """Yield a round of a loop that stands in a process of its own, which waits while it is not asked."""
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=serve, args=(there, name, shape, compiled, bf16), daemon=True)
    process.start()
    there.close()  # so that a process that dies is an end of file, not silence

    def some(steps: int) -> list[float]:
        here.send(steps)
        return here.recv()

    yield some
    here.send(None)
    process.join()


def serve(asked: Connection, name: str, shape: str, compiled: bool, bf16: bool) -> None:
    """Send the ends of so many steps as are asked for, until None is."""
    some = LOOPS[name](CASES[shape], choose_device("auto"), bf16, compiled)
    for steps in iter(asked.recv, None):
        asked.send(some(steps))


def alternating(loops: dict[str, Round], rounds: int, steps: int, tokens: int) -> dict[str, list[float]]:
    """Return the rate of each loop in each round, after a few steps that warm it up."""
    for loop in loops.values():
        loop(4)
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for index in range(rounds):
        order = list(loops) if index % 2 == 0 else list(reversed(loops))
        for name in order:
            rates[name].append(rate(loops[name](steps), tokens))
    return rates


def compare(shape: str, compiled: bool, rounds: int, steps: int, bf16: bool) -> dict[str, Any]:
    """Print and return rates and ratios over alternating rounds."""
    with ExitStack() as stack:
        loops = {name: stack.enter_context(apart(name, shape, compiled, bf16)) for name in LOOPS}
        rates = alternating(loops, rounds, steps, CASES[shape].tokens)
    label = "compiled" if compiled else "eager"
    for name, values in rates.items():
        print(
            f"{label:9} {name:8} {statistics.median(values):8,.0f} tokens/s  ({min(values):,.0f} to {max(values):,.0f})"
        )
    result: dict[str, Any] = {"rates": rates}
    for peer in ("trainer", "plain"):
        ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates[peer], strict=True)]
        low, high = interval(ratios)
        result[f"ours/{peer}"] = (statistics.median(ratios), low, high)
        print(f"{label:9} ours / {peer}: {statistics.median(ratios):.2f}  [{low:.2f}, {high:.2f}]")
    return result


def interval(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median ratio."""
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(low), float(high)


def alone(case: Case, name: str, compiled: bool, asked: Asked) -> None:
    """Print, as JSON, the time to the first step and the peak memory of one loop in this process."""
    device = choose_device("auto")
    if name == "trainer":
        import transformers  # the cost of importing a peer is not its cost of training

        assert transformers.Trainer
    before = peak_kib()
    began = time.perf_counter()
    ends = LOOPS[name](case, device, choose_precision(asked, device)[0] == "bf16", compiled)(8)
    peak = peak_kib()
    seconds = {"first_step": ends[0] - began, "wall": ends[-1] - began}
    print(json.dumps({**seconds, "grown_mib": (peak - before) / 1024, "peak_mib": peak / 1024}))


def tell_alone(compiled: bool, shape: str, precision: str) -> None:
    """Run each loop in processes that do nothing else, and print when its first step ended and what memory it took.

    Medians of three. What is compiled is compiled anew the first time, which is told apart, and then comes from a cache.
    """
    with tempfile.TemporaryDirectory() as cache:
        told: dict[str, list[dict[str, float]]] = {name: [] for name in LOOPS}
        for _ in range(3 + compiled):
            for name, seen in told.items():
                words = [sys.executable, __file__, "--alone", name, "--shape", shape, "--precision", precision]
                words += ["--compiled"] if compiled else []
                kept = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/{name}"}
                ran = subprocess.run(words, check=True, capture_output=True, text=True, env=kept)
                seen.append(json.loads(ran.stdout.splitlines()[-1]))
    for label, those in (("anew", slice(0, 1)), ("compiled", slice(1, 4))) if compiled else (("eager", slice(0, 3)),):
        for name, seen in told.items():
            first, wall, grown, peak = (
                statistics.median(one[key] for one in seen[those])
                for key in ("first_step", "wall", "grown_mib", "peak_mib")
            )
            print(
                f"{label:9} {name:8} first step after {first:5.1f} s, 8 after {wall:5.1f} s, "
                f"peak memory {peak:,.0f} MiB ({grown:,.0f} above the imports)"
            )


def peak_kib() -> int:
    """Return the most memory this process has held, in KiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory at the fork as ours
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bookkeeping(case: Case, device: torch.device, bf16: bool, steps: int) -> float:
    """Return the share of training time spent on rows: step rows, and 300 evaluation rows every 100 steps."""
    model = build(case.shape, case.vocabulary, seed=0).to(device)
    spent = 0.0
    with tempfile.TemporaryFile("w") as rows:

        def log(kind: str, **row: Any) -> None:
            nonlocal spent
            began = time.perf_counter()
            rows.write(json.dumps({"run": "0" * 26, "kind": kind, **row}) + "\n")
            rows.flush()
            spent += time.perf_counter() - began

        began = time.perf_counter()
        precision = "bf16" if bf16 else "fp32"
        training = settings(case, steps, compiled=False)
        train(
            model,
            optimizer_for(model, training.optimizer),
            case.stream,
            training,
            device=device,
            precision=precision,
            seed=0,
            evaluate_every=steps,
            log=log,
        )
        trained = time.perf_counter() - began
        for index in range(max(1, 300 * steps // 100)):
            log("evaluation", step=100, split="validation", document=f"{index:016x}", nll=1234.5678, tokens=511)
    return spent / trained


def floor(case: Case, device: torch.device, bf16: bool) -> float:
    """Return the tokens a second that the measured matrix peak would allow, were there nothing but matrices."""
    a = torch.randn(2048, 2048, device=device).to(torch.bfloat16 if bf16 else torch.float32)
    times = []
    for _ in range(40):
        began = time.perf_counter()
        (a @ a).sum().item()
        times.append(time.perf_counter() - began)
    peak = 2 * 2048**3 / min(times)  # a peak is the best that was seen, whatever else the machine did
    print(
        f"matrix peak {peak / 1e9:,.0f} GFLOP/s, {case.shape.flops_per_token(case.vocabulary) / 1e6:.1f} MFLOP a token"
    )
    return peak / case.shape.flops_per_token(case.vocabulary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing compiled: a minute")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--compiled", action="store_true", help="compiled as well: some minutes of warm-up")
    which.add_argument("--only-compiled", action="store_true")
    parser.add_argument("--shape", choices=CASES, default="5m", help="about so many parameters")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int, default=15, help="in a round")
    parser.add_argument("--alone", choices=LOOPS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        return alone(CASES[asked.shape], asked.alone, asked.compiled, asked.precision)

    case, rounds = CASES[asked.shape], asked.rounds or (3 if asked.quick else 9)
    device = choose_device("auto")
    precision, why = choose_precision(asked.precision, device)
    if precision == "fp16":
        raise SystemExit(f"precision fp16 ({why}): the loops are compared in bf16 or fp32; name one with --precision")
    bf16 = precision == "bf16"
    print(
        f"{device}, {torch.get_num_threads()} threads, {precision} ({why}), torch {torch.__version__}, {case.shape.parameters(case.vocabulary) / 1e6:.1f} M parameters"
    )
    most = floor(case, device, bf16)
    if asked.only_compiled:
        compare(asked.shape, True, rounds, asked.steps, bf16)
        tell_alone(True, asked.shape, asked.precision)
        return None
    result = compare(asked.shape, False, rounds, asked.steps, bf16)
    mine = statistics.median(result["rates"]["ours"])
    print(f"of the matrix floor of {most:,.0f} tokens/s, ours reaches {mine / most:.0%}")
    print(f"rows cost {bookkeeping(case, device, bf16, 20 if asked.quick else 60):.2%} of training time")

    model = build(case.shape, case.vocabulary, seed=0).to(device)
    documents = [
        (f"{index:016x}", case.stream.windows.reshape(-1)[index * 513 : (index + 1) * 513]) for index in range(100)
    ]
    began = time.perf_counter()
    evaluate(model, documents, batch=8, context=case.shape.context, precision=precision, device=device)
    print(f"evaluating 100 documents of 512 tokens: {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    sample(model, [list(range(1, 20 + index)) for index in range(100)], 96, temperature=0.7, top_k=50, seed=0)
    print(f"sampling 100 continuations of 96 tokens: {time.perf_counter() - began:.1f} s")

    tell_alone(False, asked.shape, asked.precision)
    if asked.compiled:
        compare(asked.shape, True, rounds, asked.steps, bf16)
        tell_alone(True, asked.shape, asked.precision)
    return None


if __name__ == "__main__":
    main()
