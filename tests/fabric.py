"""Small real repositories: a spec, a contract, and run folders whose rows say what a test wants them to say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sovereign.canonical import digest, parse_yaml, pretty, validate, write_atomic
from sovereign.closing import close, seal
from sovereign.contract.contract import Contract
from sovereign.evidence.intent import Environment, Intent, Planned, Subjects, Worktree
from sovereign.evidence.journal import Journal
from sovereign.spec.criterion import Spec
from sovereign.subjects import code_digest, evaluator_digest

SPEC = """\
schema: sovereign/spec/v1
spec: toy
version: 0.1.0
title: A toy
controls: advised
metrics:
  validation/loss: {title: Validation loss, unit: nats/token, better: lower, rows: [evaluation], range: [0, null]}
  training/tokens_missing: {title: Missing, unit: tokens, better: lower, rows: [step], range: [0, null]}
criteria:
  - {id: TOY-001, title: It learns, category: TOY, contract: toy, metric: validation/loss, op: "<=", bound: 3.0, obligations: {least_n: 10}}
  - {id: TOY-002, title: It counts, category: TOY, contract: toy, metric: training/tokens_missing, op: "==", bound: 0}
"""

CONTRACT = """\
schema: sovereign/contract/v1
contract: toy
title: A toy
spec: spec/toy.yaml
claims: [TOY-001, TOY-002]
seeds: [1, 2, 3]
ttl_hours: 24
data:
  source: {kind: folder, path: data, include: ["*.txt"]}
  split: {validation: 0.2, control: 0.2}
tokenizer: {kind: bpe, vocabulary: 300}
model: {hidden: 16, layers: 1, heads: 2, kv_heads: 1, ffn: 32, context: 16}
training:
  steps: 10
  sequences: 2
  schedule: {kind: constant, peak: 1.0e-3}
  precision: fp32
  checkpoint_every: 4
evaluation: {every: 5, documents: 20, tokens: 32, samples: {prompts: 0, tokens: 4}, replay: 2}
"""

WRITTEN = "2026-01-01T00:00:00Z"
FINISHED = datetime(2026, 1, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)


def holding(folder: Path, root: Path) -> list[str]:
    """Return the files below a folder that hold the path of a repository: evidence has none, and says the same in any clone."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    assert files
    return [file.relative_to(folder).as_posix() for file in files if str(root).encode() in file.read_bytes()]


def repository(root: Path, spec: str = SPEC, contract: str = CONTRACT) -> Path:
    """Write a repository with one spec, one contract, and a little text."""
    for name, text in {"spec/toy.yaml": spec, "contracts/toy.yaml": contract}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@cache  # thousands of intents promise the same
def _read(spec: str, contract: str) -> tuple[Spec, Contract]:
    return validate(Spec, parse_yaml(spec.encode(), "spec")), validate(
        Contract, parse_yaml(contract.encode(), "contract")
    )


def intent(
    run: str = "20260101T000000Z-aaaaaa", seed: int = 1, spec: str = SPEC, contract: str = CONTRACT, **changes: Any
) -> Intent:
    """Return an intent as a run of the toy contract freezes it."""
    held_to, promise = _read(spec, contract)
    criteria = held_to.by_id
    values: dict[str, Any] = {
        "contract": "toy",
        "run": run,
        "written": WRITTEN,
        "spec": "toy",
        "spec_version": "0.1.0",
        "criteria": {claim: criteria[claim] for claim in promise.claims},
        "promise": promise,
        "seed": seed,
        "subjects": Subjects(
            code=code_digest(),
            data=digest("data"),
            tokenizer=digest("tokenizer"),
            model=promise.subject,
            evaluator=evaluator_digest(),
        ),
        "environment": Environment(
            device="cpu", precision="fp32", python="3.11.7", torch="2.13.0", platform="linux x86_64", threads=2
        ),
        "worktree": Worktree(state="clean", commit="0" * 40),
        "planned": Planned(steps=10, tokens=320, windows=100, passes=0.2, parameters=1000, vocabulary=300),
        "ttl_hours": promise.ttl_hours,
        "command": "sovereign run --contract contracts/toy.yaml",
        "sovereign": "0.1.0",
    }
    return seal(Intent, **{**values, **changes})


def rows(loss: float = 2.5, tokens: int = 32, documents: int = 20, seed: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of a toy run whose validation loss is near `loss`; each seed has its own losses."""
    found: list[tuple[str, dict[str, Any]]] = []
    for step in range(1, 11):
        found.append(("step", {
            "step": step, "loss": 5.0 - step / 10 + seed / 1000, "tokens": tokens, "learning_rate": 1e-3, "grad_norm": 1.0,
            "seconds": 0.1, "clock": step / 10, "windows": f"{step:016x}", "passed": 0,
        }))  # fmt: skip
    for at in (0, 10):
        for number in range(documents):
            nll = 10 * (loss + (1 if at == 0 else 0) + (number % 5 - 2) / 100)
            found.append(("evaluation", {
                "step": at, "split": "validation", "document": f"{number:016x}", "nll": nll, "tokens": 10,
            }))  # fmt: skip
    return found


def write_run(
    root: Path, promise: Intent | None = None, said: Sequence[tuple[str, Mapping[str, Any]]] | None = None,
    outcome: str | None = "completed", reason: str = "",
) -> Path:  # fmt: skip
    """Write a run's folder as a run writes it; outcome None leaves it unconcluded."""
    promise = promise or intent()
    folder = root / "evidence" / promise.contract / promise.run
    (folder / "rows").mkdir(parents=True)
    write_atomic(folder / "intent.json", pretty(promise.plain()))
    journal = Journal(folder / "rows", promise.run)
    for kind, values in rows(seed=promise.seed) if said is None else said:
        journal.log(kind, **values)
    journal.close()
    if outcome is not None:
        close(folder, folder.relative_to(root).as_posix(), outcome, reason, FINISHED)  # type: ignore[arg-type]
    return folder


def edit_json(path: Path, edit: Callable[[Any], None]) -> None:
    """Change a JSON file as a person would."""
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
