"""The page of all containers: ``python -m sfpsim.containers.table`` writes docs/zoo.md's text.

Two seeded FP32 tensors of 65,536 values stand for training: weights, normal with standard
deviation 0.05, and activations behind a ReLU, half of them zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfpsim.containers.base import Array, CodecTiming, Container
from sfpsim.containers.quality import quality
from sfpsim.containers.registry import parse_container
from sfpsim.formats import FP32

SPECS = (
    "fp32", "bf16", "fp16", "tf32", "fp8-e4m3", "fp8-e5m2", "fp8-e4m3:scale=tensor",
    "fp6-e3m2", "fp6-e2m3", "fp4-e2m1", "float:e=8,m=3", "sfp:m=4,e=5",
    "sfp:m=4,exponent=gecko-bias", "sfp:m=4,exponent=gecko-delta", "crest:m=4,e=8",
    "mxfp8-e4m3", "mxfp8-e5m2", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "mxint8", "nvfp4",
    "msfp12", "msfp13", "msfp14", "msfp15", "msfp16", "flexpoint", "int8", "int4",
    "int:n=4,range=64", "gecko-bias", "gecko-delta", "crest", "base-delta", "shapeshifter",
    "js", "zvc", "js+crest", "gist", "gist++", "gist:dpr=fp10", "gist-binarize", "bdi", "fpc",
    "bpc", "ebpc", "apack", "huffman", "ans",
)  # fmt: skip
VALUES = 65_536
HEAD = (
    "# All containers\n\n"
    "Written by `python -m sfpsim.containers.table`; a test keeps it so. Bits a value, padding "
    "and index included, and signal to noise of two seeded FP32 tensors of 65,536 values: "
    'weights (normal, standard deviation 0.05) and activations behind a ReLU. "Lossless" '
    "holds for FP32. Passes, latency (codec cycles, encoder / decoder) and the values a cycle "
    "of one unit are what the simulator charges; the sources of circuits stand in the code "
    "beside them. A coder of one value a cycle keeps a row of 8 for 8 cycles: as many values a "
    "second as the others need eight of its units (`compressors` and `decompressors` of the "
    "machine). Gates, thousands of NAND equivalents of one encoder / decoder, only where a "
    "publication gives them: of EBPC for words of 8 bits, longer ones need more. "
    "What each writes: [containers.md](containers.md), [container-crest.md]"
    "(container-crest.md).\n\n![SQNR over bits a value of all of them on the sample trace of a "
    "ResNet-8](figures/tradeoff.svg)\n\nThe picture, by `make docs`, is of the weights and "
    "stashed activations of `sample/resnet8`: up and to the left is better; exact containers "
    "stand in the upper band; large and blue are those that no other beats in both.\n\n"
)
COLUMNS = (
    "container", "weights, bits", "ReLU, bits", "weights, SQNR dB", "ReLU, SQNR dB", "needs",
    "values a cycle", "latency", "passes", "kilogates", "source",
)  # fmt: skip


def tensors() -> tuple[Array, Array]:
    """Return weights and activations."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(VALUES, dtype=np.float32) * np.float32(0.05)
    return weights, np.maximum(rng.standard_normal(VALUES, dtype=np.float32), np.float32(0))


def _sqnr(container: Container, x: Array) -> str:
    if container.lossless_for(FP32):
        return "lossless"
    found = quality(x, container.quantize(x)).sqnr_db
    return "exact" if found is None else f"{found:.1f}"


def _gates(timing: CodecTiming) -> str:
    if timing.encoder_kge is None or timing.decoder_kge is None:
        return "-"
    return f"{timing.encoder_kge} / {timing.decoder_kge}"


def _line(spec: str, samples: tuple[Array, ...]) -> str:
    container = parse_container(spec)
    timing = container.timing
    cells = [
        f"`{spec}`",
        *(f"{container.measure(x).total_bits / x.size:.2f}" for x in samples),
        *(_sqnr(container, x) for x in samples),
        container.needs,
        "-" if timing.bypass else str(timing.values_per_cycle),
        f"{timing.encode_latency_cycles} / {timing.decode_latency_cycles}",
        str(timing.passes),
        _gates(timing),
        container.source,
    ]
    return _row(cells)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return the page's text."""
    samples = tensors()
    rows = [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
    return HEAD + "\n".join([*rows, *(_line(spec, samples) for spec in SPECS)]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
