"""A run shows on its own model that the check bites; what is asked of llama.cpp is shown by llama.cpp, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from trained import prompts, trained

from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import KINDS, Row
from sovereign.metrics.intervals import Unmeasurable
from sovereign.metrics.measure import METRICS, SLICED, measure
from sovereign.parity import localise
from sovereign.parity.forward import forward
from sovereign.parity.llamacpp import Missing, library
from sovereign.parity.planting import faults, planted, write
from sovereign.parity.rounding import near
from sovereign.shipping.export import export_gguf
from sovereign.shipping.gguf_model import read_gguf_model

try:
    library()
    ENGINE = True
except Missing:
    ENGINE = False


def exported(model: str, quantize: str, folder: Path) -> Path:
    return export_gguf(trained(model), folder / "a.gguf", quantize, {"general.name": model}).path


@pytest.mark.parametrize(("model", "quantize", "least"), [("untied", "f32", 18), ("tied", "q4_k", 16)])
def test_planted_faults_are_seen_and_named(model: str, quantize: str, least: int, tmp_path: Path) -> None:
    """Every fault in a copy of an export is seen, and its place is named first in nine of ten."""
    path = exported(model, quantize, tmp_path)
    found = list(planted(read_gguf_model(path), path, prompts(4, 64), tmp_path / "copy.gguf", ENGINE))

    assert [] == [one.fault for one in found if not one.seen]
    assert sum(one.right for one in found) >= 0.9 * len(found) >= 0.9 * least
    assert ["a.gguf"] == [one.name for one in tmp_path.iterdir()]


def test_a_blind_check_is_shown_to_be_blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: with every operation allowed to be as wrong as it likes, no fault is seen but the refused comparison."""
    monkeypatch.setattr(localise, "TIMES_FLOOR", 1e9)
    path = exported("untied", "f32", tmp_path)
    found = list(planted(read_gguf_model(path), path, prompts(4, 64), tmp_path / "copy.gguf", False))

    assert ["all tokens against the last one"] == [one.fault for one in found if one.seen]


def test_a_fault_that_changes_nothing_is_none(tmp_path: Path) -> None:
    """A copy that is the same for its fault is told apart: it is not counted among those that were let pass."""
    path = exported("tied", "f32", tmp_path)
    sound = read_gguf_model(path)
    fault = next(one for one in faults(sound, prompts(4, 64)[0]) if one.setting)
    same = type(fault)(fault.name, fault.where, setting=("llama.rope.freq_base", sound.shape.rope_base))

    assert (True, False) == (write(path, tmp_path / "b", fault), write(path, tmp_path / "c", same))


def test_quotients_far_from_a_half_are_told_by_float32s_own_error() -> None:
    """What is nearer to a half than float32 errs is marked without an engine; float32 rounds all others as float64 does.

    Planted by hand: with a window of a thousandth of it, float32 rounds some unmarked quotients otherwise.
    """
    from sovereign.quantization import q8k

    stored = dict.fromkeys((*trained().stored, "lm_head.weight"), "Q4_K")
    weights, ids = trained(), prompts(4, 64)[0]
    exact, single = (forward(weights, engine_like=True, dtype=dtype) for dtype in (torch.float64, torch.float32))
    exact.kinds.update(stored)  # type: ignore[attr-defined]
    single.kinds.update(stored)  # type: ignore[attr-defined]
    values: Any = {}
    x = exact.tensors["model.embed_tokens.weight"][torch.tensor(ids)]
    exact.carry(0, x, ids, values.__setitem__)
    marked, window = near(single, 0, x, ids, values, {})
    for (_, name), entered in {(0, "q"): "attn_norm", (0, "gate"): "ffn_norm"}.items():
        one = q8k.quotients(values[(0, entered)])
        two = q8k.quotients(values[(0, entered)].float())
        apart = (one.round() != two.round()).any(-1)
        assert not (apart & ~marked[(0, name)]).any()

    assert window is not None
    assert 1e-7 < window < 1e-3
    assert 0 < torch.stack(list(marked.values())).float().mean() < 0.5


def rows(**kinds: list[dict[str, Any]]) -> dict[str, tuple[Row, ...]]:
    return {kind: tuple(KINDS[kind](run="r", **one) for one in found) for kind, found in kinds.items()}


def value(metric: str, held: dict[str, tuple[Row, ...]], part: str = "all") -> float | None:
    found, _ = measure(Observed(cast("Intent", None), held), [metric])
    return next((float(one.value) for one in found if one.slice == part), None)


