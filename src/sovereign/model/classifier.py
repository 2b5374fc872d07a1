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
        self.score = nn.utils.skip_init(nn.Linear, hidden, labels, bias=False)
        with torch.no_grad():
            self.score.weight.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(seed))

    def logits(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the logits [n, labels] of the n positions that have a target, in float32."""
        hidden = self.language.hidden(inputs)  # type: ignore[operator]
        return self.score(hidden[targets != IGNORED]).float()

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss in nats, summed over the texts."""
        return F.cross_entropy(self.logits(inputs, targets), targets[targets != IGNORED], reduction="sum")

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss at each place [b, t] in nats, 0 where no target stands; no gradient."""
        found = torch.zeros(targets.shape, dtype=torch.float32, device=targets.device)
        with torch.no_grad():
            wanted = targets[targets != IGNORED]
            found[targets != IGNORED] = F.cross_entropy(self.logits(inputs, targets), wanted, reduction="none")
        return found

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.logits(inputs, targets)
