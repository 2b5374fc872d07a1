"""A small repository with a base run of its own, and contracts that tune it; trained once a process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sovereign import plan as planning
from sovereign import run as execution
from sovereign.canonical import parse_yaml, validate
from sovereign.contract.contract import Contract
from sovereign.evidence.folder import Observed, read_folder
from sovereign.plan import Plan
from sovereign.spec.criterion import Spec

SPEC = """\
schema: sovereign/spec/v1
spec: toy
version: 0.1.0
title: A toy
controls: advised
metrics:
  validation/loss: {title: Validation loss, unit: nats/token, better: lower, rows: [evaluation], range: [0, null]}
criteria: []
"""
HEAD = """\
schema: sovereign/contract/v1
contract: {name}
title: A toy
spec: spec/toy.yaml
claims: []
seeds: [1, 2]
"""
BASE = (
    HEAD.format(name="toy")
    + """\
data:
  source: {kind: folder, path: data, include: ["*.txt"]}
  near_duplicates: {jaccard: 0.95, shingle: 5, permutations: 64}
  split: {validation: 0.2, control: 0.2}
tokenizer: {kind: bpe, vocabulary: 320}
model: {hidden: 64, layers: 2, heads: 4, kv_heads: 2, ffn: 64, context: 64}
training:
  steps: 60
  sequences: 4
  optimizer: {kind: adamw, beta2: 0.95}
  schedule: {kind: constant, peak: 3.0e-3}
  precision: fp32
  wrap_around: true
  most_passes: 20
  checkpoint_every: 30
evaluation: {every: 30, documents: 20, tokens: 64, samples: {prompts: 0, tokens: 4}, replay: 0}
"""
)
TUNED = (
    HEAD
    + """\
data:
  source: {source}
  near_duplicates: {{jaccard: 0.95, shingle: 5, permutations: 64}}
  split: {{validation: 0.2, control: 0.2{split}}}
method: {method}
training:
  steps: {steps}
  sequences: 4
  optimizer: {{kind: adamw, beta1: 0.9, beta2: 0.999, weight_decay: 0.0}}
  schedule: {{kind: constant, peak: {peak}}}
  precision: fp32
  wrap_around: true
  most_passes: 100
  checkpoint_every: 10
evaluation: {{every: 10, documents: 20, tokens: 64{samples}, replay: 2}}
"""
)
TEXT = '{kind: folder, path: data, include: ["*.txt"]}'
PAIRS = "{kind: pairs, path: pairs.jsonl}"
LABELS = "{kind: labelled, path: labels.tsv}"
LORA = "{rank: 4, alpha: 8, dropout: 0.1, targets: [q_proj, v_proj, up_proj]}"
METHODS = {
    "full": "{kind: full, base: {run: toy}, context: 48}",
    "lora": f"{{kind: lora, base: {{run: toy}}, context: 48, adapter: {LORA}}}",
    "qlora": f"{{kind: qlora, base: {{run: toy}}, context: 48, adapter: {LORA}}}",
    "rows": "{kind: embeddings, base: {run: toy}, context: 48, rows: new, new_tokens: {count: 6, least_tokens: 3}}",
    "labels": f"{{kind: classification, base: {{run: toy}}, context: 48, adapter: {LORA}}}",
    "labels-rows": "{kind: classification, base: {run: toy}, context: 48, "
    "adapter: {rank: 4, alpha: 8, targets: [embed_tokens, q_proj]}}",
    "labels-full": "{kind: classification, base: {run: toy}, context: 48}",
}
WORDS = (
    "alpha",
    "river_bank",
    "stone_bridge",
    "window_frame",
    "garden_gate",
    "copper_wire",
    "silent_bell",
    "paper_boat",
)


def quiet(part: str, done: int, total: int) -> None:
    """Say nothing."""


def tuned(
    name: str, source: str, method: str, steps: int = 20, split: str = "", peak: str = "3.0e-3", samples: str = ""
) -> str:
    """Return the text of a contract that tunes the toy."""
    if source == TEXT:
        samples = samples or ", samples: {prompts: 0, tokens: 4}"
    return TUNED.format(
        name=name,
        source=source,
        method=METHODS.get(method, method),
        steps=steps,
        split=split,
        peak=peak,
        samples=samples,
    )


def repository(root: Path) -> Path:
    """Write text, pairs, labelled text, a spec, and the contract of the base."""
    (root / "spec").mkdir(parents=True)
    (root / "contracts").mkdir()
    (root / "data").mkdir()
    (root / "spec/toy.yaml").write_text(SPEC)
    (root / "contracts/toy.yaml").write_text(BASE)
    for number in range(80):
        words = [WORDS[(number * 3 + at * (1 + number % 5)) % len(WORDS)] for at in range(40)]
        (root / f"data/{number:02d}.txt").write_text(f"{number}: " + " ".join(words))
    pairs = [
        {
            "prompt": f"say {WORDS[number % 8]} {number}",
            "answer": f"{WORDS[(number + 1) % 8]} {WORDS[(number + 2) % 8]}",
        }
        for number in range(60)
    ]
    (root / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
    told = [
        (f"{WORDS[number % 4]} {WORDS[number % 7]} {number}", ("cold", "warm")[number % 4 < 2]) for number in range(120)
    ]
    (root / "labels.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in told))
    return root


def contract(text: str) -> Contract:
    return validate(Contract, parse_yaml(text.encode(), "c.yaml"))


def planned(root: Path, text: str) -> Plan:
    return planning.plan(contract(text), root, "cpu", quiet)


def carried_out(root: Path, text: str, overrides: Sequence[str] = ()) -> execution.Concluded:
    """Return the conclusion of a run of a contract, in this process."""
    spec = validate(Spec, parse_yaml(SPEC.encode(), "spec"))
    return execution.run(planned(root, text), spec, root, overrides=overrides, told=quiet, progress=lambda *told: None)


def observed(folder: Path) -> Observed:
    """Return what a run left, with not one problem in it."""
    found = read_folder(folder, folder.name)
    assert (found.problems, found.row_problems, found.out_of_place) == ((), (), ())
    assert found.intent is not None
    return Observed(found.intent, found.rows)


def outline(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """Return the shape of each parameter, its dtype and whether it moves; those in four bits left out."""
    return {
        name: (weight.shape, weight.dtype, weight.requires_grad)
        for name, weight in model.named_parameters()
        if type(weight).__name__ != "Params4bit"
    }


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    path = folder / "rows" / f"{kind}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
