"""Parity: like is compared with like or not at all; two sound forwards agree to float32, and what is measured is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from trained import SHAPES, prompts, tokenizer, trained

from sovereign.evidence.folder import Observed
from sovereign.evidence.intent import Intent
from sovereign.evidence.rows import KINDS, Row
from sovereign.metrics import parity
from sovereign.metrics.intervals import Unmeasurable
from sovereign.model.decoder import Decoder
from sovereign.parity import check as checking
from sovereign.parity import continuing
from sovereign.parity.check import check, document
from sovereign.parity.compare import Incomparable, Logits, compared, every, require_alike, tokenized
from sovereign.parity.continuing import continued, greedy, stepwise
from sovereign.parity.forward import forward, rounded
from sovereign.parity.llamacpp import LlamaCpp, Missing, library
from sovereign.parity.localise import locate
from sovereign.parity.observed import of_torch
from sovereign.parity.packed import tensors
from sovereign.quantization import q4k
from sovereign.shipping.export import export_gguf
from sovereign.shipping.gguf_model import read_gguf_model
from sovereign.shipping.weights import Specials, Stored, Weights, plain

try:
    library()
    without_engine = pytest.mark.skipif(False, reason="")
except Missing as reason:
    without_engine = pytest.mark.skip(reason=f"llama.cpp: {reason}")


def quiet(part: str, done: int, total: int) -> None:
    pass


def exported(name: str, quantize: str, folder: Path) -> Path:
    return export_gguf(trained(name), folder / f"{name}-{quantize}.gguf", quantize, {"general.name": name}).path


def rows_of(
    reference: Weights, candidate: Weights, engine: LlamaCpp | None, given: Sequence[Sequence[int]] = ()
) -> tuple[dict[str, list[Row]], Any]:
    found: dict[str, list[Row]] = {}
    result = check(
        reference, candidate, given or distinct(24), lambda kind, **values: found.setdefault(kind, []).append(KINDS[kind](run="r", **values)),
        quiet, engine,
    )  # fmt: skip
    return found, result


@cache
def distinct(length: int) -> list[list[int]]:
    return list({tuple(ids): ids for ids in prompts(60, length) if len(ids) == length}.values())[:32]


def measured(rows: dict[str, list[Row]], metric: str) -> Any:
    return parity.METRICS[metric](Observed(cast("Intent", None), {kind: tuple(held) for kind, held in rows.items()}))


# ── preconditions ────────────────────────────────────────────────────────────────────────────────


def test_all_tokens_are_not_compared_with_the_last_token() -> None:
    """The casebook's 18-fold parity bug: statistics of all tokens against those of the last one are refused, by name."""
    ids = prompts(4, 16)[0]
    logits = forward(trained()).run(ids)
    last = Logits(tuple(ids), (len(ids) - 1,), logits[-1:])

    with pytest.raises(Incomparable, match=r"positions: .*16 positions, 0 to 15.*position 15 alone.*last token"):
        compared(every(ids, logits), last)


def test_other_tokens_shapes_counts_and_values_are_refused() -> None:
    """Each precondition that does not hold is named, with both values."""
    ids = prompts(4, 16)[0]
    logits = forward(trained()).run(ids)
    other = [*ids[:5], ids[5] + 1, *ids[6:]]
    for candidate, said in (
        (every(other, logits), "token ids: .*part at index 5"),
        (every(ids, logits[:, :-1]), "shapes: logits"),
        (every(ids, logits[:-1]), "counts: the candidate has 15 rows"),
        (every(ids, torch.where(logits > 3, torch.nan, logits)), "not all finite"),
    ):
        with pytest.raises(Incomparable, match=said):
            compared(every(ids, logits), candidate)


