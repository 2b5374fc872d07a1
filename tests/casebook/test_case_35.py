"""CASE-35 Export speaks word salad.

Stage: gate
Outcome: an export is read again and removed where ids, settings or a weight differ (exit 4); of a foreign file parity names the tensor
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_edit import rewritten
from test_parity_faults import heads_swapped
from trained import prompts, source, trained

from sovereign.parity.compare import Incomparable, compared, every, require_alike
from sovereign.parity.forward import forward
from sovereign.parity.localise import locate
from sovereign.parity.observed import of_torch
from sovereign.shipping import export
from sovereign.shipping.export import Unfaithful, export_gguf
from sovereign.shipping.gguf_model import read_gguf_model
from sovereign.shipping.weights import Specials, Weights, plain

STEPS = 30
KEYS = "model.layers.1.self_attn.k_proj.weight"


def weights() -> Weights:
    return trained("tied", STEPS)


def written(folder: Path, quantize: str = "f32") -> Path:
    return export_gguf(weights(), folder / "sound.gguf", quantize, {"general.name": "a"}).path


def specials_swapped(found: Weights) -> Weights:
    return replace(found, specials=Specials(1, 2, add_begin=True))


def heads_permuted(found: Weights) -> Weights:
    """Return weights whose key heads of one layer stand in another order: every value is there, and the text is salad."""
    rows = torch.from_numpy(heads_swapped(64)(found.tensor(KEYS).numpy().copy()))
    return replace(found, stored={**found.stored, KEYS: plain("F32", rows)})


@pytest.mark.parametrize(
    ("plant", "said"),
    [(specials_swapped, "its special tokens are"), (heads_permuted, f"{KEYS} is not what F32 makes of it")],
)
def test_an_exporter_that_errs_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Any, said: str
) -> None:
    """Plant: the writer swaps two special ids, or two heads; read again the file is another model, and does not stand."""
    real = export.write_gguf
    monkeypatch.setattr(export, "write_gguf", lambda out, given, *more: real(out, plant(given), *more))

    with pytest.raises(Unfaithful, match=said):
        written(tmp_path)
    assert [] == list(tmp_path.iterdir())


def test_special_ids_that_were_swapped_are_refused(tmp_path: Path) -> None:
    """Plant: a file from elsewhere with every weight bit-exact, and another begin and end: nothing is compared."""
    faulty = rewritten(
        written(tmp_path), tmp_path / "faulty.gguf",
        metadata={"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2},
    )  # fmt: skip

    with pytest.raises(Incomparable, match="special tokens"):
        require_alike(weights(), read_gguf_model(faulty), [source()[0][:200]])


def test_permuted_heads_are_named(tmp_path: Path) -> None:
    """Plant: two key heads change places in a tiny export; parity names the tensor and the order, and greedy answers part."""
    sound = written(tmp_path)
    faulty = rewritten(sound, tmp_path / "faulty.gguf", tensors={"blk.1.attn_k.weight": heads_swapped(64)})
    candidate = forward(read_gguf_model(faulty), dtype=torch.float32)
    found = locate(forward(read_gguf_model(sound)), of_torch(candidate), prompts(4, 32))

    assert found.first is not None
    assert KEYS == found.first.tensor
    assert any("order [1, 0" in one.what for one in found.suspicions[:2])


@pytest.mark.parametrize("quantize", ["f32", "q8_0"])
def test_a_sound_export_says_what_its_source_says(tmp_path: Path, quantize: str) -> None:
    """Control: token ids are the same, KL is near nothing, and the most likely token is the source's wherever it is clear."""
    again = read_gguf_model(written(tmp_path, quantize))
    texts = [text[:300] for text in source()]
    asked = require_alike(weights(), again, texts)
    ours, theirs = forward(weights()), forward(again)
    for ids in asked:
        found = compared(every(ids[:32], ours.run(ids[:32])), every(ids[:32], theirs.run(ids[:32])))
        clear = found.margin > 0.1

        assert float(found.kl.mean()) < (1e-9 if quantize == "f32" else 1e-3)
        assert bool(found.agree[clear].all())
