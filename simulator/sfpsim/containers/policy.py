"""Which role's tensors lie in which container."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sfpsim.containers.base import Container, with_key
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError

ROLES = ("weight", "activation", "gradient", "optimizer", "other")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A container for some roles; the other roles stay in the machine's baseline type.

    Attributes
    ----------
    spec
        The text that `parse_policy` turned into this policy, as it was given.
    containers
        Pairs of role and container, in the order of `ROLES`.
    unknown
        The container of tensors whose role is unknown, None for the baseline.
    """

    spec: str
    containers: tuple[tuple[str, Container], ...]
    unknown: Container | None = None

    def container_for(self, role: str, baseline: Container) -> Container:
        """Return the container of tensors of `role`, `baseline` where none is given.

        Raises
        ------
        InputError
            If `role` is no role.
        """
        if role == "unknown":
            return self.unknown or baseline
        if role not in ROLES:
            raise InputError(f"unknown role {role!r}: allowed are {', '.join(ROLES)}, unknown")
        return dict(self.containers).get(role, baseline)

    def by_role(self, baseline: Container) -> dict[str, str]:
        """Return the specification of every role's container, for results."""
        return {role: self.container_for(role, baseline).spec for role in ROLES}


def _uniform(text: str, container: Container, roles: tuple[str, ...]) -> Policy:
    return Policy(
        spec=text, containers=tuple((role, container) for role in roles), unknown=container
    )


def policy_of(container: Container) -> Policy:
    """Return the policy of a bare container: weights, activations and unknown roles."""
    return _uniform(container.spec, container, ("weight", "activation"))


def with_blocks(text: str, block_values: int) -> str:
    """Return the policy `text` with ``block=`` behind each of its containers.

    Examples
    --------
    >>> with_blocks("weight=bf16;activation=sfp:m=4,e=5", 1024)
    'weight=bf16:block=1024;activation=sfp:m=4,e=5,block=1024'
    """
    return ";".join(with_key(part.strip(), "block", block_values) for part in text.split(";"))


def _is_role_part(part: str) -> bool:
    head, equals, _ = part.partition("=")
    return bool(equals) and ":" not in head


def parse_policy(text: str) -> Policy:
    """Return the policy that `text` describes.

    ``weight=C;activation=C;gradient=C;optimizer=C;other=C`` (any of them), ``all=C``, or a
    bare container, which holds weights and activations and tensors of unknown role.

    Raises
    ------
    InputError
        If a role or a container is unknown, or a role is given twice.

    Examples
    --------
    >>> parse_policy("weight=bf16;activation=sfp:m=4,e=5").spec
    'weight=bf16;activation=sfp:m=4,e=5'
    """
    return replace(_parsed(text), spec=text.strip())


def _parsed(text: str) -> Policy:
    parts = [part.strip() for part in text.split(";")]
    if len(parts) == 1 and not _is_role_part(parts[0]):
        return policy_of(parse_container(parts[0]))
    given: dict[str, Container] = {}
    for part in parts:
        role, equals, spec = (piece.strip() for piece in part.partition("="))
        if not equals or role not in (*ROLES, "all"):
            raise InputError(
                f"policy {text!r}: {part!r} is not ROLE=CONTAINER with a role of all, "
                + ", ".join(ROLES)
            )
        if role in given:
            raise InputError(f"policy {text!r}: role {role!r} is given twice")
        given[role] = parse_container(spec)
    return _policy_by_role(text, given)


def _policy_by_role(text: str, given: dict[str, Container]) -> Policy:
    if "all" in given:
        if len(given) > 1:
            raise InputError(f"policy {text!r}: all= stands alone")
        return _uniform(f"all={given['all'].spec}", given["all"], ROLES)
    pairs = tuple((role, given[role]) for role in ROLES if role in given)
    spec = ";".join(f"{role}={container.spec}" for role, container in pairs)
    return Policy(spec=spec, containers=pairs)
