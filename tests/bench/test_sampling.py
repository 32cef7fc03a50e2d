import threading

import pytest

from raypipe.bench.sampling import sampled


def test_it_reads_beside_the_work_and_stops_with_it() -> None:
    third = threading.Event()
    count = 0

    def read() -> int:
        nonlocal count
        count += 1
        if count == 3:
            third.set()
        return count

    before = threading.active_count()
    with sampled(read, every_s=0.001) as readings:
        assert third.wait(10.0)
    assert threading.active_count() == before
    assert readings == list(range(1, count + 1)) and count >= 3


def test_it_stops_where_the_work_fails() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), sampled(lambda: 0, every_s=0.001):
        raise KeyError
    assert threading.active_count() == before
