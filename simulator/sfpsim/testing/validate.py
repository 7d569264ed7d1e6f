"""Exact sizes against reference tensors: ``python -m sfpsim.testing.validate FOLDER``.

FOLDER (or FOLDER/tensors) holds ``*.safetensors`` and ``expected.json``, whose keys are
``file::tensor`` and whose values give the sizes of ``gecko-bias`` and ``gecko-delta``.
Exit 0 where everything agrees, 1 on a mismatch, 2 on a missing folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from sfpsim.containers.base import Array
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.testing.contract import ContractError, check_container

SIZED = ("gecko-bias", "gecko-delta")
DECODED = (
    "fp32",
    "bf16",
    "fp16",
    "gecko-bias",
    "gecko-delta",
    "crest",
    "sfp:m=4,e=5",
    "sfp:m=4,exponent=gecko-bias",
    "sfp:m=2,e=4,exponent=gecko-delta",
)


def size_errors(name: str, x: Array, expected: dict[str, Any]) -> list[str]:
    """Return one line for every size of `x` that differs from `expected`."""
    errors = []
    if expected["values"] != x.size:
        errors.append(f"{name}: {x.size} values, expected {expected['values']}")
    for spec in SIZED:
        sizes = parse_container(spec).measure(x)
        for field, wanted in expected[spec].items():
            if getattr(sizes, field) != wanted:
                errors.append(f"{name}: {spec} {field} {getattr(sizes, field)}, expected {wanted}")
    return errors


def decode_errors(name: str, x: Array) -> list[str]:
    """Return one line for every container that breaks its law on `x`."""
    errors = []
    for spec in DECODED:
        try:
            check_container(parse_container(spec), x)
        except ContractError as error:
            errors.append(f"{name}: {error}")
    return errors


def _tensors(folder: Path) -> Iterator[tuple[str, Array, dict[str, Any]]]:
    expected = json.loads((folder / "expected.json").read_text())
    for file in sorted({key.partition("::")[0] for key in expected}):
        arrays = load_file(folder / file)
        for key, wanted in expected.items():
            if key.startswith(file + "::"):
                yield key, arrays[key.partition("::")[2]], wanted


def validate(folder: Path) -> tuple[int, list[str]]:
    """Return the number of tensors checked and one line for every mismatch.

    Raises
    ------
    InputError
        If the folder or its ``expected.json`` is missing.
    """
    if (folder / "tensors").is_dir():
        folder = folder / "tensors"
    if not (folder / "expected.json").is_file():
        raise InputError(f"no reference tensors: {folder / 'expected.json'} is missing")
    errors: list[str] = []
    count = 0
    for name, x, expected in _tensors(folder):
        count += 1
        errors += size_errors(name, x, expected) + decode_errors(name, np.asarray(x))
    return count, errors


def main(arguments: list[str]) -> int:
    """Check the folder named by the one argument; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m sfpsim.testing.validate FOLDER", file=sys.stderr)
        return 2
    try:
        count, errors = validate(Path(arguments[0]))
    except (InputError, OSError) as error:
        print(f"sfpsim: {error}", file=sys.stderr)
        return 2
    for line in errors:
        print(line)
    print(f"validate: {count} tensors, {len(DECODED)} containers, {len(errors)} mismatches")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
