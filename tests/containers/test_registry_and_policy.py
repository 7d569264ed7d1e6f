import numpy as np
import pytest

from sfpsim.containers import registry
from sfpsim.containers.base import with_key
from sfpsim.containers.policy import parse_policy, policy_of, with_blocks
from sfpsim.containers.registry import known, parse_container, parse_list
from sfpsim.containers.sfp import Sfp, SfpFromTrace
from sfpsim.errors import InputError
from sfpsim.formats import BF16, FP32
from sfpsim.testing.specs import ALL

FP32_C = parse_container("fp32")


@pytest.mark.parametrize(
    "spec",
    [
        "fp32",
        "bf16",
        "fp16",
        "gecko-bias",
        "gecko-delta",
        "sfp",
        "sfp:exponent=gecko-bias",
        "raw",
        "sfp:m=0,e=1",
        "sfp:m=23,e=8",
        "sfp:m=4,e=5,exponent=gecko-delta",
        "sfp:e=8",
        "sfp:block=1024",
        "sfp:m=4,e=5,block=64",
        "gecko-delta:block=4096",
        "js+bf16:block=65536",
        "int:n=4,range=96,block=192",
    ],
)
def test_spec_parses_to_itself(spec):
    assert parse_container(spec).spec == spec
    assert parse_container(parse_container(spec).spec) == parse_container(spec)


@pytest.mark.parametrize("spec", ALL)
def test_every_container_takes_the_size_of_its_blocks(spec):
    container = parse_container(with_key(spec, "block", 1024))
    assert (container.block_values, parse_container(spec).block_values) == (1024, 16384)
    assert container.spec.endswith("block=1024")
    assert parse_container(container.spec) == container
    assert parse_container(with_key(spec, "block", 16384)) == parse_container(spec)


def test_lengths_given_singly():
    assert parse_container("sfp:m=4") == Sfp(mantissa_bits=4, exponent_bits=8)
    assert parse_container("sfp:e=5") == Sfp(mantissa_bits=None, exponent_bits=5)
    assert parse_container("sfp:e=5").layout(BF16).kept == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fp33", "known are fp32, bf16"),
        ("float:e=9,m=2", "e 2 to 8"),
        ("float:e=4", "m must be given"),
        ("fp8-e4m3:overflow=wrap", "saturate, special"),
        ("fp8-e4m3:scale=row", "none, tensor"),
        ("mxfp4:m=1", "takes no keys"),
        ("int", "n must be given"),
        ("int:n=0", "1 to 16"),
        ("int:n=4,range=48", "multiple of 8 that divides the 16384 values"),
        ("int:n=4,range=4", "multiple of 8"),
        ("int:n=4,range=1024,block=512", "divides the 512 values"),
        ("int:n=17", "1 to 16"),
        ("bdi:line=48", "32, 64"),
        ("gist:dpr=fp9", "none, fp16, fp10, fp8"),
        ("ebpc:block=16", "block=16 is not allowed: a multiple of 64 up to 65536"),
        ("gecko-delta:block=0", "a multiple of 64"),
        ("sfp:m=4,block=65600", "sfp:m=4,e=8: block=65600 .* up to 65536"),
        ("js+crest:block=100", "crest: block=100"),
        ("bf16:block=-64", "whole number"),
        ("mxfp4:block=64,block=64", "given twice"),
        ("apack:ranges=8", "takes no keys"),
        ("crest:m=24", "0 to 23"),
        ("js+nvfp4", "nothing of the whole tensor"),
        ("js+js+crest", "nothing of the whole tensor"),
        ("", "unknown container"),
        ("gecko-bias:m=4", "takes no keys"),
        ("sfp:m=24", "0 to 23"),
        ("sfp:m=-1", "whole number"),
        ("sfp:m=4,e=0", "1 to 8"),
        ("sfp:m=4,e=9", "1 to 8"),
        ("sfp:m=4.5", "whole number"),
        ("sfp:m=٤", "whole number"),
        ("sfp:n=4", "allowed are m, e, exponent, block"),
        ("sfp:m=4,exponent=huffman", "one of fixed, gecko-bias"),
        ("sfp:m=4,m=5", "given twice"),
        ("sfp:m", "key=value"),
        ("sfp:", "key=value"),
        ("sfp:m=", "key=value"),
    ],
)
def test_what_is_wrong_is_said(text, says):
    with pytest.raises(InputError, match=says):
        parse_container(text)


