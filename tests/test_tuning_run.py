"""Tuning from contract to evidence, on a base of our own: each method moves what it may, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fabric import holding
from ranks import on_ranks
from safetensors.torch import load_file
from test_run import sovereign
from torch import nn
from tuned import (
    BASE,
    LABELS,
    LORA,
    METHODS,
    PAIRS,
    SPEC,
    TEXT,
    WORDS,
    carried_out,
    observed,
    outline,
    planned,
    quiet,
    repository,
    rows,
    tuned,
)

from sovereign import attesting
from sovereign import plan as planning
from sovereign import run as execution
from sovereign.canonical import Malformed, parse_yaml, read, validate
from sovereign.cli.main import exit_of
from sovereign.corpus.examples import IGNORED
from sovereign.evidence.intent import Intent
from sovereign.metrics.measure import METRICS, measure
from sovereign.model import kernels
from sovereign.model.adapters import merged
from sovereign.plan import Refused
from sovereign.planted.swapping import swapped
from sovereign.spec.criterion import Spec
from sovereign.training.device import DTYPES, Precision, Unavailable, choose_precision
from sovereign.training.scaling import LossScale
from sovereign.tuning import Tuning, packed_away

SOURCES = {
    "full": PAIRS,
    "lora": PAIRS,
    "qlora": TEXT,
    "rows": TEXT,
    "labels": LABELS,
    "labels-rows": LABELS,
    "labels-full": LABELS,
}
# by hand: rank x (inputs + outputs) of q 64 + 64, v 64 + 32, up 64 + 64, in two layers
ADAPTERS = 4 * (128 + 96 + 128) * 2
BASE_PARAMETERS = 320 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 64 + 2 * 64) + 64
TRAINABLE = {
    "full": BASE_PARAMETERS, "lora": ADAPTERS, "qlora": ADAPTERS, "rows": 6 * 64, "labels": ADAPTERS + 2 * 64,
    "labels-rows": 4 * (320 + 64 + 2 * (64 + 64)) + 2 * 64, "labels-full": BASE_PARAMETERS + 2 * 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a completed base run."""
    place = repository(tmp_path_factory.mktemp("tuned") / "repository")
    assert carried_out(place, BASE).outcome == "completed"
    return place


@pytest.fixture(scope="module")
def folders(root: Path) -> dict[str, Path]:
    """Return a completed run of every method."""
    found = {}
    for name, source in SOURCES.items():
        concluded = carried_out(root, tuned(f"t-{name}", source, name))
        assert concluded.outcome == "completed", concluded.reason
        found[name] = concluded.folder
    return found


