"""Trains a network with a method that chooses bitlengths: ``python models/learn_lengths.py``.

``--network`` is one of those of models/tasks.py: ResNet-8, a narrow ResNet-18 and MobileNetV2 on
Fashion-MNIST, a GPT on Shakespeare, MiniLM-L6 on short texts, a DLRM on clicks.
``--method`` is one of fp32, quantum (mantissa and exponent), quantum-mantissa,
lengths:FOLDER@EPOCH (those of another training, kept), bitwave, bitwave-frozen (after
``--learn-epochs``), bitchop, bitpruning, quantum-integer, fixed:BITS and lsq:BITS (integers),
profiled:FOLDER (integers: the shortest at which the network trained there keeps its accuracy
over 500 training images but for ``--tolerance``; it is not trained on) or
emulate:CONTAINER. The folder ``--out`` gets config.json, history.csv (a line an epoch),
lengths.csv (a line an epoch and tensor), batches.csv (a line a batch, of methods that watch
the loss), progress.svg, checkpoint.pt, from which the same command goes on, and, for floats,
run.trace: the last step of every epoch with the lengths in force, for ``sfpsim compare``.

The test is at rounded-up lengths; while lengths are still drawn, batch normalisation has
seen drawn ones, so judge the epochs after freezing. The learning rate falls to a tenth after
half of the epochs and to a hundredth after four fifths; lengths are learned for
``--learn-epochs`` at the start and ``--relearn-epochs`` after each fall, and are frozen in the
last fifth.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tasks import NETWORKS, Classification, make_task

from sfpsim.errors import InputError
from sfpsim.precision import (
    LSQ,
    BitChop,
    BitPruning,
    BitWave,
    Emulation,
    QuantumFloat,
    QuantumInteger,
    profiled_lengths,
)  # fmt: skip
from sfpsim.precision.watching import bits_of_limit
from sfpsim.trace.capture import Capture

RATES = ((0.0, 1.0), (0.5, 0.1), (0.8, 0.01))
PROFILED_EXAMPLES = 500


def make_method(given: argparse.Namespace, task: Any, optimizer: Any) -> Any:
    """Attach the method that the command line names; None for fp32."""
    kind, _, rest = given.method.partition(":")
    model = task.model
    if kind == "fp32":
        return None
    if kind == "profiled":
        found = profile(task, Path(rest), given.tolerance)
        return BitPruning(model, optimizer, learn=False, bits=found)
    if kind in ("quantum", "quantum-mantissa"):
        return QuantumFloat(
            model, optimizer, exponent=kind == "quantum", gamma=given.gamma, seed=given.seed,
            learn_epochs=given.learn_epochs, relearn_epochs=given.relearn_epochs,
            initial_mantissa_bits=given.initial_bits, length_lr=given.length_lr,
        )  # fmt: skip
    if kind == "lengths":
        return QuantumFloat(model, optimizer, lengths=lengths_at(rest))
    if kind in ("bitwave", "bitwave-frozen"):
        return BitWave(
            model, history=given.history, threshold=given.threshold,
            least_mantissa_bits=given.least_bits, least_limit=given.least_limit,
        )  # fmt: skip
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


def profile(task: Any, folder: Path, tolerance: float) -> dict[str, int]:
    """Give the task's model the weights trained in `folder`; return their shortest lengths."""
    path = folder / "checkpoint.pt"
    if not path.is_file() or not isinstance(task, Classification):
        raise SystemExit(
            f"--method profiled:{folder}: must be profiled:FOLDER, FOLDER with a checkpoint.pt, "
            "and a network that is judged by accuracy"
        )
    task.model.load_state_dict(torch.load(path, weights_only=False)["model"])
    held = task.x[:PROFILED_EXAMPLES], task.y[:PROFILED_EXAMPLES]
    task.model.eval()
    with torch.no_grad():
        return profiled_lengths(task.model, lambda: task.share_right(held), tolerance=tolerance)


