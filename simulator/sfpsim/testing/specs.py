"""Specifications that cover every built-in container, for tests, tables and figures."""

SFP = tuple(
    f"sfp:{lengths}{code}"
    for lengths in ("m=0", "m=4", "e=8", "m=0,e=1", "m=3,e=2", "m=0,e=4", "m=7,e=5", "m=5,e=7")
    for code in ("", ",exponent=gecko-bias", ",exponent=gecko-delta")
)
LANES = ("gecko-bias", "gecko-delta", *SFP)
PLAIN = ("fp32", "bf16", "fp16")
FLOATS = (
    "tf32",
    "float:e=8,m=23",
    "float:e=5,m=10",
    "float:e=4,m=0",
    "float:e=2,m=3",
    "float:e=8,m=7,overflow=saturate",
    "fp8-e4m3",
    "fp8-e4m3:overflow=special",
    "fp8-e4m3:scale=tensor",
    "fp8-e5m2",
    "fp8-e5m2:overflow=special",
    "fp8-e5m2:overflow=special,scale=tensor",
    "fp6-e3m2",
    "fp6-e2m3",
    "fp6-e3m2:scale=tensor",
    "fp4-e2m1",
)
BLOCKS = (
    "mxfp8-e4m3",
    "mxfp8-e5m2",
    "mxfp6-e3m2",
    "mxfp6-e2m3",
    "mxfp4",
    "mxint8",
    "nvfp4",
    *(f"msfp{n}" for n in range(12, 17)),
    "flexpoint",
)
INTEGERS = ("int:n=1", "int:n=5,range=64", "int:n=11,range=channel", "int8", "int4")
PACKED = (*FLOATS, *BLOCKS, *INTEGERS)
CREST = ("crest", "crest:m=4,e=8", "crest:m=0,e=8", "crest:m=0,e=4", "crest:m=3,e=2")
CODED = (
    "js",
    "zvc",
    "gist",
    "gist++",
    "base-delta",
    "shapeshifter",
    "bdi",
    "bdi:line=32",
    "fpc",
    "bpc",
    "ebpc",
)
GIST = ("gist:dpr=fp16", "gist:dpr=fp10", "gist++:dpr=fp8", "gist-binarize")
MASKED = (
    "js+crest",
    "js+gecko-delta",
    "js+sfp:m=4,e=5",
    "js+bf16",
    "js+mxfp4",
    "js+fp8-e4m3",
    "js+huffman",
)
ENTROPY = ("apack", "huffman", "ans")
BASELINES = ("zstd", "lz4", "blosc", "pcodec")
ALL = (*PLAIN, *LANES, *CREST, *PACKED, *CODED, *GIST, *MASKED, *ENTROPY, *BASELINES)
