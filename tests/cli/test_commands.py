"""What each command prints and writes, against the contract of docs/cli.md."""

import csv
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sfpsim.cli import split_policies
from sfpsim.errors import InputError
from sfpsim.experiment import bench
from sfpsim.report.terminal import progress

POLICIES = "fp32,gecko-bias,sfp,m=4,e=5"
FIELDS = ("sign", "exponent", "mantissa", "metadata", "padding", "index")


def test_compare_writes_the_contract(sfpsim, arrays):
    found = sfpsim("compare", arrays, "-c", POLICIES, "--per-tensor", "--json", "-").json
    assert set(found) >= {"schema", "sfpsim", "trace", "machine", "containers"}
    assert set(found["trace"]) >= {"path", "steps", "tensors", "values", "sampled"}
    assert set(found["machine"]) >= {"name", "hash", "memory_detail"}
    assert [c["container"] for c in found["containers"]] == ["fp32", "gecko-bias", "sfp:m=4,e=5"]
    for container in found["containers"]:
        totals = container["totals"]
        assert sum(totals[f"{f}_bits"] for f in FIELDS) == totals["total_bits"]
        assert totals["ratio"] == totals["raw_bits"] / totals["total_bits"]
        assert set(totals["energy_pj"]) >= {"dram", "codec", "onchip", "compute", "total"}
        assert {"name", "pass", "limiter", "time_ns", "energy_pj"} <= set(container["layers"][0])
        assert {t["name"] for t in container["tensors"]} >= {"single", "brain", "whole"}


def test_a_file_of_arrays_is_read_and_written_once(sfpsim, single):
    totals = sfpsim("replay", single, "-c", "fp32", "--json", "-").json["containers"][0]["totals"]
    assert totals["read_bytes"] == totals["write_bytes"] == 16_000


def test_what_does_not_apply_is_null(sfpsim, single):
    first = sfpsim("replay", single, "-c", "fp32", "--json", "-").json["containers"][0]
    assert first["totals"]["sqnr_db"] is None
    assert first["totals"]["max_rel_error"] is None
    assert first["tensors"] is None


def test_infinities_and_nans_in_the_values_do_not_reach_the_json(sfpsim, tmp_path):
    x = np.full(300, np.nan, np.float32)
    x[::3] = np.inf
    np.save(tmp_path / "x.npy", x)
    done = sfpsim("compare", tmp_path / "x.npy", "-c", POLICIES + ",sfp:m=0,e=2", "--json", "-")
    assert done.json["containers"][2]["totals"]["nan_lost"] > 0
    assert sfpsim("info", tmp_path / "x.npy", "--json", "-").json["values"] == 300


def test_the_option_may_be_repeated(sfpsim, single):
    found = sfpsim("compare", single, "-c", "fp32", "--containers", "bf16,sfp:m=2", "--json", "-")
    names = [c["container"] for c in found.json["containers"]]
    assert names == ["fp32", "bf16", "sfp:m=2"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["fp32,bf16"], ["fp32", "bf16"]),
        (["sfp,m=4,e=5,bf16"], ["sfp:m=4,e=5", "bf16"]),
        (["sfp:m=4,exponent=gecko-bias"], ["sfp:m=4,exponent=gecko-bias"]),
        (["weight=bf16;activation=sfp,m=4", "fp32"], ["weight=bf16;activation=sfp:m=4", "fp32"]),
        (["weight=sfp:m=1;activation=sfp,m=4"], ["weight=sfp:m=1;activation=sfp:m=4"]),
        (["fp32,all=sfp:m=4,e=5,bf16"], ["fp32", "all=sfp:m=4,e=5", "bf16"]),
    ],
)
def test_comma_lists(given, expected):
    assert split_policies(given) == expected


def test_a_policy_by_role(sfpsim, trace):
    done = sfpsim("info", trace, "--json", "-").json
    assert done["roles"] == {"weight": 1, "activation": 1}
    assert done["lengths"] == [
        {"step": 0, "name": "x", "mantissa_bits": 3, "exponent_bits": 5}
    ]  # fmt: skip