def test_models_that_are_not_alike_are_refused() -> None:
    """Another vocabulary, size, policy of special tokens or tokenizer is a refusal that names it."""
    weights = trained()
    merged = tokenizer().from_str(tokenizer().to_str())
    merged.normalizer = __import__("tokenizers").normalizers.Lowercase()
    for candidate, said in (
        (replace(weights, vocabulary=321), "vocabulary: 320 tokens against 321"),
        (replace(weights, shape=SHAPES["deep"]), "shapes: layers is 2 against 3"),
        (replace(weights, specials=Specials(0, 0, add_begin=False)), "special tokens"),
        (replace(weights, tokenizer=merged), "token ids: prompt 0"),
        (replace(weights, tokenizer=None), "has no tokenizer"),
    ):
        with pytest.raises(Incomparable, match=said):
            require_alike(weights, candidate, ["DEF f(x): Return x"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: distinct(24)[:31], "31 prompts, where at least 32"),
        (lambda: [*distinct(24)[:31], [0]], "prompt 31 has 1 tokens"),
        (lambda: [*distinct(24)[:31], [0] * 200], "beyond the context of 128"),
        (lambda: [*distinct(24)[:31], distinct(24)[0]], "given twice"),
    ],
)
def test_prompts_that_cannot_carry_a_comparison_are_refused(given: Any, said: str) -> None:
    """Too few prompts, one without a token to predict, one beyond the context, or one twice: nothing is computed."""
    with pytest.raises(Incomparable, match=said):
        check(trained(), trained(), given(), lambda *_, **__: pytest.fail("a row was written"), quiet, None)


def test_a_text_is_taken_as_text() -> None:
    """A special token spelt out in a prompt is text on both sides, and the one put before it is the only one."""
    ids = tokenized(trained(), "<|endoftext|>x")

    assert (1, 0) == (ids.count(0), ids[0])


# ── two sound implementations ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SHAPES)
def test_the_reference_is_our_decoder(name: str) -> None:
    """The list of operations computes what the decoder and transformers compute, to what float32 allows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from sovereign.model.decoder import hf_config

    weights = trained(name)
    ids = distinct(24)[0]
    model = weights.decoder(torch.float64)
    theirs = LlamaForCausalLM(LlamaConfig(**hf_config(weights.shape, weights.vocabulary))).eval()
    theirs.load_state_dict(weights.decoder().state_dict())
    with torch.no_grad():
        ours, others = model(torch.tensor([ids]))[0], theirs(torch.tensor([ids])).logits[0]
    exact = forward(weights).run(ids)

    assert compared(every(ids, exact), every(ids, ours)).relative_l2.max() < 1e-6  # its rotation is kept in float32
    assert compared(every(ids, exact), every(ids, others)).relative_l2.max() < 1e-5


@without_engine
@pytest.mark.parametrize("name", SHAPES)
def test_llama_cpp_agrees_in_float32(name: str, tmp_path: Path) -> None:
    """Prefill and token by token, llama.cpp's float32 logits are within a relative 1e-5 of float64; its ids are ours."""
    path, weights = exported(name, "f32", tmp_path), trained(name)
    ids = distinct(24)[3]
    with LlamaCpp(path, 128, sequences=3) as engine:
        whole, stepped = engine.prefill(ids), engine.stepwise([ids, ids[:7], ids])
        told = engine.tokenize("def f(x):\n\treturn {'é': x}  # <|endoftext|>")
        specials = engine.specials()
    exact = forward(weights).run(ids)

    assert compared(every(ids, exact), every(ids, torch.from_numpy(whole))).relative_l2.max() < 1e-5
    assert compared(every(ids, exact), every(ids, torch.from_numpy(stepped[2]))).relative_l2.max() < 1e-5
    assert np.allclose(stepped[1], stepped[0][:7], atol=1e-4)
    assert (tokenized(weights, "def f(x):\n\treturn {'é': x}  # <|endoftext|>"), (0, 0, True)) == (told, specials)


@without_engine
@pytest.mark.parametrize("quantize", ["q4_k", "q4_k_m", "q8_0", "f16"])
def test_a_layer_fed_alike_agrees_with_llama_cpp_where_nothing_ties(quantize: str, tmp_path: Path) -> None:
    """With activations rounded as llama.cpp does, layers agree to a relative 1e-6 at the median, and ties are named.

    Planted by hand: activations left exact, the median is 5e-3.
    """
    path = exported("tied", quantize, tmp_path)
    with LlamaCpp(path, 128) as engine:
        rows, result = rows_of(trained(), read_gguf_model(path), engine)
    layers = [row for row in rows["parity_layer"] if row.layer < 2]  # type: ignore[attr-defined]
    free = [value for row in layers for at, value in enumerate(row.relative_l2) if at not in parity.tied_positions(row)]  # type: ignore

    assert (None, ()) == (result.located.first, result.missing)
    assert np.median(free) <= 6e-7
    if quantize.startswith("q4"):
        assert any(row.ties for row in layers)  # type: ignore[attr-defined]
        assert np.max(free) <= 1.5e-6
        assert measured(rows, "parity/untied_share").value > 0.5
    assert measured(rows, "parity/decode_top1").low > 0.97
    assert measured(rows, "parity/foreign_blocks").value == 0


