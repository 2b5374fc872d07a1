"""Pretrained language models: a checkpoint of ours, or a folder as `transformers` writes it; every tensor accounted for.

A `Pretrained` wraps a model of transformers so that it answers what our decoder answers: `loss`, `losses`, `hidden`,
`step`. Batches are padded on the right and attention is causal, so none of them needs a mask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sovereign.contract.model import Decoder as Shape
from sovereign.model.decoder import Decoder
from sovereign.model.kernels import linear_cross_entropy, token_losses

# families whose logits are the head's product with the last hidden state, nothing added, scaled or capped
FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Unfit(Exception):
    """Weights that are not what is to be loaded: missing, unexpected, reshaped, pickled, or of another kind."""


def accounted(place: str, saved: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise Unfit, naming them, unless names and shapes of the tensors saved are those wanted (CASE-12)."""
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - saved.keys())]
    faults += [f"{name} is not known here" for name in sorted(saved.keys() - wanted.keys())]
    faults += [
        f"{name} is {list(saved[name])}, expected {list(wanted[name])}"
        for name in sorted(saved.keys() & wanted.keys())
        if saved[name] != wanted[name]
    ]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise Unfit(f"{place}: {shown}")


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of a safetensors file, from its head alone; raises Unfit when it is none."""
    try:
        with safe_open(file, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise Unfit(f"{file}: not a safetensors file: {error}") from None


def decoder_shapes(shape: Shape, vocabulary: int, end_of_text: int | None) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the tensors of our decoder, a tied head left out."""
    with torch.device("meta"):
        return {name: tuple(one.shape) for name, one in Decoder(shape, vocabulary, end_of_text).named_parameters()}


def load_decoder(shape: Shape, vocabulary: int, end_of_text: int | None, file: Path) -> Decoder:
    """Return our decoder with the weights of a safetensors file, each at its name and shape; raises Unfit."""
    accounted(str(file), shapes(file), decoder_shapes(shape, vocabulary, end_of_text))
    with torch.random.fork_rng(devices=[]):
        model = Decoder(shape, vocabulary, end_of_text)
    saved = load_file(file)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(saved[name])
    return model


class Pretrained(nn.Module):
    """A causal language model of transformers behind the methods of our decoder."""

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    @property
    def context(self) -> int:
        """Positions that the model knows."""
        return int(self.net.config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return int(self.net.get_input_embeddings().weight.shape[0])

    @property
    def lm_head(self) -> Any:
        return self.net.get_output_embeddings()

    def hidden(self, ids: Tensor) -> Tensor:
        """Return the last hidden states [b, t, h]."""
        return self.net.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [b, t, v] for the token after each of `ids` [b, t]."""
        return self.lm_head(self.hidden(ids))

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of `targets` [b, t] given `inputs`: a scalar in nats, summed over all but IGNORED."""
        return linear_cross_entropy(self.hidden(inputs).flatten(0, 1), self.lm_head.weight, targets.flatten())

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target [b, t] in nats, without a gradient; IGNORED loses 0."""
        hidden = self.hidden(inputs).flatten(0, 1)
        return token_losses(hidden, self.lm_head.weight, targets.flatten()).view_as(targets)

    def cache(self, sequences: int, positions: int) -> Written:
        """Return room for the ids of so many sequences."""
        return Written(sequences, positions, self.lm_head.weight.device)

    def step(self, ids: Tensor, cache: Written) -> Tensor:
        """Return logits [b, t, v] for the token after each of `ids` [b, t], which continue what `cache` holds.

        All of it is computed again: families keep their keys and values each in its own way.
        """
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        positions = cache.lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        cache.ids[rows, positions] = ids
        hidden = self.hidden(cache.ids[:, : int(positions.max()) + 1])
        return self.lm_head(hidden[rows, positions])


class Written:
    """The ids of several sequences so far, and how long each is."""

    def __init__(self, sequences: int, positions: int, device: torch.device):
        self.ids = torch.zeros(sequences, positions, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(sequences, dtype=torch.int64, device=device)


def load_folder(folder: Path) -> Pretrained:
    """Return the model of a folder with config.json and safetensors; raises Unfit for anything but all of it.

    Pickles are never opened, and code that a folder brings is never run.
    """
    config = _config(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
        raise Unfit(
            f"{folder}: its weights are pickled ({', '.join(pickled[:3])}), which runs code as they are read; "
            "convert them: model.save_pretrained(folder, safe_serialization=True)"
            if pickled
            else f"{folder}: no *.safetensors stands in it"
        )
    if config.get("auto_map"):
        raise Unfit(f"{folder}: config.json asks for code of its own (auto_map); it is never run")
    if config.get("model_type") not in FAMILIES:
        raise Unfit(f"{folder}: model_type {config.get('model_type')!r}; known here are {', '.join(FAMILIES)}")
    from transformers import AutoModelForCausalLM  # seconds, for those who tune such a model

    for file in files:
        shapes(file)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, dtype=torch.float32,
        ignore_mismatched_sizes=True, output_loading_info=True,
    )  # fmt: skip
    net, told = loaded
    faults = [f"{name} is missing" for name in sorted(told["missing_keys"])]
    faults += [f"{name} is not known here" for name in sorted(told["unexpected_keys"])]
    faults += [f"{name} is {list(saved)}, expected {list(wanted)}" for name, saved, wanted in told["mismatched_keys"]]
    if faults:
        raise Unfit(f"{folder}: {'; '.join(faults[:8])}" + (f"; and {len(faults) - 8} more" if len(faults) > 8 else ""))
    return Pretrained(net)


def outlined(file: Path) -> Pretrained:
    """Return the model that a config.json describes, in float32, its weights not loaded; raises Unfit."""
    found = _config(file)
    kind = found.pop("model_type", None)
    if kind not in FAMILIES:
        raise Unfit(f"{file}: model_type {kind!r}; known here are {', '.join(FAMILIES)}")
    from transformers import AutoConfig, AutoModelForCausalLM  # seconds, for those who ask

    builder: Any = AutoModelForCausalLM
    try:
        config: Any = AutoConfig.for_model(kind, **found)
        return Pretrained(builder.from_config(config, trust_remote_code=False, dtype=torch.float32))
    except Exception as error:  # whatever transformers, or torch below it, says of sizes that do not go together
        raise Unfit(f"{file}: describes no model: {error}") from None


def _config(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Unfit(f"{file}: no readable config.json: {error}") from None
    return found if isinstance(found, dict) else {}
