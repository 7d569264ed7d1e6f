"""Integers whose bits are those in force for each tensor: what a bare ``int`` means.

BitPruning learns a number of bits for every layer; ``int:n=N`` has one for all. A policy
that names ``int`` without bits takes each tensor's own, as a bare ``sfp`` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from sfpsim.containers.base import Container, with_key
from sfpsim.containers.integers import MOST_BITS, Uniform
from sfpsim.containers.policy import Policy, parse_policy
from sfpsim.errors import InputError
from sfpsim.trace.schema import Lengths

BARE = "int"
Held = TypeVar("Held", bound=Container | None)


@dataclass(frozen=True, kw_only=True)
class IntegersFromTrace(Uniform):
    """``int`` without bits: `resolve` gives those of a tensor."""

    bits: int = MOST_BITS

    @property
    def base_spec(self) -> str:
        """``int``, with ``range=`` where it is not the tensor's."""
        return BARE if self.over == "tensor" else with_key(BARE, "range", self.over)

    def resolve(self, lengths: Lengths | None) -> Uniform:
        """Return the integers of a tensor's lengths in force.

        Raises
        ------
        InputError
            If it has none.
        """
        if lengths is None or lengths.mantissa_bits is None:
            raise InputError("container 'int' without n: no bits are in force: give n= or lengths")
        return Uniform(bits=lengths.mantissa_bits, over=self.over, block_values=self.block_values)


def parse_in_force(text: str) -> Policy:
    """Return the policy that `text` describes, in which ``int`` may stand without bits.

    Examples
    --------
    >>> parse_in_force("weight=int;activation=int8").spec
    'weight=int;activation=int8'
    """
    parts = [part.strip() for part in text.split(";")]
    bare = [_is_bare(part) for part in parts]
    if not any(bare):
        return parse_policy(text)
    found = parse_policy(
        ";".join(
            with_key(part, "n", MOST_BITS) if is_bare else part
            for part, is_bare in zip(parts, bare, strict=True)
        )
    )
    roles = {_head(p).rpartition("=")[0] for p, is_bare in zip(parts, bare, strict=True) if is_bare}
    every = bool(roles & {"", "all"})
    return replace(
        found,
        spec=text.strip(),
        containers=tuple((r, _freed(c, every or r in roles)) for r, c in found.containers),
        unknown=_freed(found.unknown, every),
    )


def _head(part: str) -> str:
    """Return role and name of a policy's part."""
    return part.partition(":")[0]


def _is_bare(part: str) -> bool:
    """Whether a policy's part is integers without bits."""
    keys = part.partition(":")[2].split(",")
    return _head(part).rpartition("=")[2] == BARE and not any(k.startswith("n=") for k in keys)


def _freed(container: Held, is_bare: bool) -> Held | IntegersFromTrace:
    """Return a container without its bits where these integers were given bare."""
    if not (is_bare and isinstance(container, Uniform)):
        return container
    return IntegersFromTrace(over=container.over, block_values=container.block_values)