def test_quantized_weights_err_as_much_as_their_blocks_say() -> None:
    """The distance that Q4_K makes is that of random errors of the predicted size, within a factor of 2.

    Planted: the scale of every block doubled is more than twice as far, and the tensor's own error tells it, too.
    """
    weights = trained()
    made = {name: packed_as(weights.tensor(name), 1) for name in weights.stored if name.endswith("up_proj.weight")}
    faulty = {name: packed_as(weights.tensor(name), 2) for name in made}
    sound, _ = rows_of(weights, replace(weights, stored={**weights.stored, **made}), None)
    broken, _ = rows_of(weights, replace(weights, stored={**weights.stored, **faulty}), None)

    assert 0.5 <= measured(sound, "parity/weights_over_noise").value <= 2
    assert measured(broken, "parity/weights_over_noise").low > 2
    assert measured(sound, "parity/error_over_expected").value < 1.1
    assert measured(broken, "parity/error_over_expected").value > 3
    assert measured(broken, "parity/accused").value > 0


def packed_as(weights: torch.Tensor, factor: int) -> Stored:
    packed = q4k.quantize(weights)
    blocks = packed.view(-1, 144)
    blocks[:, 0:2] = (blocks[:, 0:2].contiguous().view(torch.float16) * factor).view(torch.uint8)
    return Stored("Q4_K", tuple(weights.shape), lambda: q4k.dequantize(packed), lambda: packed.numpy())


@pytest.mark.parametrize("name", SHAPES)
def test_prompts_side_by_side_go_on_as_each_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of many lengths, all at once, in groups or one at a time: the same tokens, margins and logits, to float32.

    Each alone is what the decoder makes of the whole sequence without a cache, taking its most likely token.
    Planted by hand: every prompt continued behind the longest one's end, or read at its last padding, and this fails.
    """
    model = trained(name).decoder()
    given = [ids[: 1 + number % 20] for number, ids in enumerate(distinct(24)[:9])]
    chosen, margins = greedy(model, given, 6)
    stepped = list(stepwise(model, given))
    monkeypatch.setattr(continuing, "HELD", 2 * model.vocabulary * max(map(len, given)))
    grouped = list(continued(trained(name), model, given))

    assert [continuing.TOKENS] * 9 == [len(one.reference) for one in grouped]
    for ids, tokens, apart, logits, group in zip(given, chosen, margins, stepped, grouped, strict=True):
        alone, clear = alone_greedy(model, ids, 6)
        assert (tokens, list(ids), group.reference) == (alone, group.prompt, group.candidate)
        assert alone == list(group.reference[:6])
        assert apart == pytest.approx(clear, abs=1e-5)
        with torch.no_grad():
            whole = model(torch.tensor([ids]))[0]
        assert compared(every(ids, whole), every(ids, logits)).relative_l2.max() < 2e-6


def alone_greedy(model: Decoder, ids: list[int], count: int) -> tuple[list[int], list[float]]:
    held, margins = list(ids), []
    with torch.no_grad():
        for _ in range(count):
            highest = model(torch.tensor([held]))[0, -1].topk(2)
            held.append(int(highest.indices[0]))
            margins.append(float(highest.values[0] - highest.values[1]))
    return held[len(ids) :], margins


def test_prompts_beside_each_other_are_told_in_order_and_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts at once or one: the same rows in the same order; a refusal is raised, and torch keeps its threads.

    A long prompt stands beside each short one. What comes after the lanes is kept short: on a busy machine its small
    operations wait for each other's threads. Planted by hand: results yielded as they are done, and the order is another.
    """
    monkeypatch.setattr(continuing, "TOKENS", 1)
    monkeypatch.setattr(checking, "LOCATED_PROMPTS", 1)
    given = [ids for pair in zip(distinct(24)[:16], distinct(6)[:16], strict=True) for ids in pair]
    before = torch.get_num_threads()
    found, threads = [], []
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            rows, _ = rows_of(trained(), trained(), None, given)
            holed = {"model.norm.weight": plain("F32", torch.full((trained().shape.hidden,), torch.nan))}
            with pytest.raises(Incomparable, match="the candidate's logits are not all finite"):
                rows_of(trained(), replace(trained(), stored={**trained().stored, **holed}), None, given)
            threads.append(torch.get_num_threads())
        finally:
            torch.set_num_threads(before)
        found.append([row for row in rows["parity"] if row.comparison in ("golden", "weights")])  # type: ignore[attr-defined]

    assert [1, 2] == threads
    assert found[0] == found[1]
    assert [document(ids) for ids in given] == [row.document for row in found[1][::2]]  # type: ignore[attr-defined]


