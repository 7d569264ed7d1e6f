"""The one base class of errors that a user can cause; the command line prints them in one line."""

from __future__ import annotations


class InputError(ValueError):
    """Unusable input: says what was given and what is allowed; the command line exits with 2."""