def test_out_holds_all_files(sfpsim, single, tmp_path):
    out = tmp_path / "deep" / "out"
    done = sfpsim("compare", single, "-c", "fp32,bf16", "--out", out)
    assert done.status == 0
    assert "report.html" in done.out
    figures = ("bits", "tradeoff", "traffic", "time", "energy", "live", "exponents")
    expected = {f"{name}.{kind}" for name in figures for kind in ("svg", "pdf", "csv")}
    assert {p.name for p in out.iterdir()} == expected | {
        "results.json", "results.csv", "report.html",
    }  # fmt: skip
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["container"] for row in rows] == ["fp32", "bf16"]
    assert float(rows[0]["energy_pj.dram.rd"]) > 0


def test_several_steps_are_shown_as_training_goes_on(sfpsim, steps, single, tmp_path):
    done = sfpsim("compare", steps, "-c", "bf16,sfp", "--out", tmp_path / "out")
    assert "as training goes on" in done.out
    for name in ("footprint_over_training", "lengths_heatmap"):
        assert (tmp_path / "out" / f"{name}.svg").exists()
    found = sfpsim("replay", steps, "-c", "sfp", "--json", "-").json
    assert [s["step"] for s in found["containers"][0]["steps"]] == [0, 50]
    assert [x["mantissa_bits"] for x in found["lengths"]] == [7, 2]
    assert "as training goes on" in sfpsim("replay", steps, "-c", "sfp").out
    assert "as training goes on" not in sfpsim("replay", single, "-c", "bf16").out
    info = sfpsim("info", steps)
    assert "as training goes on" in info.out
    assert [s["epoch"] for s in sfpsim("info", steps, "--json", "-").json["by_step"]] == [0, 1]


@pytest.mark.parametrize("tensor", ["single", "half", "brain", "empty", "scalar"])
@pytest.mark.parametrize("container", ["gecko-delta", "fp32", "sfp,m=4,e=3"])
def test_encode_verify_decode(sfpsim, arrays, tmp_path, tensor, container):
    stored, back = tmp_path / "x.sfp", tmp_path / "x.safetensors"
    done = sfpsim(
        "encode", arrays, "-c", container, "-o", stored, "--tensor", tensor, "--json", "-"
    )
    assert done.json["file_bytes"] == stored.stat().st_size
    assert done.json["total_bits"] == sum(done.json[f"{f}_bits"] for f in FIELDS)
    assert sfpsim("verify", stored, "--json", "-").json["sound"] is True
    assert sfpsim("decode", stored, "-o", back).status == 0
    source, found = load_file(arrays)[tensor], load_file(back)[tensor]
    assert (found.dtype, found.shape) == (source.dtype, source.shape)
    if container != "sfp,m=4,e=3":
        assert found.tobytes() == source.tobytes()


def test_decode_to_npy(sfpsim, single, tmp_path, values):
    assert sfpsim("encode", single, "-c", "gecko-bias", "-o", tmp_path / "x.sfp").status == 0
    done = sfpsim("decode", tmp_path / "x.sfp", "-o", tmp_path / "y.npy", "--json", "-")
    assert done.json["shape"] == [40, 100]
    assert np.array_equal(np.load(tmp_path / "y.npy"), values)


def test_encode_takes_the_lengths_in_force(sfpsim, trace, tmp_path):
    done = sfpsim("encode", trace, "-c", "sfp", "--tensor", "x", "-o", tmp_path / "x.sfp",
                  "--json", "-")  # fmt: skip
    assert done.json["container"] == "sfp:m=3,e=5"


def test_verify_knows_a_bitstream_by_its_first_bytes(sfpsim, single, tmp_path):
    assert sfpsim("encode", single, "-c", "fp32", "-o", tmp_path / "x.bin").status == 0
    assert sfpsim("verify", tmp_path / "x.bin", "--json", "-").json["kind"] == "sfp"


def test_verify_reads_traces(sfpsim, trace, arrays):
    assert sfpsim("verify", trace).out == f"{trace}: sound, 2 tensors\n"
    assert sfpsim("verify", arrays, "--json", "-").json["kind"] == "trace"


@pytest.mark.parametrize("what", ["containers", "machines", "devices"])
def test_list_names_sources(sfpsim, what):
    found = sfpsim("list", what, "--json", "-").json[what]
    lines = sfpsim("list", what).out.splitlines()
    assert len(found) == len(lines) >= 3
    for entry, line in zip(found, lines, strict=True):
        assert entry["source"]
        assert line == f"{entry['name']}: {entry['summary']} [{entry['source']}]"


def test_doctor(sfpsim):
    found = sfpsim("doctor", "--json", "-").json
    assert found["parts"]["numpy"]
    assert "gecko-bias" in found["containers"]
    assert "cache folder" in sfpsim("doctor").out


