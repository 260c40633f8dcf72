"""A pickle of arrays is read; one with anything else is refused and not executed."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from vsrm_cli.checkpoints.array_reader import read_arrays
from vsrm_cli.errors import WeightsError


class Hostile:
    """Makes a file when it is unpickled by someone who trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write(path, content):
    path.write_bytes(pickle.dumps(content, protocol=3))
    return path


def test_nested_arrays_are_named_by_their_nested_keys(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = write(tmp_path / "a.ckpt", {"net": {"conv": {"kernel": kernel}}, "head": kernel[0]})

    arrays = read_arrays(path)

    assert arrays.keys() == {"net/conv/kernel", "head"}
    assert arrays["net/conv/kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_pickle_with_a_call_is_refused_without_calling(tmp_path):
    mark = tmp_path / "was here"
    path = write(tmp_path / "a.ckpt", {"net": Hostile(mark)})

    with pytest.raises(WeightsError, match="asks for"):
        read_arrays(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content", [{"a": 1}, {"a": np.array(["text"])}, {"a": np.array([None])}, [np.ones(2)]]
)
def test_values_other_than_float_arrays_are_refused(tmp_path, content):
    path = write(tmp_path / "a.ckpt", content)

    with pytest.raises(WeightsError, match=r"arrays of floats|plain arrays"):
        read_arrays(path)


def test_a_damaged_file_is_refused_in_one_sentence(tmp_path):
    whole = pickle.dumps({"a": np.ones(100, dtype=np.float32)}, protocol=3)
    (tmp_path / "a.ckpt").write_bytes(whole[:200])

    with pytest.raises(WeightsError, match="not a file of plain arrays"):
        read_arrays(tmp_path / "a.ckpt")
