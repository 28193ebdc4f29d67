"""Names are given out once, and quickly however often one is asked for."""

import time

from edgecnn.converters._unique_names import unique


def test_a_name_is_never_given_twice() -> None:
    used = dict.fromkeys(["a", "a_2"], 1)
    assert [unique(name, used) for name in ("b", "a", "b", "a_2", "a")] == ["b", "a_3", "b_2", "a_2_2", "a_4"]


def test_asking_often_for_one_name_stays_quick() -> None:
    used: dict[str, int] = {}
    start = time.perf_counter()
    assert len({unique("a", used) for _ in range(50_000)}) == 50_000
    assert time.perf_counter() - start < 2