def plain(root: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the plain model that a tuned run wrote."""
    return load_file(root / "artifacts" / folder.parent.name / folder.name / "model/model.safetensors")


def base_tensors(root: Path) -> dict[str, torch.Tensor]:
    return best_tensors(root, "toy")


def best_tensors(root: Path, contract: str) -> dict[str, torch.Tensor]:
    """Return the best checkpoint's tensors of a contract's run."""
    listed = attested(root, contract).statement.artifacts
    (file,) = {one.name.partition(": ")[2] for one in listed if one.name.startswith("best")}
    return load_file(root / file)


def attested(root: Path, contract: str = "toy"):
    from sovereign.lineage import parent

    return parent(contract, root)


@pytest.mark.parametrize("name", SOURCES)
def test_each_method_is_what_was_asked(folders: dict[str, Path], name: str) -> None:
    """Every attestation holds, as many parameters move as counted by hand, resuming is exact, and the sides are apart."""
    found, _ = measure(observed(folders[name]), METRICS)
    values = {one.metric: one.value for one in found}
    counted = {row["subject"]: row["found"] for row in rows(folders[name], "attestation")}

    wanted = ("tuning/mismatches", "training/replay_mismatches", "training/tokens_missing", "data/shared_documents")
    assert dict.fromkeys(wanted, 0.0) == {key: values[key] for key in wanted}
    assert str(TRAINABLE[name]) == counted["trainable_parameters"]
    assert {"loaded_tensors", "parent_loss", "frozen_weights"} <= counted.keys()


@pytest.mark.parametrize("name", SOURCES)
def test_the_outline_is_the_model_without_its_content(root: Path, name: str) -> None:
    """Every tensor has the shape, the dtype and the freedom to move of the model that is trained; packing saves what it does."""
    plan = planned(root, tuned(f"t-{name}", SOURCES[name], name))
    assert plan.tuning is not None
    empty, model = plan.tuning.outline(), plan.fresh()
    packed = {name: one for name, one in model.named_parameters() if type(one).__name__ == "Params4bit"}
    wide = {name: empty.get_parameter(name).nbytes for name in packed}

    assert all(weight.is_meta for weight in empty.parameters())
    assert outline(model) == {name: told for name, told in outline(empty).items() if name not in packed}
    assert len(packed) == (14 if name == "qlora" else 0)
    bytes_ = sum(one.nbytes + magnitudes(one.quant_state) for one in packed.values())
    saved = packed_away(empty, plan.tuning.method, torch.float32)
    assert saved == pytest.approx(sum(wide.values()) - bytes_ - max(wide.values(), default=0), rel=0.01)
    assert plan.training_bytes > 4 * sum(one.numel() for name, one in model.named_parameters() if name not in packed)


def magnitudes(state: Any) -> int:
    """Return the bytes of the magnitudes of a matrix in four bits, those of its magnitudes included."""
    nested = magnitudes(state.state2) if state.nested else 0
    return int(state.absmax.nbytes) + nested


def test_four_bits_are_unpacked_for_one_product_at_a_time(root: Path) -> None:
    """In bf16 a matrix that stands in four bits is kept for no way back; one that stands in fp32 is kept in bf16.

    Planted: packed_away that leaves the dtype as it was counts a copy of every matrix.
    """
    text = tuned("t-qlora", PAIRS, "qlora").replace("precision: fp32", "precision: bf16")
    four, whole = (planned(root, text.replace("kind: qlora", kind)) for kind in ("kind: qlora", "kind: lora"))
    inside = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 64)

    assert whole.training_bytes - four.training_bytes > 0.9 * (4 + 2 - 0.5625) * inside - 2 * 64 * 64


PREDICTED = BASE.replace(
    "{hidden: 64, layers: 2, heads: 4, kv_heads: 2, ffn: 64, context: 64}",
    "{hidden: 256, layers: 4, heads: 8, kv_heads: 4, ffn: 768, context: 192}",
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose base is of a size that training is seen to take memory."""
    place = repository(tmp_path_factory.mktemp("large") / "repository")
    (place / "contracts/toy.yaml").write_text(PREDICTED.replace("steps: 60", "steps: 30"))
    for name, source in SOURCES.items():
        written = tuned(f"t-{name}", source, name).replace("precision: fp32", "precision: auto")
        (place / f"contracts/t-{name}.yaml").write_text(written.replace("sequences: 4", "sequences: 16"))
    answers = [" ".join(WORDS[(number + at) % 8] for at in range(1 + number % 30)) for number in range(60)]
    long = [{"prompt": f"say {number}", "answer": answer} for number, answer in enumerate(answers)]
    (place / "long.jsonl").write_text("".join(json.dumps(one) + "\n" for one in long))
    alone = tuned(
        "t-lengths", PAIRS.replace("pairs.jsonl", "long.jsonl"), METHODS["lora"].replace("48", "192"), steps=60
    )
    alone = alone.replace("sequences: 4", "sequences: 1").replace("precision: fp32", "precision: auto")
    (place / "contracts/t-lengths.yaml").write_text(alone)
    ran = sovereign(place, "run", "--contract", str(place / "contracts/toy.yaml"), "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SOURCES, "lengths"])
def test_the_predicted_peak_of_a_tuned_run_is_the_measured_one(large: Path, name: str) -> None:
    """Within 15 %, for every method: weights whole, packed, adapted and grown; batches of one length and of several.

    Planted: the code compiled for each length left out; where batches have a dozen of them, that is found.
    """
    ran = sovereign(large, "run", "--contract", str(large / f"contracts/t-{name}.yaml"), "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    (folder,) = (large / f"evidence/t-{name}").iterdir()
    found = {one.metric: one.value for one in measure(observed(folder), METRICS)[0]}

    assert found["training/memory_error"] < 0.15


@pytest.mark.parametrize("name", ["full", "lora", "rows", "labels-full"])
def test_tuning_learns(folders: dict[str, Path], name: str) -> None:
    """On the control side, which chose nothing, the kept weights lose less than the base, beyond the interval."""
    found = {one.metric: one for one in measure(observed(folders[name]), METRICS)[0]}

    assert found["tuning/improvement"].low > 0


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "rows", "labels-full"])
@pytest.mark.parametrize("kept_in", ["bf16", "fp16"])
def test_weights_may_be_kept_in_half(root: Path, method: str, kept_in: Precision) -> None:
    """All weights, or those that stand still beside adapters: attested, replayed to the last bit, and the base is beaten.

    In fp16 the loss is scaled, and the replayed steps have the scale of the checkpoint that they begin from.

    Planted: kept in bf16 only as it trains, the frozen weights are not those of the base made anew, and the run stops.
    """
    try:
        choose_precision(kept_in, torch.device("cpu"))
    except Unavailable as reason:
        pytest.skip(str(reason))
    text = tuned(f"t-{kept_in}-{method}", {"rows": TEXT, "labels-full": LABELS}.get(method, PAIRS), method)
    text = text.replace("precision: fp32", f"precision: {kept_in}\n  weights: {kept_in}")
    if kept_in == "fp16" and "full" in method:
        text = text.replace("kind: adamw,", "kind: adamw8bit,")
    concluded = carried_out(root, text)
    found = measure(observed(concluded.folder), METRICS)[0]
    values = {one.metric: one for one in found}
    scales = {row.get("loss_scale") for row in rows(concluded.folder, "step")}

    assert concluded.outcome == "completed", concluded.reason
    assert (values["tuning/mismatches"].value, values["training/replay_mismatches"].value) == (0, 0)
    assert values["tuning/improvement"].low > 0  # type: ignore[operator]
    kept = best_tensors(root, f"t-{kept_in}-{method}")
    moving = (".lora_", ".rows")  # beside what stands still they stay in fp32
    assert {torch.float32 if any(one in name for one in moving) else DTYPES[kept_in] for name in kept} == {
        one.dtype for one in kept.values()
    }
    assert (scales == {None}) == (kept_in == "bf16")


def test_only_the_rows_of_new_tokens_move(root: Path, folders: dict[str, Path]) -> None:
    """The embedding's old rows and every other tensor are the base's bit for bit; each new row has moved from its mean."""
    before, after = base_tensors(root), plain(root, folders["rows"])
    name = "model.embed_tokens.weight"
    fresh = planned(root, tuned("t-rows", TEXT, "rows")).fresh().model.embed_tokens.rows

    assert before.keys() == after.keys()
    assert torch.equal(before[name], after[name][:320])
    assert all(torch.equal(before[key], after[key]) for key in before if key != name)
    assert bool((after[name][320:] != fresh).any(1).all())


def test_a_second_phase_inherits_embeddings_and_sides(root: Path, folders: dict[str, Path]) -> None:
    """QLoRA on the first phase's run: its embedding bit for bit, its tokenizer, its held-out documents; NF4 stays as packed."""
    concluded = carried_out(
        root, tuned("t-second", TEXT, f"{{kind: qlora, base: {{run: t-rows}}, context: 48, adapter: {LORA}}}")
    )
    first, second = plain(root, folders["rows"]), plain(root, concluded.folder)
    sides = [
        {row["document"]: row["split"] for row in rows(folder, "corpus")}
        for folder in (folders["rows"], concluded.folder)
    ]
    four_bits = [row for row in rows(concluded.folder, "attestation") if row["subject"] == "quantized_weights"]

    assert concluded.outcome == "completed"
    name = "model.embed_tokens.weight"
    assert torch.equal(first[name], second[name])
    assert all(torch.equal(first[key], second[key]) for key in first if "norm" in key)
    assert sides[0] == sides[1]
    assert [0, 10, 20] == [row["step"] for row in four_bits]
    assert all(row["expected"] == row["found"] for row in four_bits)
    assert 2 == len(rows(concluded.folder, "lineage"))


def test_adapters_train_through_four_bits_after_an_evaluation(folders: dict[str, Path]) -> None:
    """Step 0 is evaluated before the first update, and still every step has a gradient and another loss."""
    steps = rows(folders["qlora"], "step")

    assert all(row["grad_norm"] > 0 for row in steps)
    assert len({row["loss"] for row in steps}) == len(steps)


def test_a_tuned_run_can_be_read_by_transformers(root: Path, folders: dict[str, Path]) -> None:
    """The plain model's folder loads in transformers and gives the logits of the tuned model, adapters merged."""
    from transformers import AutoModelForCausalLM

    place = root / "artifacts" / "t-lora" / folders["lora"].name / "model"
    theirs = AutoModelForCausalLM.from_pretrained(place)
    ids = torch.arange(10, 40)[None]
    ours = planned(root, tuned("again", PAIRS, "full").replace("run: toy", "run: t-lora")).fresh()

    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, ours(ids), atol=1e-5)


