"""What thinking is worth, measured on a scripted model whose gains are known."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.scripted import ScriptedModel

from ualm_jax.data.raw.soundscript.phrase import plain
from ualm_jax.reason import How
from ualm_jax.reason.measure import Measuring, items_of, measure
from ualm_jax.reason.measured import Mean, tables
from ualm_jax.reason.pages import write_pages


def long(prompt: str, clip) -> float:
    """A selector that wants the caption, and likes what is long."""
    assert not prompt.startswith("Keywords")
    return clip.seconds


SETTINGS = {"cfg_scale": 3.0, "temperature": 0.8, "max_tokens": 256, "max_frames": 300}  # those of the command
MEASURING = Measuring(How(rounds=1, settings=SETTINGS), long, count=3, seeds=2, shard_size=2)
CLAP = "sound: Four claps."
HEARD = "Keywords: clap\nLayout: clap.\nDescription: clap = four."


def script() -> dict:
    """Plans make open prompts right, questions make dialogues right; reflections mend the first two captions, but the
    critique of the second is not true; and spoil the third, of which a first version is right."""
    found = {}
    for item in items_of("imagine", MEASURING):
        right = f"sound: {plain(item.plan)}"
        found |= {item.wanted.prompt: [CLAP], f"Plan first: {item.wanted.prompt}": [item.wanted.truth, right]}
    for item in items_of("dialogue", MEASURING):
        right = f"sound: {plain(item.plan)}"
        # In a single turn the first reply is a sound, else a question.
        found[item.wanted.prompt] = [*item.answers, item.wanted.truth, right]
    for index, item in enumerate(items_of("enrich", MEASURING)):
        right = f"sound: {plain(item.plan)}"
        first, second = (right, CLAP) if index == 2 else (CLAP, right)
        found[item.wanted.prompt] = [CLAP]
        critique = _critique(item) if index == 0 else "Make it better."
        heard = "A clap." if index == 1 else HEARD  # which is no rich caption, and so not true
        found[f"Plan first: {item.wanted.prompt}"] = [item.wanted.truth, first, HEARD, critique, second, heard]
    return found


def _critique(item) -> str:
    from ualm_jax.reason.plans import audible
    from ualm_jax.tokens.rich_caption import compare, parse

    return compare(audible(parse(item.wanted.truth)), parse(HEARD)).sentence()


class Model(ScriptedModel):
    """Makes a clap where a sound is asked for that the script answers in words."""

    def answer(self, job, *args, **more):
        key, count = self.place(job)
        said = self.script[key]
        if job.modality != "audio" or said[count].startswith("sound:"):
            return super().answer(job, *args, **more)
        self.script[key] = [*said[:count], CLAP, *said[count + 1 :]]
        try:
            return super().answer(job, *args, **more)
        finally:
            self.script[key] = said


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("measured")
    model = Model(script())
    found = measure(model, MEASURING, out)
    return model, out, found, tables(found, model.codec, MEASURING.seeds)


def test_gains_and_losses_are_found_where_they_are(measured):
    *_, found, made = measured
    value = {title: {name: mean.value for name, mean in rows.items()} for title, rows in made.items()}
    assert value["open prompts accepted"] == {"without a plan": pytest.approx(0, abs=0.4), "planned": 1.0}
    assert value["dialogues that satisfy"] == {"single turn": 0.0, "asked": 1.0}
    captions = value["captions obeyed in full"]
    third = pytest.approx(1 / 3)
    assert (captions["without a plan"], captions["v1"], captions["v2"]) == (0.0, third, pytest.approx(2 / 3))
    assert captions["best of its versions (oracle)"] == 1.0
    number = len(found["best-of"][0].traces) // 2
    assert number >= 2 and captions[f"best of {number} at equal compute (oracle)"] == third
    assert captions[f"best of {number} by the selector"] == captions[f"one of {number} at equal compute"] == third
    assert value["reflection, version against the first"] == {
        "better": pytest.approx(2 / 3),
        "the same": 0.0,
        "worse": third,
    }
    steps = value["steps that hold"]
    assert steps["plan says what the prompt says"] == 1.0 and steps["hearing: rich caption is true"] == 0.5
    assert steps["critique: true of plan and sound"] == third and steps["regeneration: critique followed"] == 1.0
    texture = value["fine control: texture"]
    assert texture == {"without a plan": 0.0, "planned": third, "last version": pytest.approx(2 / 3)}


def test_a_sound_that_was_not_made_is_wrong_on_every_track(measured):
    model, _, found, made = measured
    *others, last = found["reflect"]
    silent = dataclasses.replace(last, traces=tuple(dataclasses.replace(t, takes=(), best=None) for t in last.traces))
    without = tables({**found, "reflect": [*others, silent]}, model.codec, MEASURING.seeds)
    before, after = (each["fine control: texture"]["planned"] for each in (made, without))
    assert (before.value, before.prompts) == (pytest.approx(1 / 3), 3) and (after.value, after.prompts) == (0.0, 3)


def test_measuring_again_makes_nothing_again(measured):
    model, out, _, made = measured
    calls = len(model.calls)
    found = measure(model, MEASURING, out)
    assert len(model.calls) == calls and tables(found, model.codec, 2) == made


def test_pages_show_what_helped_and_what_harmed(measured, tmp_path):
    model, _, found, _ = measured
    write_pages(found["reflect"], model.codec, tmp_path / "pages")
    names = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert names == ["bad-1.html", "bad-2.html", "good-1.html", "good-2.html", "good-3.html"]
    assert "Make it better." in (tmp_path / "pages" / "bad-1.html").read_text()


def test_intervals_are_of_prompts_and_not_of_traces():
    rng = np.random.default_rng(1)
    prompts = (rng.random(50) < 0.6).astype(float)
    once, often = Mean.of([[value] for value in prompts]), Mean.of([[value] * 100 for value in prompts])
    assert once == often and once.value == prompts.mean() and once.prompts == 50
    half = (once.interval[1] - once.interval[0]) / 2
    assert half == pytest.approx(1.96 * np.sqrt(0.6 * 0.4 / 50), rel=0.15)
    assert Mean.of([[], [1.0]]).prompts == 1 and Mean.of([[]]) is None


def test_the_command_writes_tables_and_pages_of_what_is_made(measured, tmp_path, monkeypatch, capsys):
    from ualm_jax.cli import generation_arguments
    from ualm_jax.cli.main import run

    model, out = Model(script()), measured[1]
    model.codec.captions.update(measured[0].codec.captions)
    monkeypatch.setattr(generation_arguments, "open_model", lambda args, **how: model)
    words = f"eval reason --model {tmp_path} --out {out} --count 3 --seeds 2 --rounds 1"
    words += f" --selector {__file__}:long"
    assert run(words.split()) == 0
    assert model.calls == [] and (out / "pages" / "good-1.html").is_file()
    report = json.loads((out / "report.json").read_text())
    assert report["dialogues that satisfy"]["asked"]["value"] == 1.0
    assert "| asked | 100.0 % (100.0 to 100.0) | 3 |" in capsys.readouterr().out
