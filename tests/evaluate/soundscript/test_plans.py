"""What is heard becomes a plan again, and open prompts accept what answers them."""

import numpy as np
import pytest

from ualm_jax.data.raw.soundscript import Event, Part, Plan, SoundScript2, render
from ualm_jax.data.raw.soundscript.abstract import PROMPTS, draw_prompt
from ualm_jax.data.raw.soundscript.invent import draw_plan, realise
from ualm_jax.data.raw.soundscript.rich import by_ear, rich_caption
from ualm_jax.data.raw.soundscript.words import unknown_words
from ualm_jax.evaluate.soundscript import hear
from ualm_jax.evaluate.soundscript.plans import plan_of
from ualm_jax.tokens.rich_caption import compare


def test_what_is_heard_is_what_was_planned_but_for_loudness():
    right = []
    for index in range(120):
        script = SoundScript2(120, 31).script(index)
        if (wanted := by_ear(script.plan)) is not None:
            right.append(plan_of(hear(render(script.scene, 16000))) == wanted)
    assert len(right) > 100 and np.mean(right) >= 0.98


def test_a_flaw_is_heard_and_told():
    wanted = Plan((Part("click", 2), Part("tone", 1, "low")), ("then",))
    made = Plan((Part("tone", 1, "low"), Part("click", 3)), ("then",))
    heard = plan_of(hear(render(realise(made, np.random.default_rng(0)), 16000)))
    assert compare(rich_caption(wanted), rich_caption(heard)).sentence() == (
        "The click should come before the tone; the click should sound twice, not three times."
    )


def test_what_no_plan_can_be_is_none():
    assert plan_of([]) is None
    assert plan_of([Event("click", 0.2 * n, 0.01, -26.0) for n in range(7)]) is None


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_a_prompt_accepts_its_examples_as_they_are_heard_and_little_else(prompt):
    rng = np.random.default_rng(0)
    for _ in range(12):
        plan = prompt.example(rng)
        assert prompt.accepts(plan), plan
        heard = plan_of(hear(render(realise(plan, rng), 16000)))
        assert heard is not None and prompt.accepts(heard), (plan, heard)
    assert np.mean([prompt.accepts(draw_plan(rng)) for _ in range(1000)]) < 0.06
    assert len({prompt.example(rng) for _ in range(60)}) >= 4
    assert len(prompt.texts) >= 2 and not any(map(unknown_words, prompt.texts))


def test_one_way_to_say_a_prompt_is_held_out():
    rng = np.random.default_rng(0)
    trained, held = ({draw_prompt(rng, held_out=held)[1] for _ in range(400)} for held in (False, True))
    assert not trained & held and len(held) == len(PROMPTS)
