"""What capturing one step in 50 adds to ResNet-8's training: ``python models/capture_overhead.py``.

Three trainings from the same seed take turns, a step each: without capture, with one step in
50 captured whole, and with 4,096 values of each tensor of it. Taking turns lets the load of
the machine fall on all of them alike; who goes first changes every step. Printed are the
medians, over rounds of 50 steps, of the time that the round took more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from resnet8_fashion import Training
from sample_data import fashion_folder

from sfpsim.trace.capture import Capture

EVERY = 50
SAMPLES = {"whole tensors": None, "4,096 values": 4096}


class Arm:
    """One of the trainings that take turns; `rounds` holds the (wall, CPU) seconds of 50 steps."""

    def __init__(self, data: Path, batch: int, out: Path | None, sample: int | None) -> None:
        self.training = Training(data, batch)
        self.watch: Callable[[], AbstractContextManager[None]] = nullcontext
        if out is not None:
            model, optimizer = self.training.model, self.training.optimizer
            capture = Capture(model, out, every=EVERY, sample=sample, optimizer=optimizer)
            self.watch = capture.step
        self.rounds: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def step(self) -> None:
        """Run the next step, the first of 50 captured."""
        number = len(self.losses)
        wall, cpu = time.perf_counter(), time.process_time()
        self.losses.append(self.training.step(number, self.watch()))
        spent = time.perf_counter() - wall, time.process_time() - cpu
        before = self.rounds.pop() if number % EVERY else (0.0, 0.0)
        self.rounds.append((before[0] + spent[0], before[1] + spent[1]))


def overhead(plain: Arm, other: Arm, which: int) -> float:
    """Return the median over the rounds of what `other` took more, a share; 0 wall, 1 CPU.

    The first round, in which PyTorch warms up, is left out.
    """
    pairs = zip(plain.rounds[1:], other.rounds[1:], strict=True)
    return statistics.median(b[which] / a[which] - 1 for a, b in pairs)


def main() -> None:
    """Parse the command line, train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with Fashion-MNIST")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = fashion_folder(given.data)
    with tempfile.TemporaryDirectory() as folder:
        plain = Arm(data, given.batch, None, None)
        arms = {
            name: Arm(data, given.batch, Path(folder) / str(number), sample)
            for number, (name, sample) in enumerate(SAMPLES.items())
        }
        order = [plain, *arms.values()]
        for _ in range((1 + given.rounds) * EVERY):
            for arm in order:
                arm.step()
            order.append(order.pop(0))
    step = statistics.median(wall for wall, _ in plain.rounds[1:]) / EVERY
    print(f"ResNet-8, batch {given.batch}: {step * 1e3:.1f} ms a step without capture")
    for name, arm in arms.items():
        assert arm.losses == plain.losses, "capture changed the training"
        wall, cpu = (overhead(plain, arm, which) for which in (0, 1))
        print(f"one step in {EVERY}, {name}: {wall:+.1%} wall, {cpu:+.1%} CPU")


if __name__ == "__main__":
    main()
