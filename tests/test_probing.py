"""Every question a contract may ask of its weights leaves rows that the law can read, and costs what is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_run import FULL_CONTRACT, only_run, root, rows, sovereign, start  # noqa: F401

ASKED = (
    "probes: {path: 4, permuted: 3, membership: 4, extraction: {passages: 5, prompt: 6, continued: 6}, novelty: true}"
)


@pytest.fixture
def asked(root: Path) -> Path:  # noqa: F811
    """A finished run of a contract that plants canaries and asks every question."""
    contract = FULL_CONTRACT.replace("evaluation: {", f"evaluation: {{{ASKED}, ").replace(
        "data:\n", "data:\n  canaries: {copies: [1, 8], each: 2, candidates: 31, tokens: 6}\n"
    )
    contract = contract.replace("samples: {prompts: 3, tokens: 6", "samples: {prompts: 3, tokens: 6, at_evaluations: 2")
    (root / "contracts/toy.yaml").write_text(contract)
    ran = start(root)
    assert ran.returncode == 0, ran.stderr
    return root


def test_every_probe_leaves_its_rows(asked: Path) -> None:
    """Counts, sides and units are those that the contract asks for; nothing else is written."""
    found = rows(only_run(asked))

    (path,) = found["path"]
    assert 4 * 32 == path["tokens"]
    assert path["train_nll"] == pytest.approx(path["eval_nll"], rel=1e-4)
    assert ["permuted"] * 3 + ["random"] * 3 == [row["order"] for row in found["permuted"]]
    assert {("train", "loss"): 4, ("train", "min-k++ 0.2"): 4, ("control", "loss"): 4} == {
        key: sum((row["side"], row["method"]) == key for row in found["membership"])
        for key in (("train", "loss"), ("train", "min-k++ 0.2"), ("control", "loss"))
    }
    assert {"train": 5, "control": 5} == {
        side: sum(row["side"] == side for row in found["extraction"]) for side in ("train", "control")
    }
    assert [1, 1, 8, 8] == [row["copies"] for row in found["canary"]]
    assert all(1 <= row["rank"] <= 32 for row in found["canary"])
    assert {"model", "held_out"} == {row["source"] for row in found["novelty"]}
    # the canaries' documents were trained on, and are counted like any other
    planted = {row["document"] for row in found["corpus"] if row["name"].startswith("canary")}
    assert (18, planted) == (len(planted), planted & {row["document"] for row in found["exposure"]})


def test_samples_are_kept_at_every_evaluation(asked: Path) -> None:
    """The same seeded prompts at step 0 and at each evaluation, so that what training changed can be read."""
    found = [row for row in rows(only_run(asked))["sample"] if row["sampler"] == "model"]
    by_step = {
        step: [row["prompt_id"] for row in found if row["step"] == step] for step in {row["step"] for row in found}
    }

    evaluated = {row["step"] for row in rows(only_run(asked))["evaluation"]}
    assert evaluated == by_step.keys()
    assert all(prompts[:2] == [0, 1] for prompts in by_step.values())
    # at the last step all prompts, each once: the planted bug logged those of the evaluation twice
    assert [0, 1, 2] == by_step[max(by_step)]


def test_the_evidence_verifies_and_is_diagnosed(asked: Path) -> None:
    """Verification reads the new rows, the second reader agrees, and the diagnosis finds its tests run."""
    verified = sovereign(asked, "verify")
    diagnosed = sovereign(asked, "diagnose", str(only_run(asked)), "--json")
    claims = {one["claim"]: one for one in json.loads(diagnosed.stdout)["findings"]}

    assert (0, 0) == (verified.returncode, diagnosed.returncode), verified.stderr + diagnosed.stderr
    results = {check["probe"]: check["result"] for one in claims.values() for check in one["checks"]}
    assert "passes" == results["same batch"], sorted(results)
    assert {"MEMORIZED", "CONTAMINATED"} <= claims.keys()
