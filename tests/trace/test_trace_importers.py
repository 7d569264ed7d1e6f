"""Do arrays of other files come in as they are, and bad files as one error?"""

import random
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from sfpsim.errors import InputError
from sfpsim.trace.reader import open_trace


def arrays():
    rng = np.random.default_rng(2)
    return {
        "first": rng.standard_normal((3, 4), np.float32),
        "second": rng.integers(-5, 5, 7, np.int16),
        "scalar": np.array(1.5, np.float64),
        "none": np.zeros((0, 3), np.float16),
    }


def same(trace, expected):
    found = {r.name: np.asarray(trace.values(r)).reshape(r.shape) for r in trace.records}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].tobytes() == values.tobytes()


def test_safetensors(tmp_path):
    expected = arrays() | {"half": np.arange(3).astype(ml_dtypes.bfloat16)}
    save_file(expected, tmp_path / "x.safetensors")
    trace = open_trace(tmp_path / "x.safetensors")
    same(trace, expected)
    assert not trace.ordered
    assert {r.role for r in trace.records} == {"unknown"}
    trace.verify()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(tmp_path / "x.npz", **arrays())
    same(open_trace(tmp_path / "x.npz"), arrays())


@pytest.mark.parametrize("name", sorted(arrays()))
def test_npy(tmp_path, name):
    np.save(tmp_path / "x.npy", arrays()[name])
    same(open_trace(tmp_path / "x.npy"), {"x": arrays()[name]})


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_memory_layout_and_byte_order_do_not_change_the_values(tmp_path, suffix):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / f"x{suffix}"
    for other in (np.asfortranarray(values), values.astype(">f4")):
        np.save(path, other) if suffix == ".npy" else np.savez(path, x=other)
        same(open_trace(path), {"x": values})


def unsupported():
    return {
        "complex64": np.zeros(2, np.complex64),
        "object": np.array([{}, 1], object),
        "str": np.array(["a", "bc"]),
        "datetime64": np.zeros(2, "datetime64[s]"),
        "void": np.zeros(2, [("a", np.float32)]),
    }


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", sorted(unsupported()))
def test_an_unsupported_dtype_is_refused(tmp_path, name, suffix):
    values = unsupported()[name]
    path = tmp_path / f"x{suffix}"
    np.save(path, values) if suffix == ".npy" else np.savez(path, x=values)
    with pytest.raises(InputError, match=f"x{suffix}|float32"):
        open_trace(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_damaged_file_is_one_error_or_still_the_same_shape(tmp_path, suffix):
    """A flipped bit in the values of .npy cannot be seen; nothing may end in a traceback."""
    path = tmp_path / f"x{suffix}"
    values = {"x": np.arange(60, dtype=np.float32), "y": np.arange(5)}
    if suffix == ".npy":
        np.save(path, values["x"])
    elif suffix == ".npz":
        np.savez_compressed(path, **values)
    else:
        save_file(values, path)
    whole = path.read_bytes()
    chance = random.Random(3)
    cases = [whole[:length] for length in range(0, len(whole), 11)]
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        cases.append(bytes(flipped))
    refused = [message for message in (refusal(path, case) for case in cases) if message]
    assert len(refused) >= len(whole) // 11
    assert all(path.name in message or "is not supported" in message for message in refused)


def refusal(path, data):
    """Return the error on opening and reading a file of `data`, "" for none."""
    path.write_bytes(data)
    try:
        open_trace(path).verify()
    except InputError as error:
        return str(error)
    return ""


def test_a_file_of_another_kind_under_this_name_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"x\.npy"):
        open_trace(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.zeros(3))
    (tmp_path / "y.npy").rename(tmp_path / "y.npz")
    with pytest.raises(InputError, match=r"y\.npz"):
        open_trace(tmp_path / "y.npz")
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as file:
        file.writestr("notes.txt", "no array")
    with pytest.raises(InputError, match=r"z\.npz|notes"):
        open_trace(tmp_path / "z.npz")


def test_a_file_without_arrays_is_refused(tmp_path):
    save_file({}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz")
    for suffix in ("safetensors", "npz"):
        with pytest.raises(InputError, match="no array"):
            open_trace(tmp_path / f"x.{suffix}")
