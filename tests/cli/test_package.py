"""The rooms: imports point down, public names are there and documented."""

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
from pathlib import Path

import pytest

import sfpsim
from sfpsim import cli

ROOT = Path(sfpsim.__file__).parent
BELOW = {
    "errors": set(),
    "_version": set(),
    "formats": set(),
    "trace": {"formats"},
    "containers": {"trace", "formats"},
    "workload": {"containers", "trace", "formats"},
    "energy": {"containers", "trace", "formats"},
    "hardware": {"energy", "containers", "trace", "formats"},
    "experiment": {"hardware", "workload", "energy", "containers", "trace", "formats"},
    "precision": {"containers", "trace", "formats"},
    "interop": {"hardware", "energy", "containers", "trace", "formats"},
}
BELOW["report"] = {"experiment", *BELOW["experiment"]}
BELOW["cli"] = {"report", "interop", *BELOW["report"]}
EVERYWHERE = {"errors", "_version"}
LAZY = {"torch": ("trace", "precision"), "matplotlib": ("report",)}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "sfpsim":
                yield from (f"sfpsim.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("room", sorted(BELOW))
def test_imports_point_down(room):
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else (ROOT / room).rglob("*.py")
    allowed = {room, *BELOW[room], *EVERYWHERE}
    for path in files:
        for name in _imports(path):
            if name.startswith("sfpsim."):
                target = name.split(".")[1]
                assert target in allowed or target == "__version__", f"{path.name} imports {name}"


def test_every_room_is_in_the_order():
    rooms = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - set(BELOW) == {"__init__", "__main__", "testing"}


@pytest.mark.parametrize("library", sorted(LAZY))
def test_heavy_libraries_have_their_rooms(library):
    for path in ROOT.rglob("*.py"):
        if any(name.split(".")[0] == library for name in _imports(path)):
            assert path.relative_to(ROOT).parts[0] in LAZY[library], path


@pytest.mark.parametrize("name", [n for n in sfpsim.__all__ if n not in ("__version__", "Capture")])
def test_public_names(name):
    found = getattr(sfpsim, name)
    assert inspect.getdoc(found)
    assert name in dir(sfpsim)


def test_the_examples_in_docstrings_run():
    tried = 0
    for module in pkgutil.walk_packages(sfpsim.__path__, "sfpsim."):
        if module.name != "sfpsim.__main__":
            found = doctest.testmod(importlib.import_module(module.name))
            assert found.failed == 0, module.name
            tried += found.attempted
    assert tried >= 4


def test_the_cache_falls_back(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "restored at the end")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(cli, "_writable", lambda folder: folder == tmp_path / "sfpsim")
    cli._usable_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "sfpsim")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(cli, "_writable", lambda folder: False)
    cli._usable_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).is_dir()
    assert "temporary one" in capsys.readouterr().err


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing"):
        _ = sfpsim.nothing


def test_the_typing_names_are_the_lazy_ones():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {
        (alias.asname or alias.name): f"{n.module}:{alias.name}"
        for n in block.body
        for alias in n.names
    }
    assert typed == sfpsim._HOMES