def test_an_example_is_shown_as_it_is_learned(root: Path, folders: dict[str, Path]) -> None:
    """One decoded mask is kept as a row and shown by the plan: the prompt is given, the answer and its end are learned."""
    (row,) = rows(folders["lora"], "mask")
    shown = planned(root, tuned("x", PAIRS, "lora")).figures()["an example, [what is learned]"]

    assert [False, True] == [piece["learned"] for piece in row["pieces"]]
    assert row["pieces"][0]["text"].startswith("say ")
    assert row["pieces"][1]["text"].endswith("<|endoftext|>")
    assert f"[{row['pieces'][1]['text']}]" in str(shown)


def test_answers_of_base_and_tuned_model_stand_side_by_side(root: Path) -> None:
    """Held-out prompts and canaries are answered by both on the same seeds, every attempt kept."""
    asked = ', generation: {prompts: 4, tokens: 8, canaries: ["say river", "say gate"], attempts: 3}'
    concluded = carried_out(root, tuned("t-answers", PAIRS, "full", samples=asked))
    found = rows(concluded.folder, "generation")
    keyed = {
        writer: [(one.get("canary", False), one["prompt_id"], one["attempt"], one["prompt"], one["seed"]) for one in found if one["writer"] == writer]
        for writer in ("base", "tuned")
    }  # fmt: skip

    assert keyed["base"] == keyed["tuned"]
    assert 4 + 2 * 3 == len(keyed["tuned"]) == len(set(keyed["tuned"]))
    assert "generation/chrf_gain" in {one.metric for one in measure(observed(concluded.folder), METRICS)[0]}