def test_every_part_of_a_check_is_told_as_it_is_done() -> None:
    """Each part begins at none and ends at all, one after the other, and the last end is the end of the work.

    Planted by hand: the greedy continuation left untold, and its rows come after the end of the part before it.
    """
    said: list[tuple[str, int, int]] = []
    rows: dict[str, list[str]] = {}  # kind -> the parts under way as its rows were logged

    def log(kind: str, **values: Any) -> None:
        part, done, total = said[-1]
        rows.setdefault(kind, []).append(part if done < total else f"after {part}")

    check(trained(), trained(), distinct(6), log, lambda *one: said.append(one), None)
    ended = {part: total for part, _, total in said}

    assert ["parity", "parity: going on", "parity: tensors", "parity: operations"] == list(ended)
    assert [(part, done, total) for part, total in ended.items() for done in range(total + 1)] == said
    assert [32, 32, len(rows["parity_tensor"]), 1] == list(ended.values())
    assert {"parity"} == set(rows["parity"])
    assert {"parity: going on"} == set(rows["parity_greedy"])
    assert {"parity: tensors"} == set(rows["parity_tensor"])


def test_logits_are_finite_where_their_sum_is_not() -> None:
    """A sum beyond float64's range is no value that is not finite; one such value is found wherever it stands."""
    large = torch.full((2, 8), 1e308, dtype=torch.float64)

    assert every([1, 2], large).finite
    assert not every([1, 2], large.index_fill(1, torch.tensor([7]), torch.inf)).finite
    assert not every([1, 2], torch.tensor([[1.0, torch.inf], [-torch.inf, 0.0]])).finite


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda blocks: blocks[:, 0:2].copy_((blocks[:, 0:2].contiguous().view(torch.float16) * 2).view(torch.uint8)), "factor of 2 in 256 of 256"),
        (lambda blocks: blocks[:, 2:4].zero_(), "minima zeroed"),
        (lambda blocks: blocks[:, 0:4].copy_(blocks[:, [2, 3, 0, 1]]), "d and dmin swapped"),
        (lambda blocks: blocks[:, 4:12].bitwise_and_(63), "high bits of the scales lost"),
        (lambda blocks: blocks[5:6, 16:].copy_(blocks[5:6, 16:] >> 4 | blocks[5:6, 16:] << 4), "nibbles swapped in 1 of 256"),
        (lambda blocks: blocks[7, 30].bitwise_xor_(8), "only nibbles differ in 1 of 256|1 bits differ"),
    ],
)  # fmt: skip
def test_a_fault_in_packed_bytes_is_named(edit: Any, said: str) -> None:
    """What was done to a block stands in the suspicion, and every block it was done to is counted."""
    import re

    weights, name = trained(), "model.layers.1.mlp.up_proj.weight"
    packed = q4k.quantize(weights.tensor(name))
    edit(packed.view(-1, 144))
    stored = Stored("Q4_K", (256, 256), lambda: q4k.dequantize(packed), lambda: packed.numpy())
    found = {one.tensor: one for one in tensors(weights, replace(weights, stored={**weights.stored, name: stored}))}

    assert re.search(said, found[name].suspicion), found[name].suspicion
    assert {name} == {one.tensor for one in found.values() if one.differing}


def test_a_row_that_no_prompt_touches_is_still_seen() -> None:
    """A wrong embedding row of an unused token changes no logit, and its bytes give it away."""
    weights = trained("untied")
    embedding = weights.tensor("model.embed_tokens.weight").clone()
    unused = next(token for token in range(319, 0, -1) if all(token not in ids for ids in distinct(24)))
    embedding[unused] = 0
    candidate = replace(weights, stored={**weights.stored, "model.embed_tokens.weight": plain("F32", embedding)})
    rows, result = rows_of(weights, candidate, None)

    assert result.located.first is None
    assert measured(rows, "parity/weights_l2_max").value == 0
    assert measured(rows, "parity/foreign_blocks").value > 0


