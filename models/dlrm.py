"""A small DLRM: embeddings, two MLPs and the dot products between features.

Source: Naumov et al., arXiv 1906.00091.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

WIDTH = 16
BOTTOM = (64, WIDTH)
TOP = (64, 32, 1)


def mlp(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of `widths` with ReLUs between them."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers[:-1])


class DLRM(nn.Module):
    """Numbers (batch, dense) and categories (batch, tables) to the logit of a click, (batch)."""

    def __init__(self, dense: int, categories: Sequence[int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, WIDTH) for count in categories)
        for table, count in zip(self.tables, categories, strict=True):
            nn.init.uniform_(table.weight, -(count**-0.5), count**-0.5)  # as the paper's code
        self.bottom = mlp(dense, BOTTOM).append(nn.ReLU())
        features = 1 + len(categories)
        self.top = mlp(WIDTH + features * (features - 1) // 2, TOP)
        self.register_buffer("pairs", torch.tril_indices(features, features, -1))

    def forward(self, dense: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        numbers = self.bottom(dense)
        columns = categories.unbind(1)
        looked_up = [table(column) for table, column in zip(self.tables, columns, strict=True)]
        features = torch.stack([numbers, *looked_up], 1)
        dots = (features @ features.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([numbers, dots], 1))[:, 0]
