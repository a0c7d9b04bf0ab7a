"""Captions of language 2 are read back as the plans that they were made from."""

import numpy as np
import pytest

from ualm_jax.data.raw.soundscript.invent import draw_plan
from ualm_jax.data.raw.soundscript.parse import plan_of_caption
from ualm_jax.data.raw.soundscript.phrase import phrase, plain
from ualm_jax.data.raw.soundscript.plan import Part, Plan


def test_every_way_of_saying_a_plan_is_read_as_that_plan():
    rng, count = np.random.default_rng(0), 0
    for _ in range(1500):
        plan = draw_plan(rng)
        for caption in filter(None, (phrase(plan, rng), phrase(plan, rng, held_out=True), plain(plan))):
            assert plan_of_caption(caption) == plan, caption
            count += 1
    assert count > 4000


SOFT, LOUDER = Part("tone", pitch="low", level="soft"), Part("buzz", pitch="E4", level="loud")


@pytest.mark.parametrize(
    "caption, plan",
    [
        ("two clicks", Plan((Part("click", 2),))),
        ("Play a soft low tone followed by a LOUDER buzz at e4", Plan((SOFT, LOUDER), ("then",))),
        ("A click twice, then a beep.", Plan((Part("click", 2), Part("tone", duration="short")), ("then",))),
        ("A click twice, then a long beep.", None),  # a beep is short
        ("A dog barks.", None),
        ("Five clicks.", None),
        ("Two clicks twice.", None),
        ("A low click.", None),  # clicks have no pitch
        ("A tone, then a tone.", None),  # one part
        ("", None),
    ],
)
def test_other_sentences_are_read_where_the_language_has_them(caption, plan):
    assert plan_of_caption(caption) == plan
