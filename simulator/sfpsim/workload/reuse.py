"""On-chip reuse: how often each operand of a product is fetched.

The least of four schemes for A (m x k), B (k x n), C (m x n) with a buffer of S values,
half of it for the operand that stays; partial sums are never spilled. Products in groups
(depthwise convolutions, the heads of an attention) run group by group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A name and how often A and B are fetched; C is written once."""

    name: str
    a_times: int
    b_times: int
    resident: str


def _tiles(m: int, n: int, half: int) -> list[tuple[int, int]]:
    """Return (rows, columns) of tiles of C, a tile in `half` values, that may be the least.

    For every number of rows of tiles the lowest tile that gives it, as wide as fits.
    """
    out = []
    tile = min(m, half)
    while tile:
        down = -(-m // tile)
        tile = -(-m // down)
        out.append((down, -(-n // min(n, half // tile))))
        tile = (m - 1) // down
    return out


@lru_cache(maxsize=1 << 16)
def best_scheme(
    a: int, b: int, c: int, m: int, n: int, buffer_values: int, groups: int = 1
) -> Scheme:
    """Return the scheme that moves the fewest values.

    Parameters
    ----------
    a, b, c
        Unique values of each operand, all groups together.
    m, n
        Sizes of C in one group.
    buffer_values
        Values of the chip's type that the buffer holds, S.
    groups
        Groups that share nothing.

    Examples
    --------
    >>> best_scheme(100, 50, 50, 10, 5, buffer_values=80)
    Scheme(name='output tiles', a_times=1, b_times=2, resident='')
    """
    a, b, c = (-(-size // groups) for size in (a, b, c))
    if a + b + c <= buffer_values:
        return Scheme(name="everything fits", a_times=1, b_times=1, resident="b")
    half = max(1, buffer_values // 2)
    found = [
        Scheme(name="B resident", a_times=max(1, -(-b // half)), b_times=1, resident="b"),
        Scheme(name="A resident", a_times=1, b_times=max(1, -(-a // half)), resident="a"),
    ]
    found += [
        Scheme(name="output tiles", a_times=across, b_times=down, resident="")
        for down, across in _tiles(m, n, half)
    ]
    return min(found, key=lambda s: a * s.a_times + b * s.b_times)
