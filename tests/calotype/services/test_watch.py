"""Who hangs: a program that answered and stopped to, or that never did in the time for a start."""

from __future__ import annotations

from calotype.services.status import Part
from calotype.services.watch import MISSES, START_S, Watch


def part(*, well: bool, pid: int = 7, uptime_s: int = 30, state: str = "running") -> Part:
    return Part("mlflow", state, pid, uptime_s, "http://127.0.0.1:5000", well)


def test_a_program_that_stops_to_answer_hangs_after_three_rounds() -> None:
    watch = Watch()
    assert watch.hung([part(well=True)]) == []
    rounds = [watch.hung([part(well=False)]) for _ in range(MISSES)]
    assert rounds == [[], [], [part(well=False)]]


def test_an_answer_between_two_misses_counts_anew() -> None:
    watch = Watch()
    answers = [True, False, False, True, False, False]
    assert [watch.hung([part(well=well)]) for well in answers] == [[]] * len(answers)


def test_a_program_that_starts_is_left_alone_until_its_time_is_up() -> None:
    watch = Watch()
    assert all(watch.hung([part(well=False)]) == [] for _ in range(10))
    late = part(well=False, uptime_s=START_S + 1)
    assert [bool(watch.hung([late])) for _ in range(MISSES)] == [False, False, True]


def test_the_next_process_of_a_program_starts_with_a_clean_sheet() -> None:
    watch = Watch()
    watch.hung([part(well=True)])
    for _ in range(MISSES - 1):
        watch.hung([part(well=False)])
    assert watch.hung([part(well=False, pid=8)]) == []


def test_servers_elsewhere_and_programs_that_do_not_run_are_never_ended() -> None:
    watch = Watch()
    for state in ("elsewhere", "stopped", "backoff"):
        silent = part(well=False, state=state, uptime_s=1000)
        assert all(watch.hung([silent]) == [] for _ in range(MISSES + 1))
