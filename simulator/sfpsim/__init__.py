"""What a training run would cost if its tensors lay in off-chip memory in another container.

The names below load what they need when first used; ``import sfpsim`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sfpsim._version import __version__

if TYPE_CHECKING:
    from sfpsim.containers.policy import parse_policy
    from sfpsim.containers.registry import parse_container
    from sfpsim.experiment.compare import compare, replay
    from sfpsim.hardware.machine import load_machine
    from sfpsim.report.write import write_report
    from sfpsim.trace.capture import Capture
    from sfpsim.trace.reader import open_trace

_HOMES = {
    "Capture": "sfpsim.trace.capture",
    "compare": "sfpsim.experiment.compare",
    "load_machine": "sfpsim.hardware.machine",
    "open_trace": "sfpsim.trace.reader",
    "parse_container": "sfpsim.containers.registry",
    "parse_policy": "sfpsim.containers.policy",
    "replay": "sfpsim.experiment.compare",
    "write_report": "sfpsim.report.write",
}

__all__ = [
    "Capture",
    "__version__",
    "compare",
    "load_machine",
    "open_trace",
    "parse_container",
    "parse_policy",
    "replay",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sfpsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
