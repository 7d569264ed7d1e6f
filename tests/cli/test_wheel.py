"""The wheel holds the one package, with what it needs and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names in a wheel built from a copy of the sources, so that nothing is left in them."""
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "simulator", source / "simulator", ignore=ignored)
    command = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=source, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(source / done.stdout.split()[-1]) as wheel:
        return wheel.namelist()


@pytest.mark.slow
def test_the_top_level_is_sfpsim_alone(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sfpsim"}


@pytest.mark.slow
def test_everything_that_is_needed_is_inside(names):
    package = ROOT / "simulator"
    needed = [
        path.relative_to(package).as_posix()
        for path in (package / "sfpsim").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert set(needed) <= set(names)
    for ending in ("py.typed", "sfp-2024.yaml", "lpddr4-3200-x16.yaml", "codec.yaml",
                   "manifest.json", "segment-00000.safetensors", "paper.mplstyle",
                   "report.html.j2"):  # fmt: skip
        assert [name for name in names if name.endswith(ending)]
    assert not [name for name in names if "test" in Path(name).name.split("_")]
