"""Standard output, standard error and the targets of ``--json``."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sfpsim.errors import InputError

PIPE_WIDTH = 120
Progress = Callable[[float, str], None]


def say(text: Any, quiet: bool = False) -> None:
    """Print `text` (rich markup is not read) on standard output.

    Raises
    ------
    BrokenPipeError
        If the reader has gone.
    """
    if quiet:
        return
    if isinstance(text, str):
        sys.stdout.write(text + "\n")
        return
    from rich.console import Console

    class Output(Console):
        """A console that leaves a closed pipe to its caller."""

        def on_broken_pipe(self) -> None:
            """Raise again instead of exiting with 1."""
            raise BrokenPipeError

    Output(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(text)


def is_stdout(target: str | None) -> bool:
    """Whether JSON goes to standard output, and nothing else may."""
    return target in ("-", "/dev/stdout")


def check_target(target: str | None) -> None:
    """Find out before any work whether ``--json TARGET`` can be written.

    Raises
    ------
    InputError
        If it cannot.
    """
    if target is None or is_stdout(target):
        return
    path = Path(target)
    if path.is_dir():
        raise InputError(f"{target}: cannot be written: it is a folder, a file is needed")
    if not path.parent.is_dir():
        raise InputError(f"{target}: cannot be written: {path.parent} is no folder")
    if not os.access(path if _is_special(path) else path.parent, os.W_OK):
        raise InputError(f"{target}: cannot be written: permission denied")


def _is_special(path: Path) -> bool:
    """Whether `path` must be written in place: a device, a pipe, anything below /dev."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    in_dev = Path("/dev") in path.absolute().parents
    return in_dev or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def write_json(target: str | None, value: Any) -> None:
    """Write `value` (structs, mappings, lists) as JSON to a file, ``-`` for standard output.

    NaN and infinities become null. A file appears whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    if target is None:
        return
    data = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    if is_stdout(target):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    from sfpsim.trace.writer import write_atomically

    path = Path(target)
    try:
        if _is_special(path):
            path.write_bytes(data)
        else:
            write_atomically(path.resolve(), data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error


@contextmanager
def progress(label: str = "") -> Iterator[Progress | None]:
    """Yield a callback (share done, label) with a bar on standard error.

    Without a terminal it yields None and shows nothing. Until the callback is called the
    bar only shows that something is going on.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, text: bar.update(task, total=1.0, completed=done, description=text)
