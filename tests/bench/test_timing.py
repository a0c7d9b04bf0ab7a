"""What a benchmark counts."""

from ualm_jax.bench.timing import Timing, time_in_turn


def test_runs_take_turns_after_a_warm_up():
    calls = []
    timings = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 4
    assert all(len(timing.seconds) == 3 for timing in timings.values())


def test_the_median_does_not_follow_an_outlier():
    timing = Timing((1.0, 50.0, 2.0))
    assert timing.median == 2.0 and timing.spread == (1.0, 50.0)
