"""Conversations about scenes: answers that are exactly true, words that the tokenizer knows."""

import numpy as np
import pytest

from ualm_jax.data.raw.conversation import ConversationSource
from ualm_jax.data.raw.soundscript import Part, Plan, SoundScript2, render
from ualm_jax.data.raw.soundscript.conversations import CRITICISE, LISTEN, MAKE_RIGHT, TASKS, ScriptConversations
from ualm_jax.data.raw.soundscript.dialogue import asked_for, dialogue
from ualm_jax.data.raw.soundscript.flaws import FLAWS, flawed
from ualm_jax.data.raw.soundscript.phrase import plain
from ualm_jax.data.raw.soundscript.questions import ask, is_right, rework
from ualm_jax.data.raw.soundscript.rich import by_ear, plan_of_rich, rich_caption
from ualm_jax.data.raw.soundscript.words import save_tokenizer, unknown_words
from ualm_jax.errors import UserError
from ualm_jax.tokens.rich_caption import compare, parse
from ualm_jax.tokens.tokenizer import load_tokenizer

SOUNDS = SoundScript2(1000, 4)
THREE = Plan((Part("click", 2), Part("tone", 1, "C4", "long"), Part("kick", 1, level="loud")), ("then", "pause"))


def answers(plan: Plan, count: int = 3000) -> dict[str, str]:
    rng = np.random.default_rng(0)
    return {asked.question: asked.answer for asked in (ask(plan, rng) for _ in range(count))}


def test_questions_about_a_plan_have_these_answers():
    found = answers(THREE)
    assert found["How many sounds are there?"] == "four"
    assert found["How many clicks are there?"] == "two"
    assert found["How many hisses are there?"] == "none"
    assert (found["What comes first?"], found["What comes last?"]) == ("click", "kick")
    assert found["Which came first, the kick or the clicks?"] == "the clicks"
    assert found["Does the tone come before the kick?"] == "yes"
    assert found["Does the tone come before the clicks?"] == "no"
    assert (found["Is there a kick?"], found["Is there a clap?"]) == ("yes", "no")
    assert found["At which note is the tone?"] == "C4"
    assert found["Is the tone short or long?"] == "long"
    assert found["Which is louder, the tone or the kick?"] == "the kick"
    assert found["Do any sounds overlap?"] == "no"


def test_texts_are_reworked_like_this():
    rng = np.random.default_rng(0)
    found = {asked.question: asked.answer for asked in (rework(THREE, "C.", rng) for _ in range(200)) if asked}
    assert found["Say it plainly: C."] == plain(THREE)
    assert found["Turn the order round: C."] == "A loud kick, then after a pause a long tone at C4, then two clicks."
    assert "Let the tone sound twice: C." not in found  # there would be five sounds
    two = Plan(THREE.parts[:2], ("then",))
    found = {asked.question: asked.answer for asked in (rework(two, "C.", rng) for _ in range(200)) if asked}
    assert found["Let the tone sound twice: C."] == "Two clicks, then two long tones at C4."
    assert found["Leave out the clicks: C."] == "A long tone at C4."


def test_answers_are_compared_by_what_they_say():
    assert is_right("The clicks.", "the clicks") and is_right(" c4 ", "C4") and is_right("click", "the click")
    assert not is_right("clicks", "click") and not is_right("", "no") and not is_right("C5", "C4")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_a_source_of_conversations(task):
    source = ScriptConversations(SOUNDS, task)
    assert isinstance(source, ConversationSource)
    first, again = source[7], ScriptConversations(SoundScript2(8, 4), task)[7]
    texts = [[m.content for m in each.messages if m.modality == "text"] for each in (first, again)]
    assert texts[0] == texts[1] and all(texts[0])
    assert len({source[i].id for i in range(5)}) == 5
    assert first.messages[0].role == "user" and first.messages[-1].role == "assistant"
    kinds = {"heard": "continuous_audio", "made": "discrete_audio"}
    sounds = [m.modality for m in first.messages if m.modality != "text"]
    if task == "reflect":
        assert sounds[:2] == ["discrete_audio", "continuous_audio"]
    else:
        assert sounds == [kinds[role] for role in [TASKS[task][1]] if role in kinds]
    with pytest.raises(IndexError):
        source[1000]


@pytest.mark.parametrize("task", TASKS)
def test_every_sound_of_a_conversation_can_be_kept_short(task):
    source = ScriptConversations(SoundScript2(40, 4, max_seconds=1.2), task)
    said = [message.content for index in range(40) for message in source[index].messages]
    sounds = [each for each in said if not isinstance(each, str)]
    assert all(len(each.wav) <= 1.2 * each.sample_rate for each in sounds)
    assert bool(sounds) == (TASKS[task][1] != "absent")


def test_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="describe, listen"):
        ScriptConversations(SOUNDS, "sing")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    save_tokenizer(folder)
    return load_tokenizer(folder)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "combination", "phrasing"])
def test_the_tokenizer_knows_every_word_of_every_task(tokenizer, task, split):
    source = ScriptConversations(SoundScript2(60, 4, split=split), task)
    for index in range(60):
        item, _ = source.item(index)
        for said in (item.user, item.answer, *(turn for _, turn in item.before)):
            assert unknown_words(said) == []
            ids = tokenizer.encode(said)
            assert tokenizer.decode(ids) == said.lower()
            assert len(ids) <= 2 + len(said.split()) + sum(not letter.isalnum() for letter in said)


