"""What only a process of its own shows: exit status, signals, pipes, imports."""

import os
import signal
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-m", "sfpsim")


def _run(*arguments, **more):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, **more)


HELP = """import atexit, runpy, sys
atexit.register(lambda: print(*sys.modules))
sys.argv[1:] = ["--help"]
runpy.run_module("sfpsim", run_name="__main__")"""


@pytest.mark.parametrize(
    "code", ["import sys, sfpsim; print(*sys.modules)",
             "import sys, sfpsim.cli; print(*sys.modules)", HELP],
)  # fmt: skip
def test_import_and_help_load_nothing_heavy(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numba", "matplotlib", "torch", "numpy", "simpy", "jinja2"}
    assert not heavy & set(done.stdout.split())


def test_a_closed_pipe_is_no_error(single):
    for command in (("list", "containers"), ("replay", single, "-c", "fp32"),
                    ("info", single, "--json", "-")):  # fmt: skip
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*COMMAND, *map(str, command)], stdout=writer, stderr=-1)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_standard_output_is_an_error(single):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, "info", str(single)], stdout=full, stderr=-1)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_usage_errors_are_one_line():
    done = _run("replay", "x", "--wrong")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run unattended
from sfpsim import cli
import sfpsim.trace.reader
def slow(path):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
sfpsim.trace.reader.open_trace = slow
sys.argv = ["sfpsim", "replay", "x", "-c", "fp32", "--json", sys.argv[1]]
cli.main()
"""


def test_ctrl_c(tmp_path):
    target = tmp_path / "r.json"
    process = subprocess.Popen([sys.executable, "-c", WAITING, target], stdout=-1, stderr=-1)
    assert process.stderr.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written(single):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(single / "below")}
    done = _run("info", single, env=environment, text=True)
    assert done.returncode == 0
    assert "temporary one is used" in done.stderr
    assert done.stderr.count("\n") == 1