@pytest.mark.parametrize("spec", ALL)
def test_types_that_are_not_held_are_named_with_those_that_are(spec):
    container = parse_container(spec)
    for dtype in ("float64", "int32", "bool"):
        for use in (container.measure, container.quantize, container.encode, container.rows):
            with pytest.raises(InputError, match=f"{dtype}.*float32, bfloat16, float16"):
                use(np.zeros(9, dtype))


def test_lists_continue_a_container_at_an_equals_sign():
    specs = [c.spec for c in parse_list(["fp32,sfp:m=4,e=5,exponent=gecko-bias,bf16", "sfp"])]
    assert specs == ["fp32", "sfp:m=4,e=5,exponent=gecko-bias", "bf16", "sfp"]
    with pytest.raises(InputError):
        parse_list(["fp32,,bf16"])
    with pytest.raises(InputError, match="no container"):
        parse_list([])


def test_bare_sfp_needs_a_trace():
    bare = parse_container("sfp")
    assert isinstance(bare, SfpFromTrace)
    assert bare.resolve(4, 5) == Sfp(mantissa_bits=4, exponent_bits=5)
    assert bare.resolve(4, None) == Sfp(mantissa_bits=4)
    assert parse_container("sfp:block=64").resolve(4, 5) == Sfp(
        mantissa_bits=4, exponent_bits=5, block_values=64
    )
    for call in (lambda: bare.resolve(None, None), lambda: bare.measure_blocks(None)):
        with pytest.raises(InputError, match="lengths in force"):
            call()


def test_mantissa_above_the_source_is_an_error():
    with pytest.raises(InputError, match="above the 7 mantissa bits of bf16"):
        parse_container("sfp:m=8").layout(BF16)
    assert parse_container("sfp:m=8").layout(FP32).kept == 8


class Point:
    name, value = "mine", "mine:make"

    def __init__(self, load):
        self.load = load


@pytest.fixture
def plug_in(monkeypatch):
    def use(load):
        monkeypatch.setattr(registry, "_plug_ins", lambda: {"mine": Point(load)})

    return use


def test_plug_ins_are_known_and_made(plug_in):
    plug_in(lambda: lambda options: Sfp(mantissa_bits=int(options["m"])))
    assert known()[-1] == "mine"
    assert parse_container("mine:m=3") == Sfp(mantissa_bits=3)
    with pytest.raises(InputError, match="cannot be made"):
        parse_container("mine:m=x")


def test_broken_plug_ins_are_clear_errors(plug_in):
    plug_in(lambda: 1 / 0)
    with pytest.raises(InputError, match="cannot be loaded: division"):
        parse_container("mine")
    plug_in(lambda: lambda options: 5)
    with pytest.raises(InputError, match="no Container"):
        parse_container("mine")


def test_a_bare_container_holds_weights_activations_and_unknown():
    policy = parse_policy("sfp:m=4,e=5")
    assert policy == policy_of(parse_container("sfp:m=4,e=5"))
    for role in ("weight", "activation", "unknown"):
        assert policy.container_for(role, FP32_C).spec == "sfp:m=4,e=5"
    for role in ("gradient", "optimizer", "other"):
        assert policy.container_for(role, FP32_C) is FP32_C


def test_blocks_of_all_roles():
    text = with_blocks("weight=bf16; activation=js+sfp:m=4", 1024)
    assert text == "weight=bf16:block=1024;activation=js+sfp:m=4,block=1024"
    held = dict(parse_policy(text).containers)
    assert [held[role].block_values for role in ("weight", "activation")] == [1024, 1024]


def test_policies_by_role():
    text = "weight=bf16;activation=sfp:m=4,exponent=gecko-bias"
    policy = parse_policy(text)
    assert policy.spec == text
    assert policy.by_role(FP32_C)["activation"] == "sfp:m=4,e=8,exponent=gecko-bias"
    assert parse_policy(policy.spec) == policy
    assert policy.container_for("gradient", FP32_C) is FP32_C
    everything = parse_policy("all=gecko-delta")
    assert set(everything.by_role(FP32_C).values()) == {"gecko-delta"}
    assert parse_policy(everything.spec) == everything


@pytest.mark.parametrize(
    "text",
    [
        "",
        "weight=",
        "weights=bf16",
        "weight=bf16;weight=bf16",
        "all=bf16;weight=bf16",
        "weight=bf16;\n    ",
        "weight=nothing",
    ],
)
def test_wrong_policies(text):
    with pytest.raises(InputError):
        parse_policy(text)
    with pytest.raises(InputError, match="unknown role"):
        parse_policy("bf16").container_for("weights", FP32_C)
