"""Arrays on disk read as arrays in memory do, and hold no memory."""

from pathlib import Path

import numpy as np
import pytest

from calotype.data.scratch import DiskArray


def test_rows_are_zero_until_they_are_set_and_read_as_they_were_set(tmp_path: Path) -> None:
    array = DiskArray((3, 2), np.uint64, tmp_path)
    array[1] = [4, 5]
    array[[2, 0]] = [[8, 9], [1, 2]]
    assert len(array) == 3
    assert array[:].tolist() == [[1, 2], [4, 5], [8, 9]]
    assert array[np.array([2, 2])].tolist() == [[8, 9], [8, 9]]
    assert list(tmp_path.iterdir()) == []


def test_what_was_read_is_a_copy() -> None:
    array = DiskArray((2,), np.int32)
    array[:1][0] = 7
    assert array[:].tolist() == [0, 0]


@pytest.mark.parametrize("count", [0, 3, 2_000])
def test_rows_come_in_another_order(count: int) -> None:
    array = DiskArray((2_000, 2), np.int32)
    array[:] = np.arange(4_000).reshape(-1, 2)
    rows = np.random.default_rng(0).permutation(2_000)[:count]
    assert (array.in_order(rows)[:] == np.stack([2 * rows, 2 * rows + 1], axis=1)).all()


def test_a_large_array_takes_no_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = resident()
    array = DiskArray((64, 2**18), np.uint8)
    for row in range(64):
        array[row] = row
    assert int(array[63][5]) == 63
    assert resident() - before < 2**23 // 4096
