"""What the pages say holds: links lead somewhere, code runs, commands are there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sfpsim.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            path = (page.parent / target).resolve()
            assert path.exists(), target
            assert path.is_relative_to(ROOT), target


def test_the_code_of_the_api_page_runs(tmp_path, single, capsys, monkeypatch):
    import sfpsim

    monkeypatch.chdir(tmp_path)
    os.symlink(single, tmp_path / "run.npy")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)
    assert len(blocks) == 2
    namespace = {}
    for block in blocks:
        exec(block.replace("run.trace", "run.npy"), namespace)
    assert "bits a value" in capsys.readouterr().out
    assert (tmp_path / "report" / "report.html").is_file()
    listed = re.findall(r"^\| `(\w+)", (ROOT / "docs" / "api.md").read_text(), re.M)
    also = re.findall(r"`(verify|parse_policy)\(", (ROOT / "docs" / "api.md").read_text())
    assert set(listed) | set(also) == set(sfpsim.__all__) - {"__version__"}


def test_the_command_page_names_every_command():
    text = (ROOT / "docs" / "cli.md").read_text()
    commands = {c.name or c.callback.__name__ for c in app.registered_commands}
    assert set(re.findall(r"^\| `sfpsim (\w+)", text, re.M)) == commands


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_help_explains_every_target():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    explained = {line.split()[0] for line in done.stdout.splitlines() if len(line.split()) > 1}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert explained == set(phony.group(1).split())
