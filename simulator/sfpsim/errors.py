"""The one base class of errors that a user can cause; the command line prints them in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Choice = TypeVar("Choice", bound=str)


class InputError(ValueError):
    """Unusable input: says what was given and what is allowed; the command line exits with 2."""


def one_of(what: str, text: str, allowed: Sequence[Choice]) -> Choice:
    """Return the one of `allowed` that is called `text`.

    Raises
    ------
    InputError
        If there is none; it says `what` was asked for.
    """
    for known in allowed:
        if known == text:
            return known
    raise InputError(f"{what} {text!r}: allowed are {', '.join(allowed)}")
