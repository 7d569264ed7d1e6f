"""Trains the sample models again and rewrites the sample traces (``make traces``).

``python traces/make_samples.py [resnet8] [gpt]`` makes those named, both by default. A trace
is made beside the old one and takes its place when it is whole. Shakespeare's text is
fetched where it is missing.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models"))

import gpt_shakespeare  # noqa: E402
import resnet8_fashion  # noqa: E402
import sample_data  # noqa: E402
import torch  # noqa: E402

from sfpsim.trace.reader import open_trace  # noqa: E402


def resnet8(out: Path) -> list[float]:
    """An early, a middle and the last of 600 steps of ResNet-8, batch 32."""
    steps = 600
    return resnet8_fashion.train(
        sample_data.fashion_folder(), out, steps=steps, captured={5, steps // 2, steps - 1},
        sample=4096, batch=32,
    )  # fmt: skip


def gpt(out: Path) -> list[float]:
    """An early, a middle and the last of 400 steps of the GPT, batch 8."""
    steps = 400
    return gpt_shakespeare.train(
        sample_data.fetch("shakespeare"), out, steps=steps, captured={5, steps // 2, steps - 1},
        sample=1536, batch=8,
    )  # fmt: skip


SAMPLES: dict[str, tuple[Callable[[Path], list[float]], Path]] = {
    "resnet8": (resnet8, ROOT / "simulator" / "sfpsim" / "sample" / "resnet8"),
    "gpt": (gpt, ROOT / "traces" / "samples" / "gpt"),
}


def make(name: str) -> None:
    """Make one sample and put it in its place."""
    train, place = SAMPLES[name]
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".new-{place.name}")
    shutil.rmtree(new, ignore_errors=True)
    losses = train(new)
    open_trace(new).verify()
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    size = sum(file.stat().st_size for file in place.iterdir())
    print(f"{name}: loss {losses[0]:.2f} -> {losses[-1]:.2f}, {size / 1e6:.2f} MB")


def main() -> None:
    """Make the samples named on the command line, all by default."""
    names = sys.argv[1:] or list(SAMPLES)
    unknown = sorted(set(names) - set(SAMPLES))
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: no sample; allowed are {', '.join(SAMPLES)}")
    torch.set_num_threads(1)
    for name in names:
        make(name)


if __name__ == "__main__":
    main()
