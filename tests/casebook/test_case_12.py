"""CASE-12 Parent weights silently replaced.

Stage: before step 0
Outcome: refused naming the tensor where one is renamed or the shape is another; stopped where the loss is not the parent's
"""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tuned import BASE, PAIRS, carried_out, repository, rows, tuned

from sovereign import tuning
from sovereign.canonical import digest_file
from sovereign.contract.model import Decoder as Shape
from sovereign.lineage import Ancestor, parent
from sovereign.model.decoder import Decoder, build
from sovereign.model.pretrained import Unfit, load_decoder
from sovereign.tuning import Tuning

SHAPE = Shape(hidden=32, layers=2, heads=4, kv_heads=2, ffn=32, context=16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({name: one.detach() for name, one in build(SHAPE, 61, 0).named_parameters()}, path)
    return path


def test_a_renamed_tensor_is_named(file: Path) -> None:
    """Plant: one tensor is renamed; both names are in the error, and no weight is random instead."""
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_projection.weight"] = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, file)

    with pytest.raises(Unfit) as unfit:
        load_decoder(SHAPE, 61, None, file)
    assert "model.layers.1.mlp.up_proj.weight is missing" in str(unfit.value)
    assert "model.layers.1.mlp.up_projection.weight is not known here" in str(unfit.value)


@pytest.mark.parametrize("field", ["layers", "ffn", "hidden", "kv_heads"])
def test_another_architecture_is_refused(file: Path, field: str) -> None:
    """Plant: the architecture says something else than the file holds."""
    other = SHAPE.model_copy(update={field: getattr(SHAPE, field) * 2})

    with pytest.raises(Unfit, match=r"expected|missing"):
        load_decoder(other, 61, None, file)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = repository(tmp_path_factory.mktemp("case-12") / "r")
    assert carried_out(place, BASE).outcome == "completed"
    return place


def test_random_weights_in_the_parent_s_place_stop_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: what is loaded is drawn anew; the tensors' digest is another's, and no step is made."""
    monkeypatch.setattr(Tuning, "base", lambda self: build(self.shape, self.rows, seed=99))
    concluded = carried_out(root, tuned("random", PAIRS, "full"))

    assert "abandoned" == concluded.outcome
    assert "loaded_tensors" in concluded.reason
    assert [] == rows(concluded.folder, "step")


def test_a_loss_that_is_not_the_parent_s_stops_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: every tensor is in place and the model computes with another epsilon; its loss gives it away."""
    real = load_decoder

    def blurred(shape: Shape, *given: object) -> Decoder:
        model = real(shape, *given)  # type: ignore[arg-type]
        model.model.norm.epsilon = 10.0
        return model

    monkeypatch.setattr(tuning, "load_decoder", blurred)
    concluded = carried_out(root, tuned("blurred", PAIRS, "full"))

    assert "weights_not_loaded" in concluded.reason
    assert [] == rows(concluded.folder, "step")


def test_the_parent_is_pinned_by_its_bytes(root: Path) -> None:
    """The intent names the run that is tuned, and digests its weights."""
    concluded = carried_out(root, tuned("pinned", PAIRS, "full"))
    found: Ancestor = parent("toy", root)
    intent = parent("pinned", root).intent

    assert concluded.outcome == "completed"
    assert (found.name, digest_file(found.weights)) == (intent.parent, intent.subjects.base)
