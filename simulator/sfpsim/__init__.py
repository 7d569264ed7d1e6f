"""What a training run would cost if its tensors lay in off-chip memory in another container.

The names below load what they need when first used; ``import sfpsim`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sfpsim._version import __version__

if TYPE_CHECKING:
    from sfpsim.containers.base import Container
    from sfpsim.containers.bitstream import read_sfp as decode
    from sfpsim.containers.bitstream import verify_sfp as verify
    from sfpsim.containers.bitstream import write_sfp as encode
    from sfpsim.containers.policy import parse_policy
    from sfpsim.containers.registry import parse_container
    from sfpsim.errors import InputError
    from sfpsim.experiment.compare import compare, replay
    from sfpsim.experiment.explain import explain, load_result
    from sfpsim.hardware.machine import load_machine
    from sfpsim.report.write import write_report
    from sfpsim.trace.capture import Capture
    from sfpsim.trace.info import trace_info
    from sfpsim.trace.reader import open_trace
    from sfpsim.workload.imports import record_module

_HOMES = {
    "Capture": "sfpsim.trace.capture:Capture",
    "Container": "sfpsim.containers.base:Container",
    "InputError": "sfpsim.errors:InputError",
    "compare": "sfpsim.experiment.compare:compare",
    "decode": "sfpsim.containers.bitstream:read_sfp",
    "encode": "sfpsim.containers.bitstream:write_sfp",
    "explain": "sfpsim.experiment.explain:explain",
    "load_machine": "sfpsim.hardware.machine:load_machine",
    "load_result": "sfpsim.experiment.explain:load_result",
    "open_trace": "sfpsim.trace.reader:open_trace",
    "parse_container": "sfpsim.containers.registry:parse_container",
    "parse_policy": "sfpsim.containers.policy:parse_policy",
    "replay": "sfpsim.experiment.compare:replay",
    "record_module": "sfpsim.workload.imports:record_module",
    "trace_info": "sfpsim.trace.info:trace_info",
    "verify": "sfpsim.containers.bitstream:verify_sfp",
    "write_report": "sfpsim.report.write:write_report",
}

__all__ = [
    "Capture",
    "Container",
    "InputError",
    "__version__",
    "compare",
    "decode",
    "encode",
    "explain",
    "load_machine",
    "load_result",
    "open_trace",
    "parse_container",
    "parse_policy",
    "record_module",
    "replay",
    "trace_info",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sfpsim' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return list(__all__)