def test_an_adapter_beside_the_embedding_is_merged_into_its_rows(root: Path) -> None:
    """Fresh, it changes nothing; moved, the plain model's rows are those that the live classifier looks up."""
    live = planned(root, tuned("x", LABELS, "labels-rows")).fresh()
    inside, ids = live.language.model.embed_tokens, torch.arange(320)  # type: ignore[union-attr]
    before = inside(ids).detach()
    with torch.no_grad():
        inside.lora_embedding_A["default"].normal_()
    rows_ = merged(live)["language.model.embed_tokens.weight"]

    assert torch.equal(before, base_tensors(root)["model.embed_tokens.weight"])
    assert torch.allclose(inside(ids), rows_, atol=1e-5)
    assert bool((rows_ != before).any(1).all())


def test_the_ignored_target_is_one_number() -> None:
    """The corpus and the kernels mean the same by a target that carries no loss."""
    assert IGNORED == kernels.IGNORED


# ── refused before step 0 ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("source", "method", "split", "message"),
    [
        (TEXT, "lora", ", salt: another", "lineage contamination: this split holds out"),
        (PAIRS, "{kind: lora, base: {run: toy}, context: 48, adapter: {rank: 4, alpha: 8, targets: [q_proj, v_porj]}}", "",
         "no v_porj in layer 0; there are down_proj, gate_proj, k_proj"),
        (PAIRS, "{kind: lora, base: {run: toy}, context: 48, adapter: {rank: 4, alpha: 8, targets: [q_proj], layers: 3}}", "",
         "3 from the top, and the model has 2"),
        (LABELS, "{kind: classification, base: {run: toy}, context: 48, adapter: {rank: 4, alpha: 8, targets: [wte]}}", "",
         "method.adapter.targets: no wte; the embedding is model.embed_tokens"),
        (PAIRS, "{kind: full, base: {run: toy}, context: 8}", "", "examples have no token that carries loss: what they are given fills the context of 8 alone"),
        (PAIRS, "{kind: full, base: {run: toy}, context: 65}", "", "beyond the 64 positions that the base knows"),
        (PAIRS, "{kind: full, base: {run: nobody}, context: 48}", "", "sovereign run --contract contracts/nobody.yaml"),
    ],
)  # fmt: skip
def test_the_plan_refuses(root: Path, source: str, method: str, split: str, message: str) -> None:
    """What cannot be tuned as asked is refused with the reason, and nothing is written to evidence."""
    try:
        refusals: tuple[str, ...] = planned(root, tuned("refused", source, method, split=split)).refusals
    except Refused as refused:
        refusals = refused.refusals

    assert message in "\n".join(refusals)
    assert not (root / "evidence/refused").exists()


