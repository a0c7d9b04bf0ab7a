"""Which answers become pairs, and why others do not."""

import numpy as np
import pytest

from ualm_jax.errors import UserError
from ualm_jax.prefer.select import Chosen, Selection, choose, combined

CONTENTS = [np.array([place]) for place in range(5)]


def chosen(scores, contents=CONTENTS, **fields) -> Chosen:
    return choose(scores, contents[: len(next(iter(scores.values())))], Selection(**fields))


def places(found: Chosen):
    return [(pair.chosen, pair.rejected) for pair in found.pairs]


def test_the_best_is_chosen_over_the_worst():
    found = chosen({"a": [0.1, 0.9, 0.5, 0.0, 0.3]})
    assert places(found) == [(1, 3)] and found.winner == 1 and found.dropped == ()
    assert found.pairs[0].scores == (0.9, 0.0)


def test_more_pairs_take_the_next_ones_and_never_an_answer_twice():
    assert places(chosen({"a": [0.1, 0.9, 0.5, 0.0, 0.3]}, pairs=7)) == [(1, 3), (2, 0)]


def test_scores_add_up_weighted():
    scores = {"a": [1.0, 2.0], "b": [10.0, 4.0]}
    np.testing.assert_allclose(combined(scores, Selection()), [11, 6])
    np.testing.assert_allclose(combined(scores, Selection(weights={"b": 0.1})), [2.0, 2.4])


def test_ranks_add_up_whatever_the_units():
    scores = {"a": [1.0, 2.0, 3.0], "b": [1e6, 3e6, 2e6]}
    np.testing.assert_allclose(combined(scores, Selection(combine="rank")), [0.0, 1.5, 1.5])
    weighted = Selection(combine="rank", weights={"a": 2.0})
    np.testing.assert_allclose(combined(scores, weighted), [0.0, 2.0, 2.5])
    np.testing.assert_allclose(combined({"a": [5.0, 5.0, 5.0]}, Selection(combine="rank")), [0.5, 0.5, 0.5])


def test_an_answer_without_a_score_is_left_out_and_the_others_go_on():
    found = chosen({"a": [0.1, None, 0.5], "b": [0.0, 9.0, 0.0]})
    assert places(found) == [(2, 0)] and found.dropped == ("no score",)


@pytest.mark.parametrize(
    "scores, fields, dropped, winner",
    [
        ([None, None], {}, ("no score", "no score", "one answer"), None),
        ([0.5, None], {}, ("no score", "one answer"), 0),
        ([0.5, 0.5], {}, ("too close",), 0),
        ([0.5, 0.4], {"margin": 0.2}, ("too close",), 0),
        ([0.5, 0.1], {"chosen_at_least": {"a": 0.6}}, ("below",), None),
        ([0.5, 0.1], {"rejected_at_most": {"a": 0.05}}, ("above",), 0),
    ],
)
def test_what_gives_no_pair_says_why(scores, fields, dropped, winner):
    assert chosen({"a": scores}, **fields) == Chosen((), winner, dropped)


def test_equal_answers_are_no_pair():
    assert chosen({"a": [1.0, 0.0]}, [np.array([1, 2]), np.array([1, 2])]).dropped == ("equal",)


def test_a_bound_of_a_scorer_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="chosen at least: there is no scorer 'b' here, only a"):
        Selection(chosen_at_least={"b": 1.0}).check(["a"])
    with pytest.raises(UserError, match="prefer.combine must be one of sum, rank"):
        Selection(combine="max")
