"""ResNet-8 on Fashion-MNIST, captured: ``python models/resnet8_fashion.py --out run.trace``.

The data (MIT licence) are looked for in ``--data``, SFPSIM_DATA, and where Debian's
package dataset-fashion-mnist puts them.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from sample_data import fashion_folder, fashion_mnist
from torch import nn

from sfpsim.errors import InputError
from sfpsim.trace.capture import Capture


class Block(nn.Module):
    """Two 3x3 convolutions with a residual connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet8(nn.Module):
    """The ResNet-8 of MLPerf Tiny: 16, 32 and 64 channels, 78,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.block1 = Block(16, 16, 1)
        self.block2 = Block(16, 32, 2)
        self.block3 = Block(32, 64, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.relu(self.bn(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(self.pool(x).flatten(1))


class Training:
    """ResNet-8 in training with SGD and momentum: ``step`` runs one step and returns its loss.

    Raises
    ------
    SystemExit
        If the data are missing.
    """

    def __init__(self, folder: Path, batch: int, seed: int = 1) -> None:
        torch.manual_seed(seed)
        self.x, self.y = fashion_mnist(folder)
        self.order = torch.randperm(len(self.x))
        self.batch = batch
        self.model = ResNet8()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4
        )
        self.criterion = nn.CrossEntropyLoss()

    def epoch(self, number: int) -> int:
        """Return the epoch in which step `number` lies."""
        return number * self.batch // len(self.order)

    def step(self, number: int, watch: AbstractContextManager[None] | None = None) -> float:
        """Run step `number`, forward and backward pass inside `watch`."""
        at = number * self.batch % (len(self.order) - self.batch)
        pick = self.order[at : at + self.batch]
        with watch or nullcontext():
            loss = self.criterion(self.model(self.x[pick]), self.y[pick])
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.item())


def train(
    folder: Path, out: Path, *, steps: int, captured: set[int], sample: int | None, batch: int
) -> list[float]:
    """Train for `steps` steps, capture some of them, and return the losses."""
    run = Training(folder, batch)
    with Capture(
        run.model, out, steps=captured, sample=sample, optimizer=run.optimizer, seed=1,
        batch_size=batch, licence="MIT (Fashion-MNIST, Zalando)",
        note=f"SGD 0.05, momentum 0.9, batch {batch}, {steps} steps of Fashion-MNIST",
    ) as capture:  # fmt: skip
        return [run.step(n, capture.step(epoch=run.epoch(n))) for n in range(steps)]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with the four .gz files")
    parser.add_argument("--out", required=True, help="trace directory to make")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--sample", type=int, help="values kept of each tensor; all by default")
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    losses = train(
        fashion_folder(given.data), Path(given.out), steps=given.steps,
        captured=set(range(0, given.steps, given.every)), sample=given.sample, batch=given.batch,
    )  # fmt: skip
    print(f"loss {losses[0]:.3f} -> {np.mean(losses[-20:]):.3f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
