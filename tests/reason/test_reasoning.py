"""Thinking as a scripted model does it: which events come, what can be edited, when it ends, and what is best."""

import pytest
from helpers.reflections import BAD, CRITIQUE, GOOD, PLAN, PROMPT, RIGHT, TURNED, WANTED, WRONG
from helpers.scripted import ScriptedModel

from ualm_jax.data.raw.soundscript.conversations import CRITICISE, LISTEN, MAKE_RIGHT
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript.scorer import share_of_right_tracks
from ualm_jax.reason import Asked, Criticised, Ended, Heard, How, Made, Planned, Reasoning, Wish, run
from ualm_jax.reason.plans import contradictions
from ualm_jax.tokens.rich_caption import compare, parse


def think(replies, how=None, prompt=PROMPT, first="Plan first: {}", **wish) -> tuple[Reasoning, ScriptedModel]:
    model = ScriptedModel({first.format(prompt): replies})
    return Reasoning(model.session(), Wish(prompt, **wish), How() if how is None else how), model


def names(events) -> list[str]:
    return [type(event).__name__ for event in events]


def said(reasoning) -> list[str]:
    """The conversation, sounds by their modality."""
    decode = reasoning.session.parts.tokenizer.decode
    return [
        decode(m.content.tolist()) if m.modality == "text" else f"{m.role}: {m.modality}"
        for m in reasoning.session.messages
    ]


def test_a_reflection_is_said_as_its_training_says_it():
    reasoning, _ = think([PLAN, WRONG, *BAD, RIGHT, *GOOD], How(rounds=2))
    events = list(reasoning)
    round_ = ["Made", "Heard", "Criticised"]
    assert names(events) == ["Planned", *round_, *round_, "Ended"]
    listens = [LISTEN, "user: continuous_audio"]
    assert said(reasoning) == [
        f"Plan first: {PROMPT}",
        *(PLAN, "assistant: discrete_audio", *listens, TURNED, CRITICISE.format(WANTED), CRITIQUE, MAKE_RIGHT),
        *("assistant: discrete_audio", *listens, WANTED, CRITICISE.format(WANTED), "It is as planned."),
    ]
    ended = events[-1]
    assert (ended.reason, ended.problem, ended.best.name, ended.plan) == ("as planned", None, "v2", PLAN)
    assert [each.faults for each in ended.versions] == [1, 0]
    assert ended.steps == sum(map(len, (PLAN, *BAD, *GOOD))) + sum(len(v.clip.codes) for v in ended.versions)


def test_without_rounds_a_plan_becomes_one_sound():
    reasoning, _ = think([PLAN, RIGHT], How(rounds=0))
    *_, ended = events = list(reasoning)
    assert names(events) == ["Planned", "Made", "Ended"] and (ended.reason, ended.best.name) == ("made", "v1")


def test_it_ends_after_the_rounds_and_keeps_what_has_fewest_faults():
    reasoning, _ = think([PLAN, WRONG, *BAD, "sound: A clap.", "Keywords: clap\nLayout: clap.\nDescription: none."])
    ended = list(reasoning)[-1]
    assert (ended.reason, ended.best.name) == ("rounds", "v1") and [v.faults for v in ended.versions] == [1, 3]


def test_a_judge_keeps_the_best_and_ends_what_gets_no_better():
    how = How(rounds=3, judge=share_of_right_tracks)
    ended = list(think([PLAN, WRONG, *BAD, RIGHT, *BAD, WRONG], how)[0])[-1]
    assert (ended.reason, ended.best.name) == ("no better", "v2")
    assert [each.score.value == 1.0 for each in ended.versions] == [False, True, False]
    ended = list(think([PLAN, RIGHT, *BAD, RIGHT], how)[0])[-1]
    assert (ended.reason, ended.best.name) == ("no better", "v1"), "of equals the first"
    ended = list(think([PLAN, WRONG, *BAD, RIGHT], How(rounds=1, judge=share_of_right_tracks))[0])[-1]
    assert (ended.reason, ended.best.name) == ("rounds", "v2"), "the last version is judged, not listened to"


def test_a_judge_may_be_asked_about_the_plan():
    asked = []

    def judge(prompt, clip):
        asked.append(prompt)
        return len(asked)

    for judged_by in ("prompt", "plan"):
        ended = list(think([PLAN, WRONG, *BAD, RIGHT], How(judge=judge, judged_by=judged_by))[0])[-1]
        assert ended.reason == "rounds"
    assert asked == [PROMPT, PROMPT, PLAN, PLAN]


