"""The published JSON Schemas: generated from the pydantic models, committed, and tested equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sovereign.canonical import Record, pretty
from sovereign.comparison.record import Comparison
from sovereign.contract.contract import Contract
from sovereign.diagnosis.procedure import Diagnosis
from sovereign.evidence.envelope import Envelope
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import KINDS
from sovereign.evidence.statement import Statement
from sovereign.gate.document import Gates
from sovereign.spec.amendment import Amendment, Waiver
from sovereign.spec.criterion import Spec

DOCUMENTS: dict[str, type[Record]] = {
    "spec": Spec,
    "amendment": Amendment,
    "waiver": Waiver,
    "contract": Contract,
    "intent": Intent,
    "evidence": Statement,
    "envelope": Envelope,
    "gates": Gates,
    "diagnosis": Diagnosis,
    "comparison": Comparison,
    **{f"row-{name}": kind for name, kind in KINDS.items()},
}


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a document kind."""
    generated = DOCUMENTS[name].model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


def write_schemas(folder: Path) -> None:
    """Write every schema to `folder`, as the repository commits them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DOCUMENTS:
        (folder / f"{name}.schema.json").write_bytes(pretty(schema(name)))
