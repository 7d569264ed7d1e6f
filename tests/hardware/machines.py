"""Small machines for tests."""

import msgspec

from sfpsim.hardware.machine import load_machine


def machine(**parts):
    """sfp-2024 with keys of its parts changed, for example ``memory={"channels": 1}``."""
    base = load_machine("sfp-2024")
    changed = {
        name: msgspec.structs.replace(getattr(base, name), **keys) for name, keys in parts.items()
    }
    return msgspec.structs.replace(base, **changed)
