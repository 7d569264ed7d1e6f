"""Committed bytes: a change here is a change of the format and needs a new version."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sfpsim.containers.registry import parse_container
from sfpsim.formats import FORMATS
from sfpsim.testing.validate import main, size_errors, validate

FIXTURE = Path(__file__).parent.parent / "fixture" / "containers"
GOLDEN = json.loads((FIXTURE / "golden.json").read_text())


def words(name):
    fmt = FORMATS[GOLDEN["inputs"][name]["dtype"]]
    return np.frombuffer(bytes.fromhex(GOLDEN["inputs"][name]["words"]), fmt.word_dtype).view(
        fmt.dtype
    )


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: f"{c['container']} {c['input']}")
def test_bytes_are_the_committed_ones(case):
    stored = parse_container(case["container"]).encode(words(case["input"]))
    assert stored.payload.hex() == case["payload"]
    assert stored.metadata.hex() == case["metadata"]
    assert stored.index.hex() == case["index"]


def test_reference_tensors_have_their_exact_sizes(capsys):
    count, errors = validate(FIXTURE)
    assert (errors, count) == ([], 6)
    assert main([str(FIXTURE)]) == 0
    assert "0 mismatches" in capsys.readouterr().out


def test_validation_tells_a_missing_folder_and_a_mismatch(tmp_path):
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2
    expected = json.loads((FIXTURE / "expected.json").read_text())
    name, sizes = next(iter(expected.items()))
    sizes["gecko-bias"]["exponent_bits"] += 1
    (tmp_path / "expected.json").write_text(json.dumps({name: sizes}))
    source = name.partition("::")[0]
    (tmp_path / source).write_bytes((FIXTURE / source).read_bytes())
    assert main([str(tmp_path)]) == 1
    assert size_errors("x", np.zeros(1, np.float32), sizes)


PLAIN_PYTHON = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import naive
from sfpsim.containers.registry import parse_container
from sfpsim.testing.strategies import edge_cases
from sfpsim.testing.contract import check_container
cases = edge_cases()
for spec in sys.argv[2:]:
    for name in ("specials", "tail in row 5", "no signs", "tail in row 0", "empty"):
        for fmt in ("fp32", "bf16", "fp16"):
            x = cases[fmt + " " + name]
            container = parse_container(spec)
            check_container(container, x)
            assert container.encode(x).payload == naive.encode(spec, x)[0]
"""


def test_kernels_are_right_as_plain_python():
    specs = [
        "gecko-bias",
        "gecko-delta",
        "sfp:m=2,e=4",
        "sfp:m=0",
        "sfp:m=3,e=3,exponent=gecko-delta",
    ]
    folder = str(FIXTURE.parent.parent)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PLAIN_PYTHON, folder, *specs],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


GOLDEN_IN_PLAIN_PYTHON = """
import json, sys
from pathlib import Path
import numpy as np
from sfpsim.containers.registry import parse_container
from sfpsim.formats import FORMATS
golden = json.loads(Path(sys.argv[1]).read_text())
for case in golden["cases"]:
    given = golden["inputs"][case["input"]]
    fmt = FORMATS[given["dtype"]]
    x = np.frombuffer(bytes.fromhex(given["words"]), fmt.word_dtype).view(fmt.dtype)
    container = parse_container(case["container"])
    stored = container.encode(x)
    assert stored.payload.hex() == case["payload"], case["container"]
    assert stored.metadata.hex() == case["metadata"], case["container"]
    assert container.decode(stored).tobytes() == container.quantize(x).tobytes()
"""


def test_golden_bytes_are_those_of_the_kernels_as_plain_python():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", GOLDEN_IN_PLAIN_PYTHON, str(FIXTURE / "golden.json")],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