def test_version_and_help(sfpsim):
    assert sfpsim("--version").out.startswith("sfpsim 0.")
    assert sfpsim().out == sfpsim("--help").out
    for command in ("demo", "info", "replay", "compare", "explain", "encode", "decode", "verify",
                    "dram", "list", "bench", "doctor"):  # fmt: skip
        assert command in sfpsim("--help").out
        assert "--json" in sfpsim(command, "--help").out


def test_json_goes_to_a_file_beside_the_table(sfpsim, single, tmp_path):
    done = sfpsim("replay", single, "-c", "bf16", "--json", tmp_path / "r.json")
    assert done.status == 0
    assert "bf16" in done.out
    assert (tmp_path / "r.json").read_text().startswith("{")
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_replayed_traffic_goes_to_a_file_a_channel_that_dram_reads(sfpsim, tmp_path):
    np.save(tmp_path / "x.npy", np.ones(150_000, np.float32))
    found = sfpsim(
        "replay", tmp_path / "x.npy", "-c", "bf16", "--detail", "detailed", "--json", "-",
        "--export-trace", tmp_path / "t.rstl.gz", "--trace-format", "rstl",
    ).json  # fmt: skip
    names = [f"t.ch{c}.rstl.gz" for c in range(8)]
    assert sorted(p.name for p in tmp_path.glob("t.*")) == names
    runs = [sfpsim("dram", tmp_path / n, "-d", "lpddr4-3200-x16", "--json", "-").json
            for n in names]  # fmt: skip
    totals = found["containers"][0]["totals"]
    moved = 32 * sum(run["requests"] for run in runs)
    assert moved == totals["read_bytes"] + totals["write_bytes"]
    assert max(run["time_ns"] for run in runs) == pytest.approx(totals["time_ns"], rel=0.01)


def test_devices_are_written_to_and_not_replaced(sfpsim, single):
    assert "values" in sfpsim("info", single, "--json", "/dev/stdout").json
    assert sfpsim("info", single, "--json", "/dev/null").status == 0
    assert Path("/dev/null").is_char_device()


def test_a_link_stays_a_link(sfpsim, single, tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert sfpsim("info", single, "--json", tmp_path / "link.json").status == 0
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").is_file()


@pytest.fixture
def results(sfpsim, single, tmp_path):
    for name, machine in (("a", "sfp-2024"), ("b", "sfp-2024-x64")):
        done = sfpsim("compare", single, "-c", "fp32,sfp:m=4", "--machine", machine,
                      "--json", tmp_path / f"{name}.json")  # fmt: skip
        assert done.status == 0
    return tmp_path / "a.json", tmp_path / "b.json"


def test_explain_adds_up(sfpsim, results):
    a, b = results
    found = sfpsim("explain", a, b, "--from", "fp32", "--json", "-").json
    assert found["a"]["container"] == "fp32"
    assert found["differs"] == ["container", "policy", "machine"]
    assert len(found["waterfalls"]) == 7
    for w in found["waterfalls"]:
        assert w["a"] + sum(c["change"] for c in w["changes"]) == w["b"]
        assert all(isinstance(c["change"], int) for c in w["changes"])
    out = sfpsim("explain", a, b, "--from", "fp32").out
    assert "differ in" in out
    assert "container, policy, machine" in out


def test_explain_of_a_result_with_itself_changes_nothing(sfpsim, results):
    found = sfpsim("explain", results[0], results[0], "--json", "-").json
    assert found["differs"] == []
    assert all(c["change"] == 0 for w in found["waterfalls"] for c in w["changes"])


def test_progress_shows_on_a_terminal_only(monkeypatch, capsys):
    with progress("reading") as bar:
        assert bar is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress("reading") as bar:
        bar(0.5, "half")
    assert "half" in capsys.readouterr().err


def test_the_replay_benchmark(monkeypatch):
    monkeypatch.setattr(bench, "REPLAY_VALUES", 4096)
    monkeypatch.setattr(bench, "COPY_BYTES", 4096)
    found = bench.bench("replay")
    assert found["memcpy_gbps"] > 0
    assert [r["name"] for r in found["results"]] == list(bench.REPLAY_POLICIES)
    assert found["results"][0]["traffic_bytes"] == 2 * 4 * 4096 * bench.REPLAY_TENSORS
    with pytest.raises(InputError, match="allowed are codec"):
        bench.bench("disk")
