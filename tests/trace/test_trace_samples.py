"""Are the sample traces whole, small, and what their manifests say?"""

from pathlib import Path

import pytest

from sfpsim.trace.reader import open_trace

ROOT = Path(__file__).parents[2]
SAMPLES = {
    "resnet8": ROOT / "simulator" / "sfpsim" / "sample" / "resnet8",
    "gpt": ROOT / "traces" / "samples" / "gpt",
}


def size(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def test_they_are_small():
    assert size(SAMPLES["resnet8"]) <= 3_000_000
    assert sum(map(size, SAMPLES.values())) <= 8_000_000


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_they_are_whole_and_say_what_they_are(name):
    trace = open_trace(SAMPLES[name])
    trace.verify()
    assert trace.incomplete_steps == []
    assert len(trace.steps) == 3
    manifest = trace.manifest
    assert None not in (manifest.seed, manifest.licence, manifest.optimizer, manifest.batch_size)
    assert manifest.framework == "torch"
    for step in trace.steps:
        mine = [r for r in trace.records if r.step == step]
        assert {"weight", "activation", "gradient", "optimizer"} <= {r.role for r in mine}
        assert any(op.op.macs for op in trace.ops if op.step == step)
    assert all(r.any_sign is not None for r in trace.records if "float" in r.dtype)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_their_sampled_runs_keep_the_law(name):
    for r in open_trace(SAMPLES[name]).records:
        if r.is_sampled:
            assert len(r.runs) >= 2
            assert all(n >= 512 and n % 64 == 0 and at % 64 == 0 for at, n in r.runs)
            assert r.runs[-1][0] + r.runs[-1][1] <= r.values
