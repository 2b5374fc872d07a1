"""What an intent freezes: everything that a run will be held to, and what its result will speak about."""

from __future__ import annotations

import platform
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from sovereign import __version__
from sovereign.closing import instant, seal
from sovereign.contract.contract import Contract
from sovereign.evidence.intent import Environment, Intent, Planned, Subjects
from sovereign.plan import Plan
from sovereign.spec.criterion import Spec
from sovereign.subjects import code_digest, code_files, evaluator_digest, source_digest, source_files, worktree


def new_name() -> str:
    """Return a name for a run that begins now."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def intent_of(
    plan: Plan, spec: Spec, root: Path, overrides: Sequence[str], answers: Sequence[str], command: str, name: str
) -> Intent:
    """Return the intent of a run of this plan: everything that it will be held to."""
    return seal(
        Intent,
        contract=plan.contract.contract,
        run=name,
        written=instant(datetime.now(UTC)),
        spec=spec.spec,
        spec_version=spec.version,
        criteria={claim: spec.by_id[claim] for claim in plan.contract.claims},
        promise=plan.contract,
        overrides=tuple(overrides),
        seed=plan.seed,
        subjects=subjects(plan, root),
        environment=environment(plan),
        worktree=worktree(root, scope(plan.contract, root)),
        planned=Planned(
            steps=plan.contract.training.steps, tokens=plan.tokens, tokens_until=plan.tokens_until,
            documents=plan.corpus.held, windows=plan.windows, passes=plan.passes,
            parameters=plan.parameters, trainable=plan.trainable if plan.tuning else None, vocabulary=plan.vocabulary, peak_bytes=plan.peak_bytes,
        ),
        ttl_hours=plan.contract.ttl_hours,
        parent=plan.tuning.parent.name if plan.tuning and plan.tuning.parent else None,
        answers=tuple(answers),
        command=command,
        sovereign=__version__,
    )  # fmt: skip


def subjects(plan: Plan, root: Path) -> Subjects:
    """Return the digests of everything that a result of this plan would speak about."""
    return Subjects(
        code=code_digest(),
        data=plan.corpus.digest,
        source=source_digest(plan.contract, root),
        tokenizer=plan.corpus.tokenizer_digest,
        base=plan.tuning.digest if plan.tuning else None,
        model=plan.contract.subject,
        evaluator=evaluator_digest(),
    )


def environment(plan: Plan) -> Environment:
    """Return where the run takes place."""
    cuda = plan.device.type == "cuda"
    return Environment(
        device="cuda" if cuda else "cpu",
        accelerator=torch.cuda.get_device_name(plan.device) if cuda else "",
        precision=plan.precision,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=f"{sys.platform} {platform.machine()}",
        threads=torch.get_num_threads(),
        processes=plan.processes,
        packages={name: version(name) for name in ("numpy", "safetensors", "tokenizers")},
    )


def scope(contract: Contract, root: Path) -> list[Path]:
    """Return the files that decide what a run does, as far as they stand in the repository."""
    return [
        *code_files(),
        root / contract.spec,
        root / "contracts" / f"{contract.contract}.yaml",
        *source_files(contract, root),
    ]