def test_a_judge_that_gives_no_score_is_a_problem():
    scores = iter([1.0, float("nan")])
    ended = list(think([PLAN, WRONG, *BAD, RIGHT], How(rounds=3, judge=lambda prompt, clip: next(scores)))[0])[-1]
    assert (ended.reason, ended.best.name) == ("problem", "v1")
    assert "the judge gave v2 no score: the scorer gave nan" in ended.problem


def test_it_ends_when_its_steps_are_used_up():
    ended = list(think([PLAN, WRONG, *BAD], How(rounds=5, budget=100))[0])[-1]
    assert ended.reason == "budget" and len(ended.versions) == 1


def test_a_caller_edits_the_plan_what_is_heard_and_the_critique():
    edited, heard = PLAN.replace("click", "clap"), TURNED.replace("click", "clap")
    reasoning, _ = think(["nonsense", WRONG, "nonsense", "", RIGHT, WANTED])
    for event in reasoning:
        if isinstance(event, Planned):
            with pytest.raises(UserError, match="no rich caption to go on with: the part Keywords: is missing"):
                reasoning.reply("also nonsense")
            with pytest.raises(UserError, match="click can not be two and three at once"):
                reasoning.reply(PLAN.replace("two", "two, three"))
            with pytest.raises(UserError, match="Keywords has the order click, tone, Layout another one"):
                reasoning.reply(PLAN.replace("Layout: click, then tone", "Layout: tone, then click"))
            with pytest.raises(UserError, match="Keywords is empty"):
                reasoning.reply("Keywords:\nLayout: x.\nDescription: none.")
            reasoning.reply(edited)
        elif isinstance(event, Heard) and event.version == "v1":
            reasoning.reply(heard)
        elif isinstance(event, Criticised):
            with pytest.raises(UserError, match="empty"):
                reasoning.reply(" ")
            reasoning.reply("Claps, please.")
        elif isinstance(event, Made):
            with pytest.raises(UserError, match="nothing to reply to"):
                reasoning.reply("Nice.")
    words = said(reasoning)
    assert words[1] == edited and heard in words and words[words.index(MAKE_RIGHT) - 1] == "Claps, please."
    assert (reasoning.ended.plan, reasoning.ended.problem, reasoning.ended.reason) == (edited, None, "rounds")


def test_a_layout_contradicts_the_keywords_only_where_it_does():
    plan = "Keywords: {}\nLayout: rising tone, then kick, then tone.\nDescription: none."
    assert contradictions(parse(plan.format("rising tone, kick, tone"))) == []
    (found,) = contradictions(parse(plan.format("rising tone, tone, kick")))
    assert found == "Keywords has the order rising tone, tone, kick, Layout another one"


def test_a_caller_stops_it_and_keeps_what_there_is():
    reasoning, model = think([PLAN, WRONG, *BAD, RIGHT])
    for event in reasoning:
        if isinstance(event, Heard):
            reasoning.stop()
    assert (event.reason, event.best.name) == ("stopped", "v1") and len(model.calls) == 3


@pytest.mark.parametrize("last", [Planned, Heard, Criticised])
def test_what_was_shown_stays_when_it_is_stopped(last):
    reasoning, _ = think([PLAN, WRONG, *BAD])
    for event in reasoning:
        if isinstance(event, last):
            reasoning.stop()
    assert (event.reason, event.plan) == ("stopped", PLAN)
    kept = [(each.heard, each.faults, each.critique) for each in event.versions]
    assert kept == {Planned: [], Heard: [(TURNED, 1, None)], Criticised: [(TURNED, 1, CRITIQUE)]}[last]


def test_what_can_not_be_used_is_kept_to_be_looked_at():
    assert list(think(["Just clicks."])[0])[-1].plan == "Just clicks."
    assert list(think([PLAN, WRONG, "a bang"])[0])[-1].versions[0].heard == "a bang"


def test_others_may_listen_and_criticise():
    how = How(listener=lambda clip: TURNED, critic=lambda plan, heard: compare(plan, heard).sentence())
    reasoning, model = think([PLAN, WRONG, None, None, RIGHT], how)
    ended = list(reasoning)[-1]
    assert CRITIQUE in said(reasoning) and [count for _, count in model.calls] == [0, 1, 4]
    assert ended.versions[0].critique == CRITIQUE


