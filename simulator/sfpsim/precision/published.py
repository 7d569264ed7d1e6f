"""The papers' published bitlengths as data, and whether they add up.

A value spends mantissa, exponent and sign bits, so the reductions of Table 1 must satisfy
``32 / total = 23 / mantissa + 8 / exponent + sign`` with a share of sign bits from 0 to 1:
0 where no sign is counted, 1 where every value has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

Family = Literal["quantum", "bitwave"]
FAMILIES: tuple[Family, ...] = ("quantum", "bitwave")
# Printed with four digits, so the bits of a column are known to about half a hundredth.
SLACK_BITS = 0.02


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    quantum: tuple[float, float, float, float, float]
    bitwave: tuple[float, float, float, float, float]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: str
    columns: list[str]
    rows: dict[str, _Row]


@dataclass(frozen=True, kw_only=True)
class PublishedBits:
    """Mean bits a value that a row of Table 1 implies; `sign` is what is left of the total."""

    network: str
    family: Family
    mantissa: float
    exponent: float
    exponent_gecko: float
    total: float
    total_gecko: float

    @property
    def sign(self) -> float:
        """Sign bits a value, without Gecko."""
        return self.total - self.mantissa - self.exponent

    @property
    def sign_gecko(self) -> float:
        """Sign bits a value, with Gecko."""
        return self.total_gecko - self.mantissa - self.exponent_gecko

    @property
    def closes(self) -> bool:
        """Whether both totals leave the same share of signs, 0 to 1."""
        agree = abs(self.sign - self.sign_gecko) <= 2 * SLACK_BITS
        return agree and -SLACK_BITS <= self.sign <= 1 + SLACK_BITS


@cache
def _table() -> _Table:
    import yaml

    text = (resources.files("sfpsim.precision") / "published.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), _Table)


def published_bits() -> list[PublishedBits]:
    """Return every row of Table 1 as bits a value, both families of methods."""
    out = []
    for network, row in _table().rows.items():
        for family in FAMILIES:
            mantissa, exponent, exponent_gecko, total, total_gecko = getattr(row, family)
            out.append(
                PublishedBits(
                    network=network,
                    family=family,
                    mantissa=23 / mantissa,
                    exponent=8 / exponent,
                    exponent_gecko=8 / exponent_gecko,
                    total=32 / total,
                    total_gecko=32 / total_gecko,
                )
            )
    return out
