"""ResNet-8 on Fashion-MNIST, captured: ``python models/resnet8_fashion.py --out run.trace``.

The data are the four ``*.gz`` files of Fashion-MNIST (MIT licence), in the folder given by
``--data`` or the environment variable SFPSIM_DATA.
"""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sfpsim.trace.capture import Capture

SIDE = 28


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


def data_folder(given: str | None) -> Path:
    """Return the folder with the data, or stop and say where they come from."""
    folder = Path(given or os.environ.get("SFPSIM_DATA", "fashion-mnist"))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        raise SystemExit(
            f"{folder}: no Fashion-MNIST here. Install the Debian package "
            "dataset-fashion-mnist (or download the four .gz files of Fashion-MNIST) and name "
            "the folder with --data or SFPSIM_DATA."
        )
    return folder


def load(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised training images (n, 1, 28, 28), float32, and labels (n,), int64."""
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, SIDE, SIDE)
    raw = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(raw, np.uint8, offset=8)
    x = (torch.from_numpy(images.astype(np.float32)) / 255 - 0.286) / 0.353
    return x, torch.from_numpy(labels.astype(np.int64))


def train(
    folder: Path, out: Path, *, steps: int, captured: set[int], sample: int | None, batch: int
) -> list[float]:
    """Train for `steps` steps, capture some of them, and return the losses."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    x, y = load(folder)
    order = torch.randperm(len(x))
    model = ResNet8()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()
    losses = []
    with Capture(
        model, out, steps=captured, sample=sample, optimizer=optimizer, seed=1, batch_size=batch,
        licence="MIT (Fashion-MNIST, Zalando)",
        note=f"SGD 0.05, momentum 0.9, batch {batch}, {steps} steps of Fashion-MNIST",
    ) as capture:  # fmt: skip
        for step in range(steps):
            at = step * batch % (len(order) - batch)
            pick = order[at : at + batch]
            with capture.step(epoch=step * batch // len(order)):
                loss = criterion(model(x[pick]), y[pick])
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with the four .gz files")
    parser.add_argument("--out", required=True, help="trace directory to make")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--sample", type=int, help="values kept of each tensor; all by default")
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    losses = train(
        data_folder(given.data), Path(given.out), steps=given.steps,
        captured=set(range(0, given.steps, given.every)), sample=given.sample, batch=given.batch,
    )  # fmt: skip
    print(f"loss {losses[0]:.3f} -> {np.mean(losses[-20:]):.3f}")


if __name__ == "__main__":
    main()