def test_rows_that_four_bits_cannot_pack_are_refused(root: Path) -> None:
    """A matrix whose rows 64 do not divide is named before anything is built, with the method that takes it."""
    plan = planned(root, tuned("wide", TEXT, "qlora"))
    assert plan.tuning is not None
    shapes = {**plan.tuning.shapes, "model.layers.1.mlp.down_proj.weight": (64, 96)}
    (refusal,) = planning.untunable(plan.contract, replace(plan.tuning, shapes=shapes), plan.corpus)

    assert "model.layers.1.mlp.down_proj.weight has rows of 96 weights" in refusal
    assert "method lora" in refusal


def test_an_inherited_split_keeps_the_base_run_s_sides(root: Path) -> None:
    """With another salt and data.split.inherit the held-out documents are still those of the base."""
    text = tuned("kept", TEXT, "lora", split=", salt: another, inherit: true")
    sides = {one.document: one.split for one in planned(root, text).corpus.documents}

    assert sides == attested(root).sides()


def test_a_changed_weights_file_is_refused(root: Path, tmp_path: Path) -> None:
    """One bit of the base's checkpoint differs from what its statement lists: nothing is tuned."""
    place = tmp_path / "repository"
    shutil.copytree(root, place)
    file = attested(place).weights
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")

    with pytest.raises(Malformed, match="is not the file that evidence/toy"):
        planned(place, tuned("x", PAIRS, "full"))


# ── planted ──────────────────────────────────────────────────────────────────────────────────────


def test_a_frozen_weight_that_moves_stops_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: one frozen weight is nudged as the run goes on; the run does not complete."""
    made = Tuning.model

    def nudged(self: Tuning, seed: int) -> nn.Module:
        model = made(self, seed)
        if not hasattr(nudged, "once"):
            nudged.once = True  # type: ignore[attr-defined]
            with torch.no_grad():
                model.model.norm.weight[0] += 1e-3
        return model

    monkeypatch.setattr(Tuning, "model", nudged)
    concluded = carried_out(root, tuned("t-nudged", PAIRS, "lora"))

    assert "abandoned" == concluded.outcome
    assert "not_as_asked" in concluded.reason
    assert "frozen_weights" in concluded.reason


def begun_elsewhere(root: str) -> None:
    """Carry out a tuned contract as one of several processes, its parent's loss doubled; print the exit code."""
    plain = attesting.starts_as
    attesting.starts_as = lambda expected, found: plain(2 * expected, found)
    print(exit_of(["run", "--contract", f"{root}/contracts/t-two.yaml", "--device", "cpu", "--root", root]), flush=True)


def test_a_tuned_run_of_two_processes_stops_as_one(root: Path, tmp_path: Path) -> None:
    """Plant: the model is not its parent, as the first process alone sees; both stop, and the evidence says why."""
    place = tmp_path / "repository"
    shutil.copytree(root, place)
    (place / "contracts/t-two.yaml").write_text(tuned("t-two", PAIRS, "lora"))
    codes = on_ranks(begun_elsewhere, 2, str(place))
    (folder,) = (place / "evidence/t-two").iterdir()
    statement = json.loads((folder / "evidence.json").read_text())

    assert ["8", "8"] == [printed.splitlines()[-1] for printed in codes]
    assert "abandoned" == statement["outcome"]
    assert "weights_not_loaded" in statement["reason"]