def greedy(engine: str, **changes: Any) -> dict[str, Any]:
    said = {"reference": (1, 2, 3), "candidate": (1, 2, 9), "margin": (1.0, 0.5, 1e-4)}
    return {"document": "0" * 16, "engine": engine, **said, **changes}


LLAMA = "llama.cpp (xllamacpp 1)"


def test_a_continuation_counts_up_to_its_first_choice_that_is_not_clear() -> None:
    """Behind a margin that rounding decides, other tokens are no departure; before it one is; no first choice, no trial."""
    assert 0 == value("parity/greedy_departures", rows(parity_greedy=[greedy("")]))
    assert 1 == value("parity/greedy_departures", rows(parity_greedy=[greedy("", candidate=(1, 3, 3))]))
    assert 1 == value("parity/greedy_departures", rows(parity_greedy=[greedy("", margin=(1.0, 0.5, 0.5))]))
    assert value("parity/greedy_departures", rows(parity_greedy=[greedy("", margin=(0.0, 1.0, 1.0))])) is None


def test_what_random_errors_move_is_no_clear_choice() -> None:
    """A margin of 0.5 is clear beside float32, and not where noise of the predicted size moves a logit by 0.3."""
    noise = {
        "comparison": "noise", "reference": "a", "candidate": "b", "document": "0" * 16, "tokens": 2, "relative_l2": (0.1,), "cosine": (1.0,),
        "max_difference": (0.3,), "kl": (0.0,), "margin": (1.0,), "agree": (True,), "reference_nll": 1.0, "candidate_nll": 1.0, "targets": 1,
        "reference_first": 0.5, "candidate_first": 0.5,
    }  # fmt: skip
    departing = greedy(LLAMA, candidate=(1, 9, 9))

    assert 1 == value("parity/greedy_departures", rows(parity_greedy=[departing]))
    assert 0 == value("parity/greedy_departures", rows(parity_greedy=[departing], parity=[noise]))
    assert 0 == value("parity/greedy_departures", rows(parity_greedy=[departing], parity=[noise]), "llama.cpp")


def test_what_our_own_forward_carried_out_is_nothing_that_llama_cpp_showed() -> None:
    """Rows without an engine give no measurement of the slice llama.cpp, of any metric that it may be asked of."""
    ours, theirs = rows(parity_greedy=[greedy("")]), rows(parity_greedy=[greedy(LLAMA)])

    assert (0, None) == (value("parity/greedy_departures", ours), value("parity/greedy_departures", ours, "llama.cpp"))
    assert 0 == value("parity/greedy_departures", theirs, "llama.cpp")
    assert METRICS.keys() >= SLICED["llama.cpp"] >= {"parity/whole_l2", "parity/accused", "parity/planted_unseen"}


def layer_row(**changes: Any) -> dict[str, Any]:
    said = {"relative_l2": (1e-7, 5e-4, 2e-7), "ties": ("1:q", "1:k"), "near": ("1:q",), "window": 1e-5, "products": 7}
    return {"document": "0" * 16, "layer": 0, "engine": LLAMA, **said, **changes}


def test_shares_and_distances_of_layers_are_what_the_rows_say() -> None:
    """By hand: two of 21 products tie, one of three positions is near, and only what is far is held to the bound."""
    held = rows(parity_layer=[layer_row()])

    assert pytest.approx(19 / 21) == value("parity/untied_products", held)
    assert (pytest.approx(2 / 3), 2e-7) == (value("parity/far_share", held), value("parity/far_l2", held))
    assert 5e-4 == value("parity/far_l2", rows(parity_layer=[layer_row(near=())]))
    for metric in ("parity/untied_products", "parity/far_share"):
        with pytest.raises(Unmeasurable):
            METRICS[metric](Observed(cast("Intent", None), rows(parity_layer=[layer_row(products=0, window=None)])))


def test_an_export_that_is_refused_has_lost_every_text() -> None:
    """Refused, all its texts count; loaded, those of other ids; its size is told against float32."""
    export = {"quantize": "q4_k_m", "bytes": 60, "weights": 100, "engine": LLAMA, "texts": 32, "otherwise": 3}
    refused = {**export, "refused": "unknown model architecture"}

    assert 3 == value("shipping/texts_otherwise", rows(export=[export]))
    assert 32 == value("shipping/texts_otherwise", rows(export=[refused]), "llama.cpp")
    assert 0.15 == value("shipping/size_share", rows(export=[export]))
