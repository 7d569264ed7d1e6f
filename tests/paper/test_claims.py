"""docs/papers.md: its numbers are those of its table, and its means are worked out right."""

import importlib.util
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def papers():
    spec = importlib.util.spec_from_file_location("papers", DOCS / "papers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["papers"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_numbers_of_its_table(papers):
    text = (DOCS / "papers.md").read_text()
    written = text.partition(papers.BEGIN)[2].partition(papers.END)[0]
    assert (
        written.strip()
        == papers.block(papers.Results(papers.read_table()), papers.read_inferences()).strip()
    )


def test_gains_are_geometric_means_of_base_over_method(papers):
    def step(network, method, pj):
        return papers.Step(
            network=network, batch=1, machine="sfp-2024", base="bf16", method=method,
            everything=False, bits=16.0, time_ns=1.0, traffic_bytes=1, energy_pj=pj,
            energy_low_pj=pj, energy_high_pj=pj, dram_pj=pj,
        )  # fmt: skip

    gains = dict(zip(papers.NETWORKS, (2.0, 4.0, 8.0), strict=True))
    found = papers.Results(
        [step(n, "", g) for n, g in gains.items()] + [step(n, "SFP_Q", 1.0) for n in gains]
    )
    assert found.mean("energy_pj", "SFP_Q", "bf16") == pytest.approx(4.0)


def test_the_published_footprints_are_those_of_table_1(papers):
    found = papers.Results(papers.read_table())
    bits = (32 / 7.599) * (32 / 8.138) * (32 / 6.030)
    assert found.published("SFP_Q+G", 16) == pytest.approx(16 / bits ** (1 / 3), rel=1e-3)


def test_inference_gains_are_base_over_learned_bits(papers):
    def one(machine, container, size):
        return [
            papers.Inference(
                network=n, machine=machine, container=container, time_ns=size, compute_ns=2 * size,
                traffic_bytes=round(size), energy_pj=size, sqnr_db=1.0,
            )
            for n in papers.BITPRUNING
        ]  # fmt: skip

    sizes = dict(zip(papers.INTEGERS, (160.0, 80.0, 40.0), strict=True))
    found = [x for m in papers.SERIAL for c, s in sizes.items() for x in one(m, c, s)]
    row = papers.inference_table(found).splitlines()[2]
    assert row.split(" | ")[3:] == ["2.00", "4.00", "2.00", "4.00", "2.00", "2.00", "4.00 |"]