def test_more_parameters_that_move_stop_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: the embedding is left movable beside the adapters; the run stops before step 0."""
    made = Tuning.model

    def loose(self: Tuning, seed: int) -> nn.Module:
        model = made(self, seed)
        model.model.embed_tokens.weight.requires_grad_(True)
        return model

    monkeypatch.setattr(Tuning, "model", loose)
    concluded = carried_out(root, tuned("t-loose", PAIRS, "lora"))

    assert f"trainable_parameters: {ADAPTERS} was to be, {ADAPTERS + 320 * 64} is" in concluded.reason
    assert [] == rows(concluded.folder, "step")


# ── cut off, and begun without a base ────────────────────────────────────────────────────────────


class CutOff(Exception):
    """What ends a process of this test."""


def cut_off_and_resumed(root: Path, name: str, text: str) -> Path:
    """Return the folder of a run that was cut off after step 13 and has gone on from the checkpoint of step 10."""
    plan, spec = planned(root, text), validate(Spec, parse_yaml(SPEC.encode(), "spec"))

    def stop(step: int, *told: object) -> None:
        if step == 13:
            raise CutOff

    with pytest.raises(CutOff):
        execution.run(plan, spec, root, told=quiet, progress=stop)
    (folder,) = (root / "evidence" / name).iterdir()
    intent = validate(Intent, read(folder / "intent.json"))
    again = planning.plan(intent.promise, root, "cpu", quiet, intent.seed, base=intent.parent)
    concluded = execution.resume(again, intent, root, told=quiet, progress=lambda *told: None)
    assert "completed" == concluded.outcome, concluded.reason
    return folder


@pytest.mark.parametrize("name", ["lora", "rows", "qlora"])
def test_a_tuned_run_goes_on_bit_for_bit(root: Path, folders: dict[str, Path], name: str) -> None:
    """Cut off and resumed, it makes the weights of the straight run."""
    folder = cut_off_and_resumed(root, f"t-cut-{name}", tuned(f"t-cut-{name}", SOURCES[name], name))
    straight, resumed = plain(root, folders[name]), plain(root, folder)

    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_a_resumed_run_goes_on_with_the_scale_it_had(root: Path) -> None:
    """In fp16 from far too large a scale: what the first steps found of it is not found again by the resumed ones.

    Planted: where the checkpoint's scale is not taken up, step 11 overflows as step 1 did.
    """

    def large(value: float = 2.0**40, clean: int = 0) -> LossScale:
        return LossScale(value, clean)

    with swapped(execution, "LossScale", large):
        text = tuned("t-cut-fp16", PAIRS, "lora").replace("precision: fp32", "precision: fp16")
        folder = cut_off_and_resumed(root, "t-cut-fp16", text)
    steps = rows(folder, "step")

    assert steps[0]["overflows"] > 5
    assert sum(one["overflows"] for one in steps[10:]) <= 1
    assert 0 == {one.metric: one.value for one in measure(observed(folder), METRICS)[0]}["training/replay_mismatches"]


@pytest.mark.slow
def test_a_missing_base_is_made_first(tmp_path: Path) -> None:
    """In a fresh clone `run` carries out the base's contract, says so, and then tunes what it made.

    The base's intent has a command that can be given in any clone. Planted: the one that was carried out, with whole paths, is found.
    """
    root = repository(tmp_path / "r")
    (root / "contracts/second.yaml").write_text(tuned("second", PAIRS, "lora"))
    command = [
        sys.executable,
        "-m",
        "sovereign",
        "run",
        "--contract",
        "contracts/second.yaml",
        "--device",
        "cpu",
        "--root",
        ".",
    ]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert 0 == ran.returncode, ran.stderr
    assert "the base run is missing" in ran.stderr
    assert ["second", "toy"] == sorted(folder.name for folder in (root / "evidence").iterdir())
    assert [] == holding(root / "evidence", root)
    assert "sovereign run --contract contracts/toy.yaml --device cpu --root ." == attested(root).intent.command
