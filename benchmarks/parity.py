"""What a trained run computes, beside transformers and llama.cpp, and how long the check of its Q4_K_M export takes.

    python benchmarks/parity.py RUN [--root FOLDER] [--prompts N] [--tokens N] [--rounds N]

RUN is a run of `sovereign run`, its checkpoint still there. Its weights are exported in float32 to a Hugging Face folder, which
`LlamaForCausalLM` carries out, and to a GGUF file, which llama.cpp carries out; the distances are relative L2 of the logits
at every position of held-out texts, from our own decoder in float32 and from our forward in float64. The claim: at most 1e-5
from either. Then the Q4_K_M export is checked against the run (`sovereign parity` without reading the models, and each
stored tensor quantized again), and its seconds are counted: the claim is 20 for 32 prompts of 128 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sovereign.parity.check import check
from sovereign.parity.compare import compared, every, require_alike
from sovereign.parity.forward import forward
from sovereign.parity.llamacpp import LlamaCpp
from sovereign.parity.prompts import held_out
from sovereign.shipping.export import export_folder, export_gguf
from sovereign.shipping.gguf_model import read_gguf_model
from sovereign.shipping.runs import find_run, read_run
from sovereign.shipping.weights import Weights


def distances(name: str, prompts: list[list[int]], reference: list[Tensor], candidate: list[Tensor]) -> float:
    """Print mean and maximum relative L2 over all positions, and return the maximum."""
    found = torch.cat([
        compared(every(ids, one), every(ids, two)).relative_l2
        for ids, one, two in zip(prompts, reference, candidate, strict=True)
    ])  # fmt: skip
    print(f"  {name:<42} mean {found.mean():.1e}   worst {found.max():.1e}   of {len(found)} positions")
    return float(found.max())


def of_transformers(folder: Path, prompts: list[list[int]]) -> list[Tensor]:
    """Return float32 logits of every prompt by LlamaForCausalLM."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0] for ids in prompts]


def of_llamacpp(path: Path, prompts: list[list[int]]) -> list[Tensor]:
    with LlamaCpp(path, max(map(len, prompts))) as engine:
        return [torch.from_numpy(engine.prefill(ids)) for ids in prompts]


def checked(weights: Weights, path: Path, prompts: list[list[int]]) -> tuple[float, str]:
    """Return the seconds of a check, and what it says of where the two part."""
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    candidate = read_gguf_model(path)
    with LlamaCpp(path, weights.shape.context) as engine:
        found = check(weights, candidate, prompts, lambda kind, **row: rows.append(row), lambda *_: None, engine)
    return time.perf_counter() - began, found.located.sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found = find_run(asked.run, asked.root.resolve())
    weights = read_run(found)
    texts = list(islice(held_out(found.tokenizer), 8 * asked.prompts))
    long = [ids[: asked.tokens] for ids in require_alike(weights, weights, texts) if len(ids) >= asked.tokens]
    prompts = [list(ids) for ids in dict.fromkeys(map(tuple, long))][: asked.prompts]
    print(
        f"{found.name}: {len(prompts)} prompts, {sum(map(len, prompts))} positions, {torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = {"general.name": found.name}
        export_folder(weights, folder / "hf", "f32", b"")
        export_gguf(weights, folder / "f32.gguf", "f32", about)
        export_gguf(weights, folder / "q4_k_m.gguf", "q4_k_m", about)
        model, exact = weights.decoder(), forward(weights)
        with torch.no_grad():
            single = [model(torch.tensor([ids]))[0] for ids in prompts]
        double = [exact.run(ids) for ids in prompts]
        worst = []
        for peer, theirs in (
            ("transformers", of_transformers(folder / "hf", prompts)),
            ("llama.cpp", of_llamacpp(folder / "f32.gguf", prompts)),
        ):
            worst.append(distances(f"{peer} from our decoder, both float32", prompts, single, theirs))
            worst.append(distances(f"{peer} from our forward in float64", prompts, double, theirs))
        print(f"float32: {'holds' if max(worst) <= 1e-5 else 'fails'}, 1e-5 is asked")
        taken = [checked(weights, folder / "q4_k_m.gguf", prompts) for _ in range(asked.rounds)]
    seconds = [one for one, _ in taken]
    print(f"check of the Q4_K_M export: {statistics.median(seconds):.1f} s [{min(seconds):.1f}, {max(seconds):.1f}]; {taken[0][1]}")  # fmt: skip


if __name__ == "__main__":
    main()
