"""``sfpsim dram``: every format gives the same result; what cannot be run is one line."""

import gzip

import msgspec
import numpy as np
import pytest
import yaml

from sfpsim.hardware.dram.device import load_device, presets
from sfpsim.hardware.dram.simulate import Requests
from sfpsim.interop.address_trace import FORMATS, write_trace

DEVICE = "lpddr4-3200-x16"
LINE = "0x40 READ 0\n"


@pytest.fixture(scope="module")
def requests():
    rng = np.random.default_rng(1)
    address = rng.integers(0, 1 << 14, 500).astype(np.uint64) * 32
    return Requests(
        address=address,
        is_write=(rng.random(500) < 0.3).astype(np.uint8),
        cycle=np.zeros(500, np.uint64),
    )


@pytest.fixture
def trace(tmp_path, requests):
    path = tmp_path / "t.txt"
    write_trace(path, "dramsim3", [requests])
    return path


def test_a_trace_runs(sfpsim, trace):
    done = sfpsim("dram", trace, "--device", DEVICE, "--json", "-").json
    assert (done["schema"], done["device"], done["policy"]) == (1, DEVICE, "default")
    assert done["requests"] == done["reads"] + done["writes"] == 500
    counts, energy = done["counts"], done["energy_pj"]
    assert counts["rd"] + counts["wr"] + counts["forwarded"] == 500
    parts = (v for k, v in energy.items() if k != "total" and v is not None)
    assert energy["total"] == pytest.approx(sum(parts))
    assert done["bandwidth_gbps"] == pytest.approx(500 * 32 / done["time_ns"])
    out = sfpsim("dram", trace, "--device", DEVICE).out
    for word in ("bandwidth", "% of peak", "active standby", "pJ/bit", f"act {counts['act']}"):
        assert word in out


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same(sfpsim, trace, tmp_path, requests, form, ending):
    name = form if form in ("stl", "rstl") else "txt"
    path = tmp_path / f"x.{name}{ending}"
    write_trace(path, form, [requests])
    expected = sfpsim("dram", trace, "-d", DEVICE, "--json", "-").json
    for more in ([], ["--format", form]):
        found = sfpsim("dram", path, "-d", DEVICE, *more, "--json", "-").json
        timed = ("wall_s", "cpu_s")
        assert {k: v for k, v in found.items() if k not in timed} == {
            k: v for k, v in expected.items() if k not in timed
        }


@pytest.mark.parametrize("name", presets())
def test_every_device(sfpsim, tmp_path, name):
    device = load_device(name)
    step = np.arange(300, dtype=np.uint64)
    address = step * np.uint64(device.access_bytes)
    path = tmp_path / "t.stl"
    write_trace(path, "stl", [Requests(address=address, is_write=(step % 3 == 2).astype(np.uint8),
                                       cycle=step)])  # fmt: skip
    done = sfpsim("dram", path, "-d", name, "--json", "-").json
    assert done["counts"]["rd"] + done["counts"]["wr"] == 300
    assert 0.1 < done["bandwidth_gbps"] / device.peak_gbps < 1


def test_a_device_file(sfpsim, trace, tmp_path):
    path = tmp_path / "mine.yaml"
    found = msgspec.to_builtins(load_device(DEVICE))
    path.write_text(yaml.safe_dump(found | {"name": "mine", "trp": 40}))
    assert sfpsim("dram", trace, "-d", path, "--json", "-").json["device"] == "mine"


def test_lengths_and_vectors(sfpsim, tmp_path):
    (tmp_path / "t.stl").write_text("0: (128) read 0x0\n")
    found = sfpsim("dram", tmp_path / "t.stl", "-d", DEVICE, "--json", "-").json
    assert found["requests"] == 4
    (tmp_path / "v.txt").write_text("R 0,0,3,17,5\nW 0,0,4,17,5\n")
    found = sfpsim("dram", tmp_path / "v.txt", "-d", DEVICE, "--json", "-").json
    assert found["counts"]["act"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--device"),
        (("-d", "ddr9"), "unknown device 'ddr9'"),
        (("-d", DEVICE, "--policy", "fast"), "unknown policy 'fast': allowed are default"),
        (("-d", DEVICE, "--format", "csv"), "unknown trace format 'csv': allowed are dramsim3"),
        (("-d", DEVICE, "--format", "stl"), "no cycle"),
        (("-d", DEVICE, "--json", "/none/x.json"), "/none is no folder"),
        (("-d", DEVICE, "--quick"), "--quick"),
    ],
)
def test_wrong_usage(sfpsim, trace, arguments, said):
    assert said in sfpsim("dram", trace, *arguments).line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no request in it"),
        (b"# only a comment\n", "no request in it"),
        (f"{LINE}0x40 RAED 1\n".encode(), ":2: '0x40 RAED 1': no command"),
        (f"{LINE}\n0x40 READ x\n".encode(), ":3: '0x40 READ x': no cycle"),
        (b"0x40000000 READ 0\n", "READ 0': beyond the device, which has addresses 0 to 0x3fffffff"),
        (gzip.compress(LINE.encode() * 9)[:-9], "damaged gzip"),
        (b"\x00\x01\x02", "t.txt"),
        (b"R 0,0,8,1,1\n", "vectors below 1,1,8,65536,64"),
        (b"R 0,0,1,1\n", "no address vector of 5 fields"),
    ],
)
def test_unusable_traces(sfpsim, tmp_path, content, said):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    done = sfpsim("dram", path, "-d", DEVICE, "--json", tmp_path / "r.json")
    assert said in done.line
    assert not (tmp_path / "r.json").exists()


def test_no_such_trace(sfpsim, tmp_path):
    assert "cannot be read" in sfpsim("dram", tmp_path / "none", "-d", DEVICE).line
    assert "cannot be read" in sfpsim("dram", tmp_path, "-d", DEVICE).line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tras": 10}, "tras=10 must not be below trcd=29"),
        ({"banks": 0}, "banks=0 must be positive"),
        ({"mapping": "ro ba"}, "does not cover the address"),
        ({"speed": 1}, "speed"),
        ({"trp": None}, "trp"),
    ],
)
def test_unusable_devices(sfpsim, trace, tmp_path, change, said):
    found = msgspec.to_builtins(load_device(DEVICE)) | change
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in found.items() if v is not None}))
    assert said in sfpsim("dram", trace, "-d", path).line


def test_progress_shows_how_far_the_file_is_read(sfpsim, trace, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert sfpsim("dram", trace, "-d", DEVICE).status == 0
