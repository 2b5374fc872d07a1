"""The loop beside transformers.Trainer and PEFT: the same model, data, order and seed give the same losses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from sovereign.contract.method import Adapter
from sovereign.contract.training import Adamw, Schedule, Training
from sovereign.corpus.examples import IGNORED, Encoded, ExampleStream, padded
from sovereign.model import adapters
from sovereign.model.pretrained import Pretrained
from sovereign.quantization import nf4
from sovereign.training.loop import train
from sovereign.training.optimizer import optimizer_for

STEPS, SEQUENCES = 50, 4
LORA = Adapter(rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "v_proj", "up_proj"))


def fresh() -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        )
    )  # fmt: skip


def examples() -> list[Encoded]:
    """Return masked examples of different lengths, so that weighing tokens unevenly would show."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(40):
        length, given = int(draw.integers(6, 30)), int(draw.integers(1, 5))
        ids = (draw.integers(0, 97) + np.arange(length + 1) * (1 + number % 3)) % 97
        targets = np.where(np.arange(length) < given, IGNORED, ids[1:])
        found.append(Encoded(f"{number:016x}", ids[:-1].astype(np.int64), targets.astype(np.int64)))
    return found


class Handed(Trainer):
    """A Trainer that is handed the batches of our stream, in its order."""

    stream: ExampleStream
    seen: list[float]

    def get_train_dataloader(self) -> Any:
        for step in range(1, STEPS + 1):
            some = [self.stream.examples[number] for number in self.stream.windows(step)]
            inputs, targets = padded(some)
            ids, labels = torch.from_numpy(inputs), torch.from_numpy(targets)
            # transformers shifts labels itself: a target stands one place further than its input
            shifted = torch.cat([torch.full((len(ids), 1), IGNORED), labels], 1)
            given = torch.cat([ids, torch.zeros(len(ids), 1, dtype=torch.int64)], 1)
            lengths = torch.tensor([len(one.inputs) for one in some])
            mask = (torch.arange(given.shape[1]) < lengths[:, None]).long()
            yield {"input_ids": given, "labels": shifted, "attention_mask": mask}

    def training_step(self, *given: Any, **more: Any) -> torch.Tensor:
        loss = super().training_step(*given, **more)
        self.seen.append(loss.item())
        return loss


def theirs(model: Any, stream: ExampleStream, place: str) -> list[float]:
    args = TrainingArguments(
        output_dir=place, max_steps=STEPS, per_device_train_batch_size=SEQUENCES, learning_rate=2e-3, lr_scheduler_type="constant",
        warmup_steps=0, weight_decay=0.0, adam_beta1=0.9, adam_beta2=0.999, max_grad_norm=1.0, report_to=[], use_cpu=True,
        save_strategy="no", logging_strategy="no", remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = Handed(model=model, args=args, train_dataset=[0] * (STEPS * SEQUENCES))
    trainer.stream, trainer.seen = stream, []
    trainer.train()
    return trainer.seen


def ours(model: Pretrained, stream: ExampleStream) -> list[float]:
    losses: list[float] = []
    settings = Training(
        steps=STEPS, sequences=SEQUENCES, optimizer=Adamw(beta1=0.9, beta2=0.999, weight_decay=0.0),
        schedule=Schedule(kind="constant", peak=2e-3), wrap_around=True, most_passes=10, precision="fp32",
    )  # fmt: skip
    train(
        model, optimizer_for(model, settings.optimizer), stream, settings, device=torch.device("cpu"), precision="fp32", seed=0,
        evaluate_every=STEPS + 1, log=lambda kind, **row: losses.append(row["loss"]) if kind == "step" else None,
    )  # fmt: skip
    return losses


def four_bits(model: LlamaForCausalLM, place: str) -> Any:
    """Return a model loaded again as a user of transformers loads it for QLoRA."""
    from transformers import BitsAndBytesConfig

    model.save_pretrained(place)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )  # fmt: skip
    return LlamaForCausalLM.from_pretrained(
        place, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32
    )


# bitsandbytes' own products register no autograd kernel; its notice is not ours
@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered:UserWarning")
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_losses_are_those_of_the_trainer(method: str, tmp_path: Any) -> None:
    """Over fifty steps on masked examples of different lengths each loss differs by less than 1e-4 nats."""
    stream = ExampleStream(examples(), SEQUENCES, 0, wrap_around=True, most_passes=10)
    start = fresh()
    mine: Any = Pretrained(copy.deepcopy(start))
    other: Any = start
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
        nf4.quantize(mine, adapters.layer_matrices(mine), double=True)
        start = other = four_bits(start, str(tmp_path / "saved"))
    if method != "full":
        adapters.attach(mine, LORA, seed=5)
        other = get_peft_model(
            start,
            LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=list(LORA.targets), task_type="CAUSAL_LM"),
        )
        wanted = {name.removeprefix("net."): weight for name, weight in mine.named_parameters() if "lora_" in name}
        with torch.no_grad():
            for name, weight in other.named_parameters():
                if "lora_" in name:
                    weight.copy_(wanted[name.removeprefix("base_model.model.")])
    found, reference = ours(mine, stream), theirs(other, stream, str(tmp_path))

    assert STEPS == len(found) == len(reference)
    assert max(abs(a - b) for a, b in zip(found, reference, strict=True)) < 1e-4
    assert found[-1] < found[0] - 0.05
