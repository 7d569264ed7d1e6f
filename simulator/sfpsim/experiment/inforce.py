"""Integers whose bits are those in force for each tensor: what a bare ``int`` means.

BitPruning learns a number of bits for every layer; ``int:n=N`` has one for all. A policy
that names ``int`` without bits takes each tensor's own, as a bare ``sfp`` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sfpsim.containers.integers import MOST_BITS, Uniform
from sfpsim.containers.policy import Policy, parse_policy
from sfpsim.errors import InputError
from sfpsim.trace.schema import Lengths

BARE = "int"


@dataclass(frozen=True, kw_only=True)
class IntegersFromTrace(Uniform):
    """``int`` without bits: `resolve` gives those of a tensor."""

    bits: int = MOST_BITS

    @property
    def spec(self) -> str:
        """``int``."""
        return BARE

    def resolve(self, lengths: Lengths | None) -> Uniform:
        """Return the integers of a tensor's lengths in force.

        Raises
        ------
        InputError
            If it has none.
        """
        if lengths is None or lengths.mantissa_bits is None:
            raise InputError("container 'int' without n: no bits are in force: give n= or lengths")
        return Uniform(bits=lengths.mantissa_bits, over=self.over)


def parse_in_force(text: str) -> Policy:
    """Return the policy that `text` describes, in which ``int`` may stand without bits.

    Examples
    --------
    >>> parse_in_force("weight=int;activation=int8").spec
    'weight=int;activation=int8'
    """
    parts = [part.strip() for part in text.split(";")]
    heads = [part.rpartition("=") if part.endswith(f"={BARE}") else ("", "", part)
             for part in parts]  # fmt: skip
    bare = [container == BARE for _, _, container in heads]
    if not any(bare):
        return parse_policy(text)
    marked = f"int:n={MOST_BITS}"
    pieces = [
        f"{role}{equals}{marked if is_bare else container}"
        for (role, equals, container), is_bare in zip(heads, bare, strict=True)
    ]
    found = parse_policy(";".join(pieces))
    roles = {role for (role, _, _), is_bare in zip(heads, bare, strict=True) if is_bare}
    every = bool(roles & {"", "all"})
    free = IntegersFromTrace()
    return replace(
        found,
        spec=text.strip(),
        containers=tuple((r, free if every or r in roles else c) for r, c in found.containers),
        unknown=free if every and found.unknown is not None else found.unknown,
    )
