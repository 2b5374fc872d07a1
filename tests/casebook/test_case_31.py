"""CASE-31 Random model scored.

Stage: gate
Outcome: falsified: an attestation that does not hold counts, and a score of weights that were not loaded is never a pass
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tuned import BASE, LABELS, carried_out, observed, repository, rows, tuned

from sovereign import attesting
from sovereign.metrics.measure import METRICS, measure
from sovereign.model.decoder import build
from sovereign.tuning import Tuning


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = repository(tmp_path_factory.mktemp("case-31") / "r")
    assert carried_out(place, BASE).outcome == "completed"
    return place


def test_scores_of_a_random_model_carry_their_mismatch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: the guards are off and the weights random; the score looks well, and the attestations do not hold."""
    monkeypatch.setattr(attesting, "require", lambda found: found)
    monkeypatch.setattr(attesting, "starts_as", lambda expected, found: None)
    monkeypatch.setattr(Tuning, "base", lambda self: build(self.shape, self.rows, seed=99))
    concluded = carried_out(root, tuned("random", LABELS, "labels"))
    found = {one.metric: one for one in measure(observed(concluded.folder), METRICS)[0]}
    failed = {row["subject"] for row in rows(concluded.folder, "attestation") if row["expected"] != row["found"]}

    assert "completed" == concluded.outcome
    assert found["tuning/mismatches"].low >= 2
    assert {"loaded_tensors", "parent_loss"} <= failed
    # words alone tell these labels apart, so the score says nothing of the weights
    assert found["classification/above_majority"].low > 0


def test_predictions_are_of_the_weights_that_were_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that answers is the one whose checkpoint is named: its head stands in the plain file, bit for bit."""
    from safetensors.torch import load_file

    asked: list[torch.Tensor] = []
    real = attesting.predictions

    def heard(plan, model, step):
        asked.append(model.score.weight.detach().clone())
        return real(plan, model, step)

    monkeypatch.setattr(attesting, "predictions", heard)
    concluded = carried_out(root, tuned("kept", LABELS, "labels"))
    kept = load_file(root / "artifacts/kept" / concluded.folder.name / "model/model.safetensors")

    assert torch.equal(kept["score.weight"], asked[0])
