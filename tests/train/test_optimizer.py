"""How the learning rate goes."""

import pytest

from ualm_jax.errors import UserError
from ualm_jax.train.optimizer import OptimizerConfig, learning_rate


def rates(steps, **fields) -> list[float]:
    schedule = learning_rate(OptimizerConfig(peak_lr=1.0, end_lr=0.2, **fields))
    return [pytest.approx(float(schedule(step)), abs=1e-6) for step in steps]


def test_a_constant_rate_rises_and_stays_whatever_decay_steps_says():
    assert [0, 0.5, 1, 1, 1] == rates([0, 1, 2, 9, 10**6], schedule="constant", warmup_steps=2, decay_steps=1)
    assert [1, 1] == rates([0, 5], schedule="constant", warmup_steps=0)


def test_wsd_stays_until_it_falls_in_a_line():
    steps = {"warmup_steps": 2, "decay_steps": 20, "cooldown_steps": 8}
    assert [0.5, 1, 1, 0.9, 0.6, 0.2, 0.2] == rates([1, 2, 12, 13, 16, 20, 99], schedule="wsd", **steps)


@pytest.mark.parametrize("cooldown", [0, 19])
def test_a_fall_that_does_not_fit_is_one_sentence(cooldown):
    with pytest.raises(UserError, match="cooldown_steps must lie between 1 and decay_steps - warmup_steps = 18"):
        OptimizerConfig(schedule="wsd", warmup_steps=2, decay_steps=20, cooldown_steps=cooldown)