# ── rows and measurements ────────────────────────────────────────────────────────────────────────


def parity_row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "comparison": "whole", "reference": "a", "candidate": "b", "document": document([1]), "tokens": 2, "relative_l2": (0.1, 0.3),
        "cosine": (1.0, 1.0), "max_difference": (0.1, 0.1), "kl": (0.01, 0.03), "margin": (1.0, 1e-9), "agree": (True, False),
        "reference_nll": 2.0, "candidate_nll": 2.1, "targets": 1, "reference_first": 0.5, "candidate_first": 0.4,
    }  # fmt: skip
    return KINDS["parity"](run="r", **{**values, **changes})


def test_equivalence_is_two_one_sided_tests() -> None:
    """`high <= margin` holds exactly when statsmodels' TOST on the paired differences rejects at 5 %."""
    from statsmodels.stats.weightstats import DescrStatsW

    draw = np.random.default_rng(0)
    outcomes = set()
    for margin in (0.005, 0.01, 0.02, 0.05):
        for shift in (0.0, 0.008, 0.015):
            apart = draw.normal(shift, 0.02, 40)
            rows = {"parity": [parity_row(document=document([number]), reference_nll=5.0, candidate_nll=5.0 + one) for number, one in enumerate(apart)]}  # fmt: skip
            theirs = max(DescrStatsW(apart).ttost_mean(-margin, margin)[0], 0.0)
            found = measured(rows, "parity/whole_loss_distance").high <= margin
            outcomes.add(found)
            assert (theirs <= 0.05) == found

    assert outcomes == {True, False}


def test_measurements_are_what_the_rows_say() -> None:
    """Means, maxima, clear choices and first-token distances by hand; what has no rows is not measured."""
    rows = {"parity": [parity_row(), parity_row(document=document([2]), relative_l2=(0.5, 0.1), agree=(True, True))]}

    assert measured(rows, "parity/whole_l2").value == pytest.approx(0.25)
    assert measured(rows, "parity/whole_l2_max").value == 0.5
    assert measured(rows, "parity/whole_kl").value == pytest.approx(0.02)
    assert measured(rows, "parity/whole_top1").value == 1.0  # where they differ, the reference's choice was a tie
    assert measured(rows, "parity/whole_first_token").value == pytest.approx(0.1)
    for metric in (
        "parity/golden_l2",
        "parity/layer_untied_l2",
        "parity/accused",
        "parity/foreign_blocks",
        "parity/weights_over_noise",
    ):
        with pytest.raises(Unmeasurable):
            measured(rows, metric)


def test_a_transposed_head_is_named_as_what_it_is() -> None:
    """The casebook's real bug, an output matrix stored transposed, is named with its tensor."""
    weights = trained("untied")
    head = weights.tensor("lm_head.weight")
    turned = head.T.reshape(head.shape).contiguous()
    candidate = replace(weights, stored={**weights.stored, "lm_head.weight": plain("F32", turned)})
    found = locate(forward(weights), of_torch(forward(candidate, dtype=torch.float32)), distinct(24)[:4])

    assert found.first is not None
    assert ("lm_head.weight", "head") == (found.first.tensor, found.first.name)
    assert "transposed" in found.suspicions[0].what


def test_an_engine_that_hides_a_value_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation whose value the candidate did not show is a named missing obligation, never a pass."""
    honest = checking.of_torch

    def hiding(given: Any) -> Any:
        return lambda ids: {place: value for place, value in honest(given)(ids).items() if place != (1, "gate")}

    monkeypatch.setattr(checking, "of_torch", hiding)
    _, result = rows_of(trained(), trained(), None)

    assert "1/gate" in result.missing[0]


@pytest.mark.parametrize("kind", ["Q4_K", "Q8_0", "F16", "F32"])
def test_activations_are_rounded_once(kind: str) -> None:
    """Rounding what was rounded changes next to nothing, and no more than half a step is lost the first time."""
    x = torch.randn(5, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = rounded(kind, x)

    assert (rounded(kind, once) - once).abs().max() < 1e-3 * (once - x).abs().max() + 1e-12 or kind == "Q4_K"
    assert (once - x).abs().max() <= {"Q4_K": 4 / 127, "Q8_0": 4 / 127, "F16": 2**-10, "F32": 0}[kind]
