"""Thinking with a real model, of random weights: what it writes is nonsense, so callers put texts in its place."""

import numpy as np
import pytest
from helpers.golden_pipeline import golden_pipeline

from ualm_jax.reason import Criticised, Heard, How, Reasoning, Wish, run

HOW = How(rounds=1, seconds=0.2, settings={"max_tokens": 3, "text_temperature": 2.0, "cfg_scale": 2.0})
PLANS = ["Keywords: a\nLayout: a.\nDescription: none.", "Keywords: b, c\nLayout: b, c.\nDescription: b = two."]


@pytest.fixture(scope="module")
def pipeline(golden_dir):
    return golden_pipeline(golden_dir, slots=2, window=512)


def reasonings(pipeline):
    return [Reasoning(pipeline.session(seed=seed), Wish("Rain.", PLANS[seed % 2]), HOW) for seed in range(3)]


def think(all_of_them) -> list:
    """Of each the texts and codes that the model made, and how it ended."""
    made = {reasoning: [] for reasoning in all_of_them}
    for reasoning, event in run(all_of_them):
        if isinstance(event, Heard):
            made[reasoning].append(event.text)
            reasoning.reply(reasoning.wish.plan)
        elif isinstance(event, Criticised):
            made[reasoning].append(event.text)
            reasoning.reply("louder")
    found = []
    for reasoning in all_of_them:
        ended = reasoning.ended
        assert (ended.reason, ended.problem, len(ended.versions)) == ("rounds", None, 2)
        found.append((made[reasoning], [version.clip.codes.tolist() for version in ended.versions], ended.steps))
    return found


def test_a_batch_of_reflections_equals_each_alone(pipeline):
    together = think(reasonings(pipeline))
    assert together == [think([reasoning])[0] for reasoning in reasonings(pipeline)]
    assert together[0][1] != together[2][1], "seeds"
    assert np.shape(together[0][1]) == (2, 10, 8) and together[0][1][0] != together[0][1][1]


def test_what_the_model_says_becomes_part_of_the_conversation(pipeline):
    (reasoning,) = [Reasoning(pipeline.session(), Wish("Rain.", PLANS[0]), HOW)]
    think([reasoning])
    kinds = [(message.role.value, message.modality.value) for message in reasoning.session.messages]
    text, sound = ("user", "text"), ("assistant", "discrete_audio")
    listened = [text, ("user", "continuous_audio"), ("assistant", "text")]
    assert kinds == [text, ("assistant", "text"), sound, *listened, text, ("assistant", "text"), text, sound, *listened]