def lengths_at(place: str) -> dict[str, tuple[float, float]]:
    """Return the lengths that the training in FOLDER had at the end of an epoch; -1: the last."""
    folder, _, number = place.rpartition("@")
    path = Path(folder) / "lengths.csv"
    if not number.lstrip("-").isdigit() or not path.is_file():
        raise SystemExit(
            f"--method lengths:{place}: must be lengths:FOLDER@EPOCH, FOLDER with a lengths.csv"
        )
    with path.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["exponent"]]
    epochs = sorted({int(line["epoch"]) for line in lines})
    epoch = epochs[-1] if number == "-1" and epochs else int(number)
    if epoch not in epochs:
        raise SystemExit(f"{path}: no float lengths of epoch {number}")
    return {
        line["tensor"]: (float(line["mantissa"]), float(line["exponent"]))
        for line in lines if int(line["epoch"]) == epoch
    }  # fmt: skip


class Run:
    """One training: data, model, method, what is written."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out = given, Path(given.out)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(given.seed)
        self.task = make_task(
            given.network, data=given.data, examples=given.examples, batch=given.batch
        )
        self.model, self.optimizer = self.task.model, self.task.optimizer
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.optimizers = [self.optimizer]
        if given.length_lr is not None:
            self.optimizers.append(torch.optim.Adam([{"params": []}], lr=self.rate))
        self.method = make_method(given, self.task, self.optimizers[-1])
        self.history: list[dict[str, float]] = []
        self.lengths: list[list[Any]] = []
        self.first = self.resume()
        self.capture = self.watch()

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
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        self.history, self.lengths = state["history"], state["lengths"]
        torch.set_rng_state(state["chance"])
        return int(state["epoch"]) + 1

    def set_rate(self, number: int) -> None:
        """Set the learning rate of the weights by the share of epochs done."""
        done = number / self.given.epochs
        factor = next(f for start, f in reversed(RATES) if done >= start)
        if factor * self.rate != self.optimizer.param_groups[0]["lr"]:
            shared = 2 if self.given.length_lr is None else 1  # lengths of the same rate
            for optimizer in self.optimizers:
                for group in optimizer.param_groups[:shared]:
                    group["lr"] = factor * self.rate
            if isinstance(self.method, BitChop):
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
        losses, steps = [], self.given.examples // self.given.batch
        for step, batch in enumerate(self.task.batches()):
            if step == steps - 1 and self.capture and number not in self.capture.epochs:
                with self.capture.step(epoch=number):
                    losses.append(self.backward(batch))
            else:
                losses.append(self.backward(batch))
            for optimizer in self.optimizers:
                optimizer.step()
            if sys.stderr.isatty() and step % 20 == 0:
                done = 100 * step * self.given.batch // self.given.examples
                sys.stderr.write(f"\repoch {number} {done:3d} %")
        return math.fsum(losses) / len(losses)

    def backward(self, batch: Any) -> float:
        """Find the gradients of one batch; return the task's loss."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        task = self.task.loss(batch)
        loss = task if self.method is None else self.method.loss(task)
        loss.backward()
        return float(task.detach())

    def judge(self) -> float:
        """Return the task's measure, the model not in training."""
        self.model.eval()
        with torch.no_grad():
            found = self.task.judge()
        self.model.train()
        return float(found)

    def run(self) -> None:
        """Train all epochs, write after each."""
        trains = not self.given.method.startswith("profiled:")
        for number in range(self.first if trains else self.given.epochs - 1, self.given.epochs):
            began = time.process_time()
            loss = self.epoch(number) if trains else math.nan
            seconds = time.process_time() - began
            line = {"epoch": number, "loss": loss, self.task.measure: self.judge()}
            bits = self.method.mean_bits() if hasattr(self.method, "mean_bits") else {}
            line |= {f"mean_{key}_bits": value for key, value in bits.items()}
            self.history.append(line | {"train_cpu_seconds": seconds})
            self.note_lengths(number)
            self.write(number)
            print("  ".join(f"{k} {v:.4g}" for k, v in self.history[-1].items()), flush=True)

    def note_lengths(self, number: int) -> None:
        """Keep every tensor's lengths of this epoch."""
        if isinstance(self.method, BitPruning):
            for key, bits in self.method.bits.items():
                self.lengths.append([number, key, None, None, float(bits.detach().mean())])
        elif isinstance(self.method, QuantumFloat):
            for key, t in self.method.tensors.items():
                pair = float(t.mantissa.detach()), float(t.exponent.detach())
                self.lengths.append([number, key, *pair, None])

    def write_batches(self) -> None:
        """Write the lengths of every batch so far, where a watcher of the loss chose them."""
        steps = self.given.examples // self.given.batch
        with (self.out / "batches.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["epoch", "batch", "mantissa", "exponent", "limit"])
            for at, (mantissa, limit) in enumerate(self.method.history):
                writer.writerow([at // steps, at % steps, mantissa, bits_of_limit(limit), limit])

    def draw(self) -> None:
        """Write the task's measure and the mean bits by epoch as a figure."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
        epochs = [line["epoch"] for line in self.history]
        axis.plot(epochs, [line[self.task.measure] for line in self.history], "o-", color="C0")
        axis.set(xlabel="epoch", title=f"{self.given.network}, {self.given.method}")
        axis.set_ylabel(self.task.title, color="C0")
        bits = [key for key in self.history[-1] if key.startswith("mean_")]
        if bits:
            other = axis.twinx()
            for key, style in zip(bits, ("--", ":", "-."), strict=False):
                label = key.removeprefix("mean_").removesuffix("_bits")
                other.plot(
                    epochs, [line[key] for line in self.history], style, color="C1", label=label
                )
            other.set_ylabel("mean length, bits", color="C1")
            other.set_ylim(bottom=0)
            other.legend(frameon=False, fontsize=8)
        figure.savefig(self.out / "progress.svg")
        plt.close(figure)

    def write(self, number: int) -> None:
        """Write the tables and the checkpoint."""
        with (self.out / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.history[0].keys())
            writer.writeheader()
            writer.writerows(self.history)
        with (self.out / "lengths.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["epoch", "tensor", "mantissa", "exponent", "integer"], *self.lengths]
            )
        (self.out / "config.json").write_text(
            json.dumps(vars(self.given) | {"torch": torch.__version__}, indent=2) + "\n"
        )
        if isinstance(self.method, BitChop | BitWave):
            self.write_batches()
        self.draw()
        state = {
            "epoch": number, "config": vars(self.given), "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers], "history": self.history,
            "lengths": self.lengths, "chance": torch.get_rng_state(),
            "method": self.method.state_dict() if hasattr(self.method, "state_dict") else None,
        }  # fmt: skip
        torch.save(state, self.out / "checkpoint.tmp")
        os.replace(self.out / "checkpoint.tmp", self.out / "checkpoint.pt")

    def watch(self) -> Capture | None:
        """Return what captures the last step of every epoch; None where no float can say it."""
        if isinstance(self.method, BitPruning | LSQ):
            return None
        return Capture(
            self.model, self.out / "run.trace", every=1, optimizer=self.optimizer,
            seed=self.given.seed, sample=16384, append=True, licence=self.task.licence,
            precision_method=self.given.method, batch_size=self.given.batch,
        )  # fmt: skip


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="resnet8")
    parser.add_argument("--method", default="quantum")
    parser.add_argument("--out", required=True, help="folder for everything that is written")
    parser.add_argument("--data", help="folder with the data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--examples", type=int, default=12_800, help="of an epoch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument(
        "--length-lr",
        type=float,
        help="of an Adam for lengths alone; a group of the weights' optimizer by default",
    )
    parser.add_argument("--learn-epochs", type=int, default=5)
    parser.add_argument("--relearn-epochs", type=int, help="--learn-epochs by default")
    parser.add_argument("--initial-bits", type=int, help="where mantissas begin")
    parser.add_argument("--threshold", type=float, default=1e-4, help="of BitWave's slope")
    parser.add_argument("--least-bits", type=int, default=0, help="of BitWave's mantissa")
    parser.add_argument("--least-limit", type=int, default=1, help="of BitWave's exponents")
    parser.add_argument("--tolerance", type=float, default=0.5, help="of profiled:, points")
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
