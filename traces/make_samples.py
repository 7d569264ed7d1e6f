"""Trains the sample models again and rewrites the sample traces (``make traces``)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models"))

import resnet8_fashion  # noqa: E402

RESNET8 = ROOT / "simulator" / "sfpsim" / "sample" / "resnet8"
STEPS = 600


def main() -> None:
    """Rewrite the ResNet-8 sample: an early, a middle and the last of 600 steps."""
    folder = resnet8_fashion.data_folder(None)
    shutil.rmtree(RESNET8, ignore_errors=True)
    losses = resnet8_fashion.train(
        folder, RESNET8, steps=STEPS, captured={5, STEPS // 2, STEPS - 1}, sample=4096, batch=64
    )
    size = sum(file.stat().st_size for file in RESNET8.iterdir())
    print(f"{RESNET8.name}: loss {losses[0]:.2f} -> {losses[-1]:.2f}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
