"""A classifier: a language model's hidden state at the last token, and a matrix over the labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sovereign.model.kernels import IGNORED


class Classifier(nn.Module):
    """Loss where a target stands, which is a label's number: at the last token of each text."""

    def __init__(self, language: nn.Module, hidden: int, labels: int, seed: int):
        super().__init__()
        self.language = language
        where = next(language.parameters()).device
        self.score = nn.utils.skip_init(nn.Linear, hidden, labels, bias=False, device=where)
        if not self.score.weight.is_meta:
            with torch.no_grad():
                self.score.weight.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(seed))

    def logits(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the logits [b, labels] at the one place of each text [b, t] that has a target, in float32."""
        hidden = self.language.hidden(inputs)  # type: ignore[operator]
        return self.score(hidden[torch.arange(len(hidden), device=hidden.device), _place(targets)]).float()

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss in nats, summed over the texts."""
        return self._losses(inputs, targets).sum()

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss at each place [b, t] in nats, 0 where no target stands; no gradient."""
        with torch.no_grad():
            found = self._losses(inputs, targets)
            return found.new_zeros(targets.shape).scatter(1, _place(targets)[:, None], found[:, None])

    def _losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        label = targets.gather(1, _place(targets)[:, None]).squeeze(1)
        return F.cross_entropy(self.logits(inputs, targets), label, reduction="none", ignore_index=IGNORED)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.logits(inputs, targets)


def _place(targets: Tensor) -> Tensor:
    """Return where in each of `targets` [b, t] its label stands, [b]; 0 where none does."""
    return (targets != IGNORED).int().argmax(1)