def test_a_dialogue_asks_until_it_knows():
    wish = "Make some clicks and some tones."
    replies = ["Which comes first?", "How many clicks?", PLAN, RIGHT]
    reasoning, _ = think(replies, How(rounds=0, ask=True), prompt=wish, first="{}")
    answers = iter(["The clicks.", "Two."])
    for event in reasoning:
        if isinstance(event, Asked):
            reasoning.reply(next(answers))
    assert reasoning.ended.talk == (("Which comes first?", "The clicks."), ("How many clicks?", "Two."))
    assert said(reasoning)[:6] == [wish, "Which comes first?", "The clicks.", "How many clicks?", "Two.", PLAN]
    assert reasoning.ended.best.name == "v1"


@pytest.mark.parametrize(
    "replies, how, wish, problem",
    [
        (["Just clicks."], How(), {}, "plan can not be used: the part Keywords: is missing"),
        (["Keywords:\nLayout: x.\nDescription: none."], How(), {}, "plan can not be used: Keywords is empty"),
        ([PLAN, "sound:"], How(), {}, "v1 holds no sound, so it can not be listened to"),
        ([PLAN, WRONG, "a bang"], How(), {}, "what is heard can not be used: the part Keywords: is missing"),
        ([PLAN, WRONG, TURNED, " "], How(), {}, "critique can not be used: it is empty"),
        ([PLAN, UserError("there is no room")], How(), {}, "there is no room"),
        ([PLAN, WRONG], How(listener=lambda clip: 1 / 0), {}, "the listener failed (ZeroDivisionError: "),
        ([PLAN, WRONG, TURNED], How(critic=lambda *both: None), {}, "the critic gave None, which is no text"),
        ([], How(), {"prompt": " "}, "the prompt is empty"),
        (["Why?"] * 5, How(ask=True, questions=3), {}, "the model asked 4 questions without making a plan"),
        ([""], How(ask=True), {}, "question 1 of the model is empty"),
        ([], How(), {"plan": PLAN.replace("two", "two, three")}, "it contradicts itself: click can not be two and"),
        ([], How(ask=True), {"plan": PLAN}, "leave out the plan"),
        ([], How(rounds=0, plan=False), {"plan": PLAN}, "leave out one of both"),
    ],
)
def test_what_goes_wrong_is_said(replies, how, wish, problem):
    reasoning, _ = think(replies, how, first="{}" if how.ask else "Plan first: {}", **wish)
    for event in reasoning:
        if isinstance(event, Asked):
            reasoning.reply("Any.")
    assert event.reason == "problem" and problem.replace("4", str(how.questions + 1)) in event.problem
    assert (event.best is None) == (not event.versions)


def test_a_question_that_nobody_answers_ends_it():
    reasoning, _ = think(["Why?"], How(ask=True), first="{}")
    assert "nobody answered question 1 of the model: Why?" in list(reasoning)[-1].problem


def test_several_are_thought_about_side_by_side_and_one_that_fails_stops_no_other():
    prompts = [f"Prompt {index}" for index in range(6)]
    script = {f"Plan first: {each}": [PLAN, WRONG, *BAD, RIGHT, *GOOD] for each in prompts}
    script[f"Plan first: {prompts[2]}"] = ["nonsense"]
    model = ScriptedModel(script)
    ended = {}
    for reasoning, event in run(Reasoning(model.session(), Wish(each), How(rounds=2)) for each in prompts):
        if isinstance(event, Ended):
            ended[reasoning.wish.prompt] = event
    assert {prompt: each.reason for prompt, each in ended.items()} == {
        prompt: "problem" if prompt == prompts[2] else "as planned" for prompt in prompts
    }


def test_a_sound_may_be_made_without_a_plan():
    *_, ended = events = list(think([RIGHT], How(rounds=0, plan=False), first="{}")[0])
    assert names(events) == ["Made", "Ended"] and (ended.best.name, ended.plan) == ("v1", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": -1},
        {"questions": 0},
        {"budget": 0},
        {"judged_by": "ear"},
        {"plan": False},
        {"plan": False, "rounds": 0, "ask": True},
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong):
    with pytest.raises(UserError, match="must be|Without a plan"):
        How(**wrong)
