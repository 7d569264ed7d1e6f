"""Containers by name: what the command line, traces and files call them.

Every built-in container takes ``block=`` beside its own keys: the values of a block.
Third parties add a family through the entry-point group ``sfpsim.containers``; the entry
point is a function that takes the keys and values of the specification (a dict of text)
and returns a `Container`, and raises `InputError` on what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from sfpsim.containers import blocks, floats
from sfpsim.containers.apack import Apack
from sfpsim.containers.base import DEFAULT_BLOCK_VALUES, BlockContainer, Container
from sfpsim.containers.baselines import TOOLS, Baseline
from sfpsim.containers.crest import Crest
from sfpsim.containers.ebpc import Ebpc
from sfpsim.containers.entropy import Ans, Huffman
from sfpsim.containers.exponents import BaseDelta, ShapeShifter
from sfpsim.containers.floats import MiniFloat, ScaledMiniFloat
from sfpsim.containers.gecko import GeckoBias, GeckoDelta
from sfpsim.containers.integers import Uniform
from sfpsim.containers.lines import Bdi, Bpc, Fpc
from sfpsim.containers.masked import PREFIX, ZeroMasked
from sfpsim.containers.raw import AS_IS, PLAIN
from sfpsim.containers.sfp import EXPONENT_CODES, Sfp, SfpFromTrace
from sfpsim.containers.zeros import ZVC_GROUP, Binarize, Gist, Masked
from sfpsim.errors import InputError

GROUP = "sfpsim.containers"
BLOCK = "block"
Factory = Callable[[Mapping[str, str]], Container]
Choice = TypeVar("Choice", bound=str)


def _fixed(name: str, container: BlockContainer) -> Factory:
    def make(options: Mapping[str, str]) -> Container:
        _only(name, options)
        return replace(container, block_values=_block(name, options))

    return make


def _keys(options: Iterable[str]) -> str:
    return ", ".join(repr(key) for key in options)


def _whole(name: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InputError(f"{name}: {key}={text} is not allowed: a whole number")
    return int(text)


def _only(name: str, options: Mapping[str, str], *allowed: str) -> None:
    unknown = sorted(set(options) - {*allowed, BLOCK})
    if unknown and not allowed:
        raise InputError(f"container {name!r} takes no keys but {BLOCK}, {_keys(unknown)} given")
    if unknown:
        known = ", ".join((*allowed, BLOCK))
        raise InputError(f"{name}: unknown key {_keys(unknown)}: allowed are {known}")


def _block(name: str, options: Mapping[str, str]) -> int:
    return _whole(name, BLOCK, options.get(BLOCK, str(DEFAULT_BLOCK_VALUES)))


def _needed(name: str, options: Mapping[str, str], *keys: str) -> list[int]:
    missing = [key for key in keys if key not in options]
    if missing:
        raise InputError(f"{name}: {', '.join(missing)} must be given, as in {name}:{keys[0]}=4")
    return [_whole(name, key, options[key]) for key in keys]


def _choice(name: str, key: str, text: str, allowed: tuple[Choice, ...]) -> Choice:
    for choice in allowed:
        if choice == text:
            return choice
    raise InputError(f"{name}: {key}={text} is not allowed: one of {', '.join(allowed)}")


def _mini(plain: MiniFloat) -> Factory:
    """Return the factory of a small float with the keys overflow and scale."""

    def make(options: Mapping[str, str]) -> Container:
        _only(plain.name, options, "overflow", "scale")
        overflow = _choice(
            plain.name, "overflow", options.get("overflow", plain.overflow), floats.OVERFLOWS
        )
        scale = _choice(plain.name, "scale", options.get("scale", "none"), ("none", "tensor"))
        kind = ScaledMiniFloat if scale == "tensor" else MiniFloat
        block = _block(plain.name, options)
        return kind(fmt=plain.fmt, name=plain.name, overflow=overflow, block_values=block)

    return make


def _float(options: Mapping[str, str]) -> Container:
    _only("float", options, "e", "m", "overflow")
    exponent_bits, mantissa_bits = _needed("float", options, "e", "m")
    overflow = _choice("float", "overflow", options.get("overflow", "special"), floats.OVERFLOWS)
    plain = floats.any_float(exponent_bits, mantissa_bits, overflow)
    return replace(plain, block_values=_block("float", options))


def _int(options: Mapping[str, str]) -> Container:
    _only("int", options, "n", "range")
    return Uniform(
        bits=_needed("int", options, "n")[0],
        over=options.get("range", "tensor"),
        block_values=_block("int", options),
    )


def _sfp(options: Mapping[str, str]) -> Container:
    _only("sfp", options, "m", "e", "exponent")
    exponent = _choice("sfp", "exponent", options.get("exponent", "fixed"), tuple(EXPONENT_CODES))
    if "m" not in options and "e" not in options:
        return SfpFromTrace(exponent=exponent, block_values=_block("sfp", options))
    return Sfp(
        mantissa_bits=_whole("sfp", "m", options["m"]) if "m" in options else None,
        exponent_bits=_whole("sfp", "e", options["e"]) if "e" in options else 8,
        exponent=exponent,
        block_values=_block("sfp", options),
    )


def _gist(name: str) -> Factory:
    def make(options: Mapping[str, str]) -> Container:
        _only(name, options, "dpr")
        return Gist(
            dpr=options.get("dpr", "none"),
            mask=name == "gist++",
            block_values=_block(name, options),
        )

    return make


def _bdi(options: Mapping[str, str]) -> Container:
    _only("bdi", options, "line")
    line = _whole("bdi", "line", options.get("line", "64"))
    return Bdi(line_bytes=line, block_values=_block("bdi", options))


def _crest(options: Mapping[str, str]) -> Container:
    _only("crest", options, "m", "e")
    return Crest(
        quantizer=Sfp(
            mantissa_bits=_whole("crest", "m", options["m"]) if "m" in options else None,
            exponent_bits=_whole("crest", "e", options["e"]) if "e" in options else 8,
        ),
        block_values=_block("crest", options),
    )


BUILT_IN: dict[str, Factory] = {
    **{name: _fixed(name, container) for name, container in PLAIN.items()},
    "gecko-bias": _fixed("gecko-bias", GeckoBias()),
    "gecko-delta": _fixed("gecko-delta", GeckoDelta()),
    "sfp": _sfp,
    "crest": _crest,
    "tf32": _fixed("tf32", floats.TF32),
    "float": _float,
    **{
        plain.name: _mini(plain)
        for plain in (
            floats.FP8_E4M3,
            floats.FP8_E5M2,
            floats.FP6_E3M2,
            floats.FP6_E2M3,
            floats.FP4_E2M1,
        )
    },
    **{
        mx.name: _fixed(mx.name, mx)
        for mx in (
            blocks.MXFP8_E4M3,
            blocks.MXFP8_E5M2,
            blocks.MXFP6_E3M2,
            blocks.MXFP6_E2M3,
            blocks.MXFP4,
        )
    },
    "mxint8": _fixed("mxint8", blocks.MxInt8()),
    "nvfp4": _fixed("nvfp4", blocks.Nvfp4()),
    **{f"msfp{n}": _fixed(f"msfp{n}", blocks.Msfp(total_bits=n)) for n in range(12, 17)},
    "flexpoint": _fixed("flexpoint", blocks.Flexpoint()),
    "int": _int,
    "int8": _fixed("int8", Uniform(bits=8)),
    "int4": _fixed("int4", Uniform(bits=4)),
    "js": _fixed("js", Masked()),
    "zvc": _fixed("zvc", Masked(group=ZVC_GROUP)),
    "gist": _gist("gist"),
    "gist++": _gist("gist++"),
    "gist-binarize": _fixed("gist-binarize", Binarize()),
    "base-delta": _fixed("base-delta", BaseDelta()),
    "shapeshifter": _fixed("shapeshifter", ShapeShifter()),
    "bdi": _bdi,
    "fpc": _fixed("fpc", Fpc()),
    "bpc": _fixed("bpc", Bpc()),
    "ebpc": _fixed("ebpc", Ebpc()),
    "apack": _fixed("apack", Apack()),
    "huffman": _fixed("huffman", Huffman()),
    "ans": _fixed("ans", Ans()),
    **{tool: _fixed(tool, Baseline(tool=tool)) for tool in TOOLS},
}
# What stands for a family whose name alone is no container.
EXAMPLES = {"float": "float:e=4,m=3", "int": "int:n=4"}
HIDDEN: dict[str, Factory] = {"raw": _fixed("raw", AS_IS)}


@cache
def _plug_ins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def known() -> tuple[str, ...]:
    """Return the names of all families, built-in ones first; loads no plug-in."""
    return (*BUILT_IN, *sorted(set(_plug_ins()) - set(BUILT_IN)))


def _factory(name: str) -> Factory:
    if name in BUILT_IN or name in HIDDEN:
        return (BUILT_IN | HIDDEN)[name]
    point = _plug_ins().get(name)
    if point is None:
        raise InputError(f"unknown container {name!r}: known are {', '.join(known())}")
    try:
        factory: Factory = point.load()
    except Exception as error:
        raise InputError(
            f"container {name!r} comes from the plug-in {point.value!r}, which cannot be "
            f"loaded: {error}"
        ) from error
    return factory


def _options(text: str, rest: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in rest.split(","):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not (key and equals and value):
            raise InputError(f"container {text!r}: {piece!r} is not of the form key=value")
        if key in options:
            raise InputError(f"container {text!r}: key {key!r} is given twice")
        options[key] = value
    return options


def parse_container(text: str) -> Container:
    """Return the container that ``NAME[:key=value,...]`` describes.

    ``js+`` before it puts a zero mask in front. Bare ``sfp`` (or with ``exponent=`` only)
    gives an `SfpFromTrace`.

    Raises
    ------
    InputError
        If the name, a key or a value is unknown or out of range, or a plug-in is broken.

    Examples
    --------
    >>> parse_container("sfp:m=4,e=5").spec
    'sfp:m=4,e=5'
    """
    if text.strip().startswith(PREFIX):
        return ZeroMasked(inner=parse_container(text.strip().removeprefix(PREFIX)))
    name, colon, rest = text.strip().partition(":")
    options = _options(text, rest) if colon else {}
    factory = _factory(name)
    try:
        container = factory(options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"container {text!r} cannot be made: {error}") from error
    if not isinstance(container, Container):
        raise InputError(f"container {text!r}: its plug-in returned {container!r}, no Container")
    return container


def split_list(texts: Iterable[str]) -> list[str]:
    """Split comma lists of specifications; see `parse_list`."""
    specs: list[str] = []
    for text in texts:
        fresh = True
        for piece in text.split(","):
            head = piece.partition(":")[0]
            if "=" in head and not fresh:
                specs[-1] += ("," if ":" in specs[-1] else ":") + piece
            else:
                specs.append(piece)
            fresh = False
    return [spec.strip() for spec in specs]


def parse_list(texts: Iterable[str]) -> list[Container]:
    """Return the containers of one or more comma lists.

    A piece with ``=`` before any ``:`` continues the container before it.

    Raises
    ------
    InputError
        As `parse_container`, and where a list is empty.

    Examples
    --------
    >>> [c.spec for c in parse_list(["fp32,sfp:m=4,e=5,gecko-bias"])]
    ['fp32', 'sfp:m=4,e=5', 'gecko-bias']
    """
    containers = [parse_container(spec) for spec in split_list(texts)]
    if not containers:
        raise InputError(f"no container given: known are {', '.join(known())}")
    return containers
