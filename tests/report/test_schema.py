"""The JSON Schemas are those of the structs, and results keep to them."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest

from sfpsim.cli import run
from sfpsim.experiment import explain, result
from sfpsim.report import documents
from sfpsim.report.write import to_json

DOCS = Path(__file__).parents[2] / "docs"


def _generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_schemas_are_up_to_date():
    texts = _generate().schema_texts()
    assert {p.name for p in (DOCS / "schema").iterdir()} == set(texts)
    for name, text in texts.items():
        assert (DOCS / "schema" / name).read_text() == text, f"{name}: run make docs"


def _validator(name):
    return jsonschema.Draft202012Validator(json.loads((DOCS / "schema" / name).read_text()))


def test_a_comparison_keeps_to_its_schema(comparison):
    plain = json.loads(to_json(comparison))
    _validator("compare.json").validate(plain)
    del plain["containers"][0]["totals"]["ratio"]
    with pytest.raises(jsonschema.ValidationError):
        _validator("compare.json").validate(plain)


def test_every_command_keeps_to_its_schema(tmp_path, capfd, comparison):
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 200, dtype=np.float32))
    (tmp_path / "r.json").write_bytes(to_json(comparison))
    x, sfp, result_file = (str(tmp_path / n) for n in ("x.npy", "x.sfp", "r.json"))
    commands = (
        ("info", x), ("replay", x, "-c", "bf16"), ("encode", x, "-c", "gecko-bias", "-o", sfp),
        ("decode", sfp, "-o", str(tmp_path / "y.npy")), ("verify", sfp), ("verify", x),
        ("list", "machines"), ("doctor",), ("explain", result_file, result_file),
    )  # fmt: skip
    for command in commands:
        capfd.readouterr()
        assert run([*command, "--json", "-"]) == 0
        name = {"replay": "compare"}.get(command[0], command[0])
        plain = json.loads(capfd.readouterr().out)
        _validator(f"{name}.json").validate(plain)
        assert plain["schema"] == 1


def test_a_comparison_survives_the_way_through_json(comparison):
    assert msgspec.json.decode(to_json(comparison), type=result.Comparison) == comparison


def _fields():
    for module in (result, explain, documents):
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                if issubclass(kind, msgspec.Struct):
                    yield from (
                        (kind.__name__, f.encode_name) for f in msgspec.structs.fields(kind)
                    )
                else:
                    yield from ((kind.__name__, key) for key in kind.__annotations__)


def test_every_field_is_documented():
    text = (DOCS / "results.md").read_text()
    missing = sorted({f"{kind}.{field}" for kind, field in _fields() if f"`{field}`" not in text})
    assert missing == []
