"""The DRAM traffic of a replay as address traces, one file a channel."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from sfpsim.hardware.dram.simulate import Requests
from sfpsim.interop.address_trace import Format, TraceWriter


def channel_paths(path: Path, channels: int) -> list[Path]:
    """Return the file of every channel: `path`, or ``NAME.ch0.txt``, ``NAME.ch1.txt``, ...

    Examples
    --------
    >>> [p.name for p in channel_paths(Path("t.stl.gz"), 2)]
    ['t.ch0.stl.gz', 't.ch1.stl.gz']
    """
    if channels == 1:
        return [path]
    name, dot, suffixes = path.name.partition(".")
    return [path.with_name(f"{name}.ch{c}{dot}{suffixes}") for c in range(channels)]


class TrafficExport:
    """Writes what each channel's controller takes, in order, with the cycle it was taken in.

    Run as a trace, a channel's file is offered to the same controller in the same cycles.
    Use as a context manager: files appear when it is left, and not if that is by an error.

    Parameters
    ----------
    path, form
        The file (see `channel_paths`) and its format.
    channels
        Channels of the machine.

    Raises
    ------
    InputError
        If a file cannot be written.
    """

    def __init__(self, path: Path, form: Format, channels: int) -> None:
        self.paths = channel_paths(path, channels)
        self._stack = ExitStack()
        with ExitStack() as opened:
            self._writers = [opened.enter_context(TraceWriter(p, form)) for p in self.paths]
            self._stack = opened.pop_all()
        self._base = 0

    def add(self, channel: int, requests: Requests) -> None:
        """Append bursts that `channel` took, their cycles counted from the step's start."""
        cycle = requests.cycle
        if cycle is not None and self._base:
            cycle = cycle + np.uint64(self._base)
        moved = Requests(address=requests.address, is_write=requests.is_write, cycle=cycle)
        self._writers[channel].add(moved)

    def next_step(self, cycles: int) -> None:
        """End a step that took `cycles`: the next one's cycles follow."""
        self._base += cycles

    @property
    def requests(self) -> list[int]:
        """Bursts written so far, by channel."""
        return [writer.requests for writer in self._writers]

    def __enter__(self) -> TrafficExport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