def test_a_caption_takes_few_ids_and_other_text_is_spelt(tokenizer):
    assert tokenizer.size <= 512
    assert len(tokenizer.encode("A low beep, then two claps.")) == 8
    assert tokenizer.decode(tokenizer.encode("Zebras bark twice?")) == "zebras bark twice?"
    assert unknown_words("A zebra, then two claps; a Zebra!") == ["zebra"]


def test_rich_captions_are_exact():
    assert rich_caption(THREE).write() == (
        "Keywords: click, tone, kick\nLayout: click, then tone, then after a pause kick.\n"
        "Description: click = two; tone = one, long, at c4; kick = one, loud."
    )
    over = Plan((Part("tone", 1, "low", "long"), Part("hat", 2)), ("while",))
    assert rich_caption(over).layout == "hi-hat during tone"
    twice = Plan((Part("tone", 1, "low"), Part("tone", 1, "high")), ("then",))
    assert rich_caption(twice).keywords == ("tone", "second tone")


def test_a_rich_caption_tells_plans_apart():
    plans = {SOUNDS.script(index).plan for index in range(1000)}
    written = {rich_caption(plan).write() for plan in plans}
    assert len(written) == len(plans)
    assert all(parse(text).write() == text for text in written)


def test_a_rich_caption_becomes_the_plan_again():
    plans = {SOUNDS.script(index).plan for index in range(1000)}
    assert all(plan_of_rich(parse(rich_caption(plan).write())) == plan for plan in plans)


@pytest.mark.parametrize(
    ("words", "others"),
    [
        ("click = two", "click = seven"),
        ("at c4", "at h4"),
        ("one, long", "one, long, short"),
        ("kick = one, loud", "kick = long"),
        ("click, then tone", "tone, then click"),
        ("then after a pause kick.", "then kick, later."),
        ("kick", "dog"),
        ("kick", "second kick"),
    ],
)
def test_a_rich_caption_of_no_plan_is_none(words, others):
    text = rich_caption(THREE).write()
    assert words in text and plan_of_rich(parse(text.replace(words, others))) is None


def test_levels_are_not_told_by_ear():
    assert by_ear(THREE).parts[2] == Part("kick")
    assert by_ear(Plan((Part("click"), Part("click", level="loud")), ("then",))) is None


def test_flaws_are_found_by_comparing():
    rng = np.random.default_rng(0)
    seen = set()
    for index in range(300):
        plan = by_ear(SOUNDS.script(index).plan)
        if plan is None:
            continue
        name, spoilt = flawed(plan, rng)
        seen.add(name)
        difference = compare(rich_caption(plan), rich_caption(spoilt))
        if name == "missing":
            assert difference.missing
        if name == "count":
            assert [(wanted - heard) ** 2 for _, wanted, heard in difference.counts] == [1]
        if name == "pitch" and difference:
            assert difference.attributes
    assert seen == set(FLAWS)


def test_a_dialogue_asks_for_all_that_is_planned():
    plan = asked_for(THREE)
    assert plan.links == ("then", "then") and plan.parts[1] == Part("tone", 1, "C4")
    said = dialogue(plan, np.random.default_rng(0))
    assert [role for role, _ in said] == ["user", "assistant"] * 6 + ["user"]
    assert said[1:5] == [
        ("assistant", "Which comes first?"),
        ("user", "The clicks."),
        ("assistant", "Which comes next?"),
        ("user", "The tones."),
    ]
    assert said[-2:] == [("assistant", "How high is the tone?"), ("user", "C4.")]


def test_a_reflection_hears_what_was_spoilt_and_makes_it_right():
    source, seen = ScriptConversations(SOUNDS, "reflect"), set()
    for index in range(30):
        item, scene = source.item(index)
        messages = source[index].messages
        texts = [message.content for message in messages if message.modality == "text"]
        made = [message for message in messages if message.modality == "discrete_audio"]
        heard = [message for message in messages if message.modality == "continuous_audio"]
        plan, wanted = parse(texts[1]), rich_caption(by_ear(item.plan))
        assert plan == rich_caption(item.plan) and texts[2] == LISTEN
        assert parse(texts[3]) == rich_caption(item.first) and texts[4] == CRITICISE.format(wanted.write())
        assert texts[5] == compare(wanted, parse(texts[3])).sentence()
        spoilt = texts[5] != "It is as planned."
        assert [message.learn for message in made] == [not spoilt, True][: 1 + spoilt]
        for sound, again in zip(made, heard, strict=False):
            np.testing.assert_array_equal(sound.content.wav, again.content.wav)
        np.testing.assert_array_equal(made[-1].content.wav, render(scene, 16000))
        if spoilt:
            assert texts[6] == MAKE_RIGHT and not np.array_equal(made[0].content.wav, made[1].content.wav)
        assert texts[-1] == (MAKE_RIGHT if len(heard) == 1 and spoilt else "It is as planned.")
        seen.add((spoilt, len(heard)))
    assert seen == {(False, 1), (True, 1), (True, 2)}
