"""Trains a network with a method that chooses bitlengths: ``python models/learn_lengths.py``.

Networks are ResNet-8 and a narrow ResNet-18 on Fashion-MNIST. ``--method`` is one of fp32,
quantum (mantissa and exponent), quantum-mantissa, bitwave, bitwave-frozen (after
``--learn-epochs``), bitchop, bitpruning, quantum-integer, fixed:BITS and lsq:BITS (integers)
or emulate:CONTAINER. The folder ``--out`` gets config.json,
history.csv (a line an epoch), lengths.csv (a line an epoch and tensor), two figures,
checkpoint.pt, from which the same command goes on, and, for float methods, a trace of one
step with the lengths in force, for ``sfpsim compare``. Accuracy is over all 10,000 test
images, at rounded-up lengths; while lengths are still drawn, batch normalisation has seen
drawn ones, so judge the epochs after freezing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from resnet8_fashion import Block, ResNet8
from sample_data import fashion_folder, fashion_mnist
from torch import nn

from sfpsim.errors import InputError
from sfpsim.precision import (
    LSQ,
    BitChop,
    BitPruning,
    BitWave,
    Emulation,
    QuantumFloat,
    QuantumInteger,
)  # fmt: skip
from sfpsim.trace.capture import Capture

RATES = ((0.0, 1.0), (0.5, 0.1), (0.8, 0.01))


class ResNet18(nn.Module):
    """ResNet-18's eight blocks at a sixteenth of its size: 16, 32, 64 and 128 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        widths = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
        widths += [(32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.blocks(self.relu(self.bn(self.stem(x))))
        return self.fc(self.pool(x).flatten(1))


NETWORKS = {"resnet8": ResNet8, "resnet18": ResNet18}


def make_method(given: argparse.Namespace, model: nn.Module, optimizer: Any) -> Any:
    """Attach the method that the command line names; None for fp32."""
    kind, _, rest = given.method.partition(":")
    if kind == "fp32":
        return None
    if kind in ("quantum", "quantum-mantissa"):
        return QuantumFloat(
            model, optimizer, exponent=kind == "quantum", gamma=given.gamma, seed=given.seed,
            learn_epochs=given.learn_epochs, initial_mantissa_bits=given.initial_bits,
            length_lr=given.length_lr,
        )  # fmt: skip
    if kind in ("bitwave", "bitwave-frozen"):
        return BitWave(model, history=given.history)
    if kind == "bitchop":
        return BitChop(model)
    if kind in ("bitpruning", "fixed"):
        return BitPruning(
            model, optimizer, gamma=given.gamma, weighting=given.weighting,
            length_lr=given.length_lr, learn=kind == "bitpruning",
            initial_bits=int(rest) if kind == "fixed" else 8,
        )  # fmt: skip
    if kind == "quantum-integer":
        return QuantumInteger(
            model, optimizer, gamma=given.gamma, seed=given.seed, length_lr=given.length_lr
        )
    if kind == "lsq":
        return LSQ(model, optimizer, bits=int(rest), step_lr=given.length_lr)
    if kind == "emulate":
        return Emulation(model, rest)
    raise SystemExit(f"--method {given.method}: not known; see --help")


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the share of images that are classified right, %."""
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(x[at : at + 500]).argmax(1) == y[at : at + 500]).sum())
            for at in range(0, len(x), 500)
        )
    model.train()
    return 100 * right / len(x)


class Run:
    """One training: data, model, method, what is written."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out = given, Path(given.out)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(given.seed)
        folder = fashion_folder(given.data)
        self.x, self.y = fashion_mnist(folder)
        self.x, self.y = self.x[: given.images], self.y[: given.images]
        self.test = fashion_mnist(folder, "t10k")
        self.model = NETWORKS[given.network]()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=given.lr, momentum=0.9, weight_decay=1e-4
        )
        self.method = make_method(given, self.model, self.optimizer)
        self.history: list[dict[str, float]] = []
        self.lengths: list[list[Any]] = []
        self.first = self.resume()

    def resume(self) -> int:
        """Go on from the checkpoint, where there is one; return the next epoch."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=False)
        if state["config"] != vars(self.given):
            raise SystemExit(f"{path}: of another configuration; give another --out")
        if hasattr(self.method, "load_state_dict"):
            self.method.load_state_dict(state["method"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.lengths = state["history"], state["lengths"]
        torch.set_rng_state(state["chance"])
        return int(state["epoch"]) + 1

    def set_rate(self, number: int) -> None:
        """Set the learning rate of the weights by the share of epochs done."""
        done = number / self.given.epochs
        factor = next(f for start, f in reversed(RATES) if done >= start)
        if factor * self.given.lr != self.optimizer.param_groups[0]["lr"]:
            for group in self.optimizer.param_groups[: 2 if self.given.length_lr is None else 1]:
                group["lr"] = factor * self.given.lr
            if hasattr(self.method, "learning_rate_changed") and not self.method.frozen:
                self.method.learning_rate_changed()

    def begin_epoch(self, number: int) -> None:
        """Follow the schedules of rate and lengths."""
        self.set_rate(number)
        if isinstance(self.method, QuantumFloat):
            self.method.epoch(number)
        last = number >= self.given.epochs - max(1, self.given.epochs // 5)
        if last and isinstance(self.method, BitPruning | QuantumFloat) and not self.method.frozen:
            self.method.freeze()
        if self.given.method == "bitwave-frozen" and number == self.given.learn_epochs:
            self.method.freeze()

    def epoch(self, number: int) -> float:
        """Train one epoch; return the mean loss."""
        self.begin_epoch(number)
        order, batch = torch.randperm(len(self.x)), self.given.batch
        total, steps = 0.0, len(order) // batch
        for step in range(steps):
            pick = order[step * batch : (step + 1) * batch]
            total += self.step(self.x[pick], self.y[pick])
            if sys.stderr.isatty() and step % 20 == 0:
                sys.stderr.write(f"\repoch {number} {100 * step // steps:3d} %")
        return total / steps

    def step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        """Train one batch; return the task's loss."""
        task = nn.functional.cross_entropy(self.model(x), y)
        loss = task if self.method is None else self.method.loss(task)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(task.detach())

    def run(self) -> None:
        """Train all epochs, write after each."""
        for number in range(self.first, self.given.epochs):
            began = time.process_time()
            loss = self.epoch(number)
            seconds = time.process_time() - began
            bits = self.method.mean_bits() if hasattr(self.method, "mean_bits") else {}
            line = {
                "epoch": number,
                "loss": loss,
                "test_accuracy": accuracy(self.model, *self.test),
            }
            line |= {f"mean_{key}_bits": value for key, value in bits.items()}
            self.history.append(line | {"train_cpu_seconds": seconds})
            self.note_lengths(number)
            self.write(number)
            print("  ".join(f"{k} {v:.4g}" for k, v in self.history[-1].items()), flush=True)
        if not isinstance(self.method, BitPruning | LSQ):
            self.capture()

    def note_lengths(self, number: int) -> None:
        """Keep every tensor's lengths of this epoch."""
        if isinstance(self.method, BitPruning):
            for key, bits in self.method.bits.items():
                self.lengths.append([number, key, float(bits.detach().mean()), None])
        elif isinstance(self.method, QuantumFloat):
            for key, t in self.method.tensors.items():
                self.lengths.append(
                    [number, key, float(t.mantissa.detach()), float(t.exponent.detach())]
                )

    def write(self, number: int) -> None:
        """Write the tables and the checkpoint."""
        with (self.out / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.history[0].keys())
            writer.writeheader()
            writer.writerows(self.history)
        with (self.out / "lengths.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["epoch", "tensor", "mantissa_or_integer", "exponent"], *self.lengths]
            )
        (self.out / "config.json").write_text(
            json.dumps(vars(self.given) | {"torch": torch.__version__}, indent=2) + "\n"
        )
        state = {
            "epoch": number, "config": vars(self.given), "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "history": self.history,
            "lengths": self.lengths, "chance": torch.get_rng_state(),
            "method": self.method.state_dict() if hasattr(self.method, "state_dict") else None,
        }  # fmt: skip
        torch.save(state, self.out / "checkpoint.tmp")
        os.replace(self.out / "checkpoint.tmp", self.out / "checkpoint.pt")

    def capture(self) -> None:
        """Write a trace of one more step at the final lengths."""
        folder = self.out / "run.trace"
        if folder.exists():
            return
        lengths = None if self.method is None else self.method.lengths_of
        with Capture(
            self.model, folder, every=1, optimizer=self.optimizer, seed=self.given.seed,
            sample=16384, lengths=lengths, precision_method=self.given.method,
            batch_size=self.given.batch,
        ) as capture, capture.step(epoch=self.given.epochs):  # fmt: skip
            pick = slice(0, self.given.batch)
            nn.functional.cross_entropy(self.model(self.x[pick]), self.y[pick]).backward()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), default="resnet8")
    parser.add_argument("--method", default="quantum")
    parser.add_argument("--out", required=True, help="folder for everything that is written")
    parser.add_argument("--data", help="folder with Fashion-MNIST")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=60_000, help="training images used")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--length-lr", type=float, help="of the lengths; the weights' by default")
    parser.add_argument("--learn-epochs", type=int, default=5)
    parser.add_argument("--initial-bits", type=int, help="where mantissas begin")
    parser.add_argument("--weighting", default="bits", choices=["bits", "memory", "operations"])
    parser.add_argument("--history", type=int, default=100, help="batches that BitWave looks at")
    given = parser.parse_args()
    torch.set_num_threads(1)
    Run(given).run()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
