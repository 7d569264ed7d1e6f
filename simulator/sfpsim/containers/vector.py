"""A row as one value: eight uint32 lanes that numba keeps in a vector register.

numba has no vector type and its loops over eight lanes stay scalar, so this file adds one.
In compiled kernels a `Row` is LLVM's ``<8 x i32>`` (one 256-bit register, or what the
machine has); in plain Python (``.py_func``, ``NUMBA_DISABLE_JIT=1``) the same functions
work on arrays of eight uint32, and the operators & | ^ + - << >> are numpy's. Functions on
*halves* take a row as sixteen uint16, two in a lane, the first of them in its low half.

Scalars beside a row are taken to 32 bits and repeated in all lanes; shifts are by 0 .. 31.
numba's cache does not notice a change of this file: clear it after one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numpy.typing import NDArray

LANES = 8
Row = NDArray[Any]

WORD = ir.IntType(32)
VECTOR = ir.VectorType(WORD, LANES)
HALVES = ir.VectorType(ir.IntType(16), 2 * LANES)


class RowType(types.Type):
    """The numba type of a row."""

    def __init__(self) -> None:
        super().__init__(name="Row")


ROW = RowType()


@register_model(RowType)
class RowModel(models.PrimitiveModel):
    """A row is a vector in registers and in memory."""

    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, VECTOR)


def _as_vector(builder: Any, value: Any, kind: Any) -> Any:
    """Return a row as it is and a scalar in all lanes."""
    if isinstance(kind, RowType):
        return value
    width = value.type.width
    if width != 32:
        value = builder.trunc(value, WORD) if width > 32 else builder.zext(value, WORD)
    lane0 = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, WORD(0))
    mask = ir.Constant(ir.VectorType(WORD, LANES), None)
    return builder.shuffle_vector(lane0, ir.Constant(VECTOR, ir.Undefined), mask)


def _is_scalar(kind: Any) -> bool:
    return isinstance(kind, types.Integer | types.Boolean)


def _binary(build: Callable[[Any, Any, Any], Any]) -> Any:
    """Return an intrinsic of two rows, or a row and a scalar, that `build` makes."""

    @intrinsic
    def call(typing: Any, left: Any, right: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            pair = [_as_vector(builder, a, k) for a, k in zip(arguments, kinds, strict=True)]
            return build(builder, *pair)

        return ROW(left, right), code

    return call


def _overload_binary(function: Any, build: Callable[[Any, Any, Any], Any]) -> None:
    call = _binary(build)

    @overload(function, strict=False)
    def resolve(left: Any, right: Any) -> Any:
        kinds = (left, right)
        if not any(isinstance(kind, RowType) for kind in kinds):
            return None
        if all(isinstance(kind, RowType) or _is_scalar(kind) for kind in kinds):
            return lambda left, right: call(left, right)
        return None


def _compared(condition: str) -> Callable[[Any, Any, Any], Any]:
    def build(builder: Any, left: Any, right: Any) -> Any:
        return builder.zext(builder.icmp_unsigned(condition, left, right), VECTOR)

    return build


def _chosen(condition: str) -> Callable[[Any, Any, Any], Any]:
    def build(builder: Any, left: Any, right: Any) -> Any:
        return builder.select(builder.icmp_unsigned(condition, left, right), left, right)

    return build


def smaller(left: Row, right: Any) -> Row:
    """Return the lesser of each lane."""
    return np.minimum(left, np.uint32(right))


def larger(left: Row, right: Any) -> Row:
    """Return the greater of each lane."""
    return np.maximum(left, np.uint32(right))


def below(left: Row, right: Any) -> Row:
    """Return 1 in each lane where left < right, 0 elsewhere."""
    return (left < np.uint32(right)).astype(np.uint32)


def equal(left: Row, right: Any) -> Row:
    """Return 1 in each lane where left == right, 0 elsewhere."""
    return (left == np.uint32(right)).astype(np.uint32)


def unequal(left: Row, right: Any) -> Row:
    """Return 1 in each lane where left != right, 0 elsewhere."""
    return (left != np.uint32(right)).astype(np.uint32)


_overload_binary(operator.and_, lambda builder, a, b: builder.and_(a, b))
_overload_binary(operator.or_, lambda builder, a, b: builder.or_(a, b))
_overload_binary(operator.xor, lambda builder, a, b: builder.xor(a, b))
_overload_binary(operator.add, lambda builder, a, b: builder.add(a, b))
_overload_binary(operator.sub, lambda builder, a, b: builder.sub(a, b))
_overload_binary(operator.lshift, lambda builder, a, b: builder.shl(a, b))
_overload_binary(operator.rshift, lambda builder, a, b: builder.lshr(a, b))
_overload_binary(smaller, _chosen("<"))
_overload_binary(larger, _chosen(">"))
_overload_binary(below, _compared("<"))
_overload_binary(equal, _compared("=="))
_overload_binary(unequal, _compared("!="))


def funnel(high: Row, low: Row, shift: Any) -> Row:
    """Return the low 32 bits of every lane's ``(high << 32 | low) >> shift``, shift 0 .. 31."""
    both = (high.astype(np.uint64) << np.uint64(32)) | low
    return ((both >> np.uint64(shift)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)


@intrinsic
def _funnel(typing: Any, high: Any, low: Any, shift: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        call = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fshr.v{LANES}i32")
        by = _as_vector(builder, arguments[2], signature.args[2])
        return builder.call(call, [arguments[0], arguments[1], by])

    return ROW(high, low, shift), code


@overload(funnel, strict=False)
def _overload_funnel(high: Any, low: Any, shift: Any) -> Any:
    return lambda high, low, shift: _funnel(high, low, shift)


def splat(word: Any) -> Row:
    """Return `word` in all lanes."""
    return np.full(LANES, word, np.uint32)


@intrinsic
def _splat(typing: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _as_vector(builder, arguments[0], signature.args[0])

    return ROW(word), code


@overload(splat, strict=False)
def _overload_splat(word: Any) -> Any:
    return (lambda word: _splat(word)) if _is_scalar(word) else None


def load(words: NDArray[Any], at: int) -> Row:
    """Return eight entries of `words` (uint8, uint16 or uint32) from `at` on; no bounds check."""
    return words[at : at + LANES].astype(np.uint32)


def store(row: Row, words: NDArray[Any], at: int) -> None:
    """Write a row to eight entries of `words` from `at` on, cut to its type."""
    words[at : at + LANES] = row & np.uint32(np.iinfo(words.dtype).max)


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> tuple[Any, int]:
    """Return the address of entry `at` as a pointer to eight entries, and their bits."""
    data = context.make_array(kind)(context, builder, array).data
    bits = kind.dtype.bitwidth
    entry = builder.gep(data, [at])
    return builder.bitcast(entry, ir.VectorType(ir.IntType(bits), LANES).as_pointer()), bits


@intrinsic
def _load(typing: Any, words: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, bits = _address(context, builder, signature.args[0], *arguments)
        entries = builder.load(place, align=1)
        return entries if bits == 32 else builder.zext(entries, VECTOR)

    return ROW(words, types.intp), code


@overload(load, strict=False)
def _overload_load(words: Any, at: Any) -> Any:
    return lambda words, at: _load(words, at)


@intrinsic
def _store(typing: Any, row: Any, words: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, bits = _address(context, builder, signature.args[1], *arguments[1:])
        row = arguments[0]
        kind = ir.VectorType(ir.IntType(bits), LANES)
        builder.store(row if bits == 32 else builder.trunc(row, kind), place, align=1)
        return context.get_dummy_value()

    return types.void(row, words, types.intp), code


@overload(store, strict=False)
def _overload_store(row: Any, words: Any, at: Any) -> Any:
    return lambda row, words, at: _store(row, words, at)


def as_int(entry: Any) -> int:
    """Return an array's entry as a plain integer (int64 in kernels), which does not wrap."""
    return int(entry)


@overload(as_int, strict=False)
def _overload_as_int(entry: Any) -> Any:
    return lambda entry: np.int64(entry)


def any_bits(row: Row) -> int:
    """Return the OR of all lanes, uint32."""
    return np.bitwise_or.reduce(row)


def largest(row: Row) -> int:
    """Return the greatest lane, uint32."""
    return row.max()


def smallest(row: Row) -> int:
    """Return the least lane, uint32."""
    return row.min()


def lane_sum(row: Row) -> int:
    """Return the sum of all lanes, uint32."""
    return row.sum(dtype=np.uint32)


def _reduction(name: str) -> Any:
    @intrinsic
    def call(typing: Any, row: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(WORD, [VECTOR])
            reduce = cgutils.get_or_insert_function(
                builder.module, kind, f"llvm.vector.reduce.{name}.v{LANES}i32"
            )
            return builder.call(reduce, arguments)

        return types.uint32(row), code

    return call


_or, _umax, _umin, _add = (_reduction(name) for name in ("or", "umax", "umin", "add"))


@overload(any_bits, strict=False)
def _overload_any_bits(row: Any) -> Any:
    return (lambda row: _or(row)) if isinstance(row, RowType) else None


@overload(lane_sum, strict=False)
def _overload_lane_sum(row: Any) -> Any:
    return (lambda row: _add(row)) if isinstance(row, RowType) else None


@overload(smallest, strict=False)
def _overload_smallest(row: Any) -> Any:
    return (lambda row: _umin(row)) if isinstance(row, RowType) else None


@overload(largest, strict=False)
def _overload_largest(row: Any) -> Any:
    return (lambda row: _umax(row)) if isinstance(row, RowType) else None


def bit_length(word: Any) -> int:
    """Return the position of the leading one plus 1, 0 for 0; `word` is uint32."""
    return int(word).bit_length()


@intrinsic
def _bit_length(typing: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.zext(builder.sub(WORD(32), zeros), ir.IntType(64))

    return types.int64(types.uint32), code


@overload(bit_length, strict=False)
def _overload_bit_length(word: Any) -> Any:
    return lambda word: _bit_length(word)


def prefetch(words: NDArray[Any], at: int) -> None:
    """Ask for the cache line of entry `at`, which may lie outside; changes nothing."""


@intrinsic
def _prefetch(typing: Any, words: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, WORD, WORD, WORD])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(fetch, [place, WORD(0), WORD(3), WORD(1)])
        return context.get_dummy_value()

    return types.void(words, types.intp), code


@overload(prefetch, strict=False)
def _overload_prefetch(words: Any, at: Any) -> Any:
    return lambda words, at: _prefetch(words, at)


def bit_lengths(row: Row) -> Row:
    """Return the `bit_length` of each lane."""
    return np.array([int(word).bit_length() for word in row], np.uint32)


@intrinsic
def _bit_lengths(typing: Any, row: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flag = ir.IntType(1)
        kind = ir.FunctionType(VECTOR, [VECTOR, flag])
        zeros = cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctlz.v{LANES}i32")
        all_bits = ir.Constant(VECTOR, [32] * LANES)
        return builder.sub(all_bits, builder.call(zeros, [arguments[0], flag(0)]))

    return ROW(row), code


@overload(bit_lengths, strict=False)
def _overload_bit_lengths(row: Any) -> Any:
    return lambda row: _bit_lengths(row)


def any_bits_of_8(r0: Row, r1: Row, r2: Row, r3: Row, r4: Row, r5: Row, r6: Row, r7: Row) -> Row:
    """Return the OR of all lanes of row i in lane i."""
    return np.bitwise_or.reduce(np.stack([r0, r1, r2, r3, r4, r5, r6, r7]), axis=1)


# Three steps halve eight rows to one: even and odd lanes, pairs, and halves of the vector.
HALVINGS = (
    ([0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]),
    ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
    ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
)


@intrinsic
def _any_bits_of_8(
    typing: Any, r0: Any, r1: Any, r2: Any, r3: Any, r4: Any, r5: Any, r6: Any, r7: Any
) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = list(arguments)
        for halves in HALVINGS:
            low, high = (ir.Constant(VECTOR, lanes) for lanes in halves)
            pairs = zip(rows[::2], rows[1::2], strict=True)
            rows = [
                builder.or_(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
                for a, b in pairs
            ]
        return rows[0]

    return ROW(r0, r1, r2, r3, r4, r5, r6, r7), code


@overload(any_bits_of_8, strict=False)
def _overload_any_bits_of_8(
    r0: Any, r1: Any, r2: Any, r3: Any, r4: Any, r5: Any, r6: Any, r7: Any
) -> Any:
    return lambda r0, r1, r2, r3, r4, r5, r6, r7: _any_bits_of_8(r0, r1, r2, r3, r4, r5, r6, r7)


def load_halves(words: NDArray[Any], at: int) -> Row:
    """Return sixteen entries of `words` (uint16) from `at` on; no bounds check."""
    return words[at : at + 2 * LANES].view(np.uint32).copy()


@intrinsic
def _load_halves(typing: Any, words: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, _ = _address(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(place, VECTOR.as_pointer()), align=1)

    return ROW(words, types.intp), code


@overload(load_halves, strict=False)
def _overload_load_halves(words: Any, at: Any) -> Any:
    return lambda words, at: _load_halves(words, at)


def minus_halves(left: Row, right: Row) -> Row:
    """Return left - right of each half, modulo 2^16."""
    return (left.view(np.uint16) - right.view(np.uint16)).view(np.uint32)


def plus_halves(left: Row, right: Row) -> Row:
    """Return left + right of each half, modulo 2^16."""
    return (left.view(np.uint16) + right.view(np.uint16)).view(np.uint32)


def smaller_halves(left: Row, right: Row) -> Row:
    """Return the lesser of each half."""
    return np.minimum(left.view(np.uint16), right.view(np.uint16)).view(np.uint32)


def larger_halves(left: Row, right: Row) -> Row:
    """Return the greater of each half."""
    return np.maximum(left.view(np.uint16), right.view(np.uint16)).view(np.uint32)


def zero_halves(row: Row) -> Row:
    """Return all ones in each half that is 0, zeros elsewhere."""
    return np.where(row.view(np.uint16) == 0, np.uint16(0xFFFF), np.uint16(0)).view(np.uint32)


def _on_halves(function: Any, build: Callable[[Any, Any, Any], Any]) -> None:
    """Give `function` of two rows the code that `build` makes of their halves."""

    @intrinsic
    def call(typing: Any, left: Any, right: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pair = [builder.bitcast(argument, HALVES) for argument in arguments]
            return builder.bitcast(build(builder, *pair), VECTOR)

        return ROW(left, right), code

    overload(function, strict=False)(lambda left, right: lambda left, right: call(left, right))


_on_halves(minus_halves, lambda builder, a, b: builder.sub(a, b))
_on_halves(plus_halves, lambda builder, a, b: builder.add(a, b))
_on_halves(smaller_halves, _chosen("<"))
_on_halves(larger_halves, _chosen(">"))


@intrinsic
def _zero_halves(typing: Any, row: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        halves = builder.bitcast(arguments[0], HALVES)
        zero = builder.icmp_unsigned("==", halves, ir.Constant(HALVES, None))
        return builder.bitcast(builder.sext(zero, HALVES), VECTOR)

    return ROW(row), code


@overload(zero_halves, strict=False)
def _overload_zero_halves(row: Any) -> Any:
    return lambda row: _zero_halves(row)


def first_lanes(row: Row) -> Row:
    """Return lanes 0 to 3 twice."""
    return np.concatenate([row[:4], row[:4]])


def last_lanes(row: Row) -> Row:
    """Return lanes 4 to 7 where they are, zeros before them."""
    return np.concatenate([np.zeros(4, np.uint32), row[4:]])


def _shuffled(function: Any, lanes: list[int]) -> None:
    """Give `function` of one row the code that takes these lanes; 8 and up are zeros."""

    @intrinsic
    def call(typing: Any, row: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            mask = ir.Constant(VECTOR, lanes)
            return builder.shuffle_vector(arguments[0], ir.Constant(VECTOR, None), mask)

        return ROW(row), code

    overload(function, strict=False)(lambda row: lambda row: call(row))


_shuffled(first_lanes, [0, 1, 2, 3, 0, 1, 2, 3])
_shuffled(last_lanes, [8, 8, 8, 8, 4, 5, 6, 7])


def any_halves_of_4(r0: Row, r1: Row, r2: Row, r3: Row) -> Row:
    """Return the OR of the first eight halves of row i in lane 2 i, of the others behind it."""
    halves = np.stack([r0, r1, r2, r3]).view(np.uint16).reshape(8, 8)
    return np.bitwise_or.reduce(halves, axis=1).astype(np.uint32)


@intrinsic
def _any_halves_of_4(typing: Any, r0: Any, r1: Any, r2: Any, r3: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = list(arguments)
        for halves in HALVINGS[:2]:
            low, high = (ir.Constant(VECTOR, lanes) for lanes in halves)
            pairs = zip(rows[::2], rows[1::2], strict=True)
            rows = [
                builder.or_(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
                for a, b in pairs
            ]
        both = builder.or_(rows[0], builder.lshr(rows[0], ir.Constant(VECTOR, [16] * LANES)))
        order = ir.Constant(VECTOR, [0, 4, 1, 5, 2, 6, 3, 7])
        both = builder.shuffle_vector(both, ir.Constant(VECTOR, ir.Undefined), order)
        return builder.and_(both, ir.Constant(VECTOR, [0xFFFF] * LANES))

    return ROW(r0, r1, r2, r3), code


@overload(any_halves_of_4, strict=False)
def _overload_any_halves_of_4(r0: Any, r1: Any, r2: Any, r3: Any) -> Any:
    return lambda r0, r1, r2, r3: _any_halves_of_4(r0, r1, r2, r3)
