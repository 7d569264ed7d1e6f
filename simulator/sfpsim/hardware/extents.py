"""How much memory the tensors of a step take: live, and reserved by the way of allocating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Extents = Literal["stack", "worst-case", "paged"]
PAGE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Life:
    """A tensor's bytes as stored and at its worst, and the tasks between which it lives.

    `first` is -1 for what is there before the step, `last` the number of tasks for what
    stays. `stacked` marks the stash, which is last in, first out.
    """

    name: str
    bytes: int
    worst_bytes: int
    first: int
    last: int
    stacked: bool


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Bytes in use while a task runs."""

    stash_bytes: int
    other_bytes: int
    reserved_bytes: int


def _reserve(life: Life, how: Extents) -> int:
    if how == "paged":
        return -(-life.bytes // PAGE_BYTES) * PAGE_BYTES
    return life.bytes if how == "stack" and life.stacked else life.worst_bytes


def usage(lives: Sequence[Life], tasks: int, how: Extents) -> list[Usage]:
    """Return what is in use during each of `tasks` tasks.

    The stack's top falls only past tensors that are dead: one that outlives those above it
    keeps its place, and theirs.
    """
    stack: list[Life] = []
    out = []
    for task in range(tasks):
        stack += [x for x in lives if x.stacked and max(x.first, 0) == task]
        while stack and stack[-1].last < task:
            stack.pop()
        live = [x for x in lives if x.first <= task <= x.last]
        held = stack if how == "stack" else [x for x in live if x.stacked]
        fixed = [x for x in lives if not x.stacked and (how != "paged" or x in live)]
        out.append(
            Usage(
                stash_bytes=sum(x.bytes for x in live if x.stacked),
                other_bytes=sum(x.bytes for x in live if not x.stacked),
                reserved_bytes=sum(_reserve(x, how) for x in (*held, *fixed)),
            )
        )
    return out
