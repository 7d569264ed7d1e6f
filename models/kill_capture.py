"""Kills a capture again and again and reads what is left: ``python models/kill_capture.py``.

A child process trains a small network and captures every step; it gets SIGKILL at a random
moment after its first step. Every trace must open and verify afterwards, and hold every
step that the child had reported as written. With ``--after 0`` the moment may also lie
before the first step is written: such a trace is empty, and says so.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

STEPS = 60
SECONDS = 0.3


def child(path: str) -> None:
    """Train and capture; print a line when the trace is begun and after each step."""
    import torch

    from sfpsim.trace.capture import Capture

    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    optimizer = torch.optim.Adam(model.parameters())
    sys.stdin.readline()
    capture = Capture(model, path, every=1, optimizer=optimizer)
    print("begun", flush=True)
    for _ in range(STEPS):
        with capture.step():
            model(torch.randn(16, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        print("step", flush=True)


def start(path: Path) -> subprocess.Popen[str]:
    """Start a child that waits for a line before it captures into `path`."""
    command = [sys.executable, __file__, "--child", str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str], after: int, delay: float) -> int:
    """Let the child go, kill it `delay` seconds after step `after`; return the steps reported."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    for _ in range(1 + after):
        process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    reported = after + process.stdout.read().count("step")
    process.wait()
    process.stdin.close()
    process.stdout.close()
    return reported


def judge(path: Path, reported: int) -> str:
    """Return ``readable``, ``empty`` (no step was written, and it says so), or what is wrong."""
    from sfpsim.errors import InputError
    from sfpsim.trace.reader import open_trace

    try:
        trace = open_trace(path)
        trace.verify()
    except InputError as error:
        none = reported == 0 and "the trace is empty" in str(error)
        return "empty" if none else f"damaged: {error}"
    if len(trace.steps) < reported:
        return f"lost: {reported} steps reported, {len(trace.steps)} found"
    return "incomplete step" if trace.incomplete_steps else "readable"


def kills(count: int, seed: int, after: int = 1) -> Counter[str]:
    """Kill `count` captures at random moments; return how many traces are in what state.

    ``in training`` counts the children that had not come to their end.
    """
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        waiting = start(Path(folder) / "0.trace")
        for number in range(count):
            process, path = waiting, Path(folder) / f"{number}.trace"
            # the next child loads PyTorch while this one is killed
            waiting = start(Path(folder) / f"{number + 1}.trace")
            reported = kill(process, after, chance.uniform(0, SECONDS))
            found[judge(path, reported)] += 1
            found["in training"] += reported < STEPS
        waiting.kill()
        waiting.communicate()
    return found


def main() -> None:
    """Parse the command line, kill, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--after", type=int, default=1, help="steps before the earliest kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child)
        return
    found = kills(given.kills, given.seed, given.after)
    print(f"{given.kills} kills, {found.pop('in training')} of them while training:")
    for state, count in found.most_common():
        print(f"{count:5d} {state}")
    good = found["readable"] + (found["empty"] if given.after == 0 else 0)
    raise SystemExit(0 if good == given.kills else 1)


if __name__ == "__main__":
    main()
