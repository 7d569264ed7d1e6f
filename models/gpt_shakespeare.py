"""A small GPT on Shakespeare, captured: ``python models/gpt_shakespeare.py --out run.trace``.

Four decoder blocks of width 128 with causal attention, 0.83 million parameters, characters
as tokens. The text (public domain) comes from the source archive of the package
shakespeare 0.6, looked for in ``--data``, SFPSIM_DATA and .data/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sample_data import archive_of, shakespeare
from torch import nn

from sfpsim.errors import InputError
from sfpsim.trace.capture import Capture

WIDTH = 128
HEADS = 4
BLOCKS = 4
TOKENS = 128


class Attention(nn.Module):
    """Causal self-attention with several heads, its two products written out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("future", torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend: (batch, tokens, width) to the same."""
        batch, tokens, _ = x.shape
        heads = self.qkv(x).view(batch, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind(0)
        scores = q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5
        scores = scores.masked_fill(self.future[:tokens, :tokens], float("-inf"))
        mixed = scores.softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH))


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised before and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.ln2 = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        x = x + self.attention(self.ln1(x))
        return x + self.fc2(self.gelu(self.fc1(self.ln2(x))))


class GPT(nn.Module):
    """A decoder over characters."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.token = nn.Embedding(characters, WIDTH)
        self.place = nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.ln = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, characters, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, tokens, characters) for indices (batch, tokens)."""
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


def train(
    archive: Path, out: Path, *, steps: int, captured: set[int], sample: int | None, batch: int
) -> list[float]:
    """Train for `steps` steps, capture some of them, and return the losses."""
    torch.manual_seed(1)
    text, alphabet = shakespeare(archive)
    model = GPT(len(alphabet))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    with Capture(
        model, out, steps=captured, sample=sample, optimizer=optimizer, seed=1, batch_size=batch,
        licence="public domain (Shakespeare, Project Gutenberg's texts)",
        note=f"AdamW 0.001, batch {batch}, {TOKENS} characters, {steps} steps of Shakespeare",
    ) as capture:  # fmt: skip
        for step in range(steps):
            starts = torch.randint(len(text) - TOKENS - 1, (batch, 1))
            window = text[starts + torch.arange(TOKENS + 1)]
            with capture.step(epoch=step * batch * TOKENS // len(text)):
                logits = model(window[:, :-1])
                loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="the archive, or the folder that it is in")
    parser.add_argument("--out", required=True, help="trace directory to make")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--sample", type=int, help="values kept of each tensor; all by default")
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    losses = train(
        archive_of("shakespeare", given.data), Path(given.out), steps=given.steps,
        captured=set(range(0, given.steps, given.every)), sample=given.sample, batch=given.batch,
    )  # fmt: skip
    print(f"loss {losses[0]:.3f} -> {np.mean(losses[-20:]):.3f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
