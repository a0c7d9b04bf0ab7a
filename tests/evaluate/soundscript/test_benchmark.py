"""The benchmark: fixed lists, a judge that is validated, any system judged, and a report that says all of it."""

import json
import re
import sys
import types

import jax
import numpy as np
import pytest
import soundfile
from helpers import golden_model

from ualm_jax.audio.io import read_audio
from ualm_jax.audio.write import write_sound
from ualm_jax.cli.main import run
from ualm_jax.data.raw.soundscript import Part, Plan, SoundScript2, render
from ualm_jax.data.raw.soundscript.invent import realise
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript import claims_of, hear, judge
from ualm_jax.evaluate.soundscript.benchmark import LISTS, items
from ualm_jax.evaluate.soundscript.judge import TRACKS, Verdict
from ualm_jax.evaluate.soundscript.model_sounds import from_model, through_codec
from ualm_jax.evaluate.soundscript.run import by_list, floor, originals
from ualm_jax.evaluate.soundscript.systems import from_command, from_folder
from ualm_jax.evaluate.soundscript.tally import Share, confusions, tally
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.tokens.tokenizer import load_tokenizer


class Steps:
    """A codec that keeps the first sample of every hop, as 16 bits."""

    sample_rate, context = 16000, 0

    def __init__(self, hop: int):
        self.hop, self.frame_rate, self.codebook_sizes = hop, 16000 / hop, (65536,)

    def encode(self, wav):
        return np.rint(wav[:: self.hop, None] * 32768).astype(np.int32)

    def decode(self, codes):
        return np.repeat(codes[:, 0] / 32768, self.hop).astype(np.float32)

    def encode_batch(self, wavs):
        return [self.encode(wav) for wav in wavs]

    def decode_batch(self, codes):
        return [self.decode(each) for each in codes]


@pytest.fixture(scope="module")
def few():
    return items(limit=12)


@pytest.fixture(scope="module")
def reference(few):
    return originals(few)


def heard(plan: Plan, seed: int = 0):
    return hear(render(realise(plan, np.random.default_rng(seed)), 16000))


def faults(sounding: Plan, asked: Plan) -> set[str]:
    verdict = judge(heard(sounding), claims_of(asked))
    return {track for track, right in verdict.tracks.items() if right is False}


# Lists


def test_the_lists_are_fixed_and_told_apart_by_rule():
    everything = items()
    assert len({item.id for item in everything}) == len(everything) == 1024
    captions = {name: {item.caption for item in everything if item.list == name} for name in LISTS}
    assert all(len(found) == 256 for found in captions.values())
    trained = {SoundScript2(1000, 0).script(index).caption for index in range(1000)}
    assert captions["seen"] <= trained and not captions["fresh"] & trained
    assert all(item.plan.held_out == (item.list == "combination") for item in everything)


def test_items_can_be_kept_short():
    short = items(("fresh",), 20, max_seconds=1.2)
    assert len(short) == 20 and all(len(item.sound()) <= 1.2 * 16000 for item in short)
    assert {item.id for item in short} < {item.id for item in items(("fresh",))}
    with pytest.raises(UserError, match="no sound of the list fresh lasts at most 0.5 s"):
        items(("fresh",), max_seconds=0.5)


def test_an_unknown_list_is_named():
    with pytest.raises(UserError, match="'all'; expected seen, fresh, combination, phrasing"):
        items(("all",))


# Validation of the judge


def test_the_originals_are_right_and_shuffled_captions_are_not(reference):
    assert tally([each.verdict for each in reference]).all.value >= 0.98
    assert floor(reference).all.value <= 0.05


# Claims


TONE = Plan((Part("tone", 1, "C4", "long"), Part("click", 2)), ("then",))


@pytest.mark.parametrize(
    ("sounding", "fault"),
    [
        (TONE, set()),
        (Plan((Part("tone", 1, "D4", "long"), Part("click", 2)), ("then",)), {"pitch"}),
        (Plan((Part("tone", 1, "C4", "short"), Part("click", 2)), ("then",)), {"duration"}),
        (Plan((Part("tone", 1, "C4", "long"), Part("click", 2)), ("pause",)), {"gap"}),
        (Plan((Part("tone", 1, "C4", "long"), Part("click", 3)), ("then",)), {"count"}),
        (Plan((Part("tone", 1, "C4", "long"), Part("click", 2, level="loud")), ("then",)), set()),
    ],
)
def test_each_fault_is_one_of_its_track(sounding, fault):
    assert faults(sounding, TONE) == fault


def test_loudness_is_asked_for_where_a_caption_compares():
    asked = Plan((Part("tone", 1, "C4"), Part("click", level="loud")), ("then",))
    softer = Plan((Part("tone", 1, "C4", level="loud"), Part("click")), ("then",))
    assert faults(asked, asked) == set() and faults(softer, asked) == {"loudness"}


def test_low_and_high_are_bands_and_what_is_not_said_is_free():
    def tone(pitch):
        return Plan((Part("tone", 1, pitch),))

    assert not faults(tone("C3"), tone("low")) and not faults(tone("B5"), tone("high"))
    assert faults(tone("C4"), tone("low")) == faults(tone("C4"), tone("high")) == {"pitch"}
    assert not faults(tone("B5"), tone(None))


def test_what_should_overlap_must_overlap():
    over = Plan((Part("tone", 1, "low", "long"), Part("hat", 2)), ("while",))
    assert faults(over, over) == set()
    assert faults(Plan(over.parts, ("then",)), over) == {"overlap"}


# Counting


def test_intervals_are_wilsons():
    assert Share(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson's formula, z = 1.96
    assert Share(0, 50).interval[0] == 0.0 and 0.05 < Share(0, 50).interval[1] < 0.09
    assert str(Share(8, 10)) == "80.0 % (49.0 to 94.3)"


def test_a_track_is_counted_where_it_is_asked_for():
    nothing = dict.fromkeys(TRACKS)
    right = Verdict(nothing | {"class": True}, (("tone", "tone"),), (), (0.01,), ())
    wrong = Verdict(nothing | {"class": False, "pitch": True}, (("tone", "buzz"), (None, "hat")), (3.0, -9.0), (), ())
    found = tally([right, wrong])
    assert (found.all.right, found.all.asked) == (1, 2)
    assert (found.tracks["pitch"].right, found.tracks["pitch"].asked) == (1, 1)
    assert found.errors["pitch, cents"][0] == 6.0 and found.errors["duration, ms"][0] == 10.0
    assert "gap, ms" not in found.errors
    assert confusions([right, wrong]) == {("tone", "tone"): 1, ("tone", "buzz"): 1, ("nothing", "hat"): 1}


# Systems


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    """A system that makes three quarters right: one in four sounds is the wrong way round, one is missing."""
    path = tmp_path_factory.mktemp("system")
    for index, item in enumerate(few[1:]):
        write_sound(path / f"{item.id}.wav", item.sound()[:: -1 if index % 4 == 0 else 1], 16000)
    return path


def test_a_folder_is_judged_by_id_and_what_is_missing_is_wrong(few, folder, caplog):
    wavs = list(from_folder(folder, few))
    assert f"1 of {len(few)} sounds are missing, such as seen-000" in caplog.text
    assert len(wavs) == len(few) and len(wavs[0]) == 0
    np.testing.assert_allclose(wavs[3], few[3].sound(), atol=2e-4)
    with pytest.raises(UserError, match="seen-000.wav"):
        list(from_folder(folder.parent, few))


def test_a_command_is_run_for_each_item_once(few, tmp_path):
    code = "import sys, numpy, soundfile; soundfile.write(sys.argv[2], numpy.full(8000, len(sys.argv[1]) / 200), 16000)"
    command = f"{sys.executable} -c '{code}' {{caption}} {{out}}"
    wavs = list(from_command(command, tmp_path, few[:2]))
    assert [round(200 * wav[0]) for wav in wavs] == [len(item.caption) for item in few[:2]]
    soundfile.write(tmp_path / f"{few[0].id}.wav", np.zeros(1600), 16000)
    assert len(next(from_command(command, tmp_path, few[:1]))) == 1600


@pytest.mark.parametrize(
    ("command", "message"),
    [("true", "{out}"), ("no-such-program {out}", "cannot be run"), ("false {out}", "ended with 1")],
)
def test_a_command_that_makes_nothing_is_named(few, tmp_path, command, message):
    with pytest.raises(UserError, match=message):
        list(from_command(command, tmp_path, few[:1]))


def test_a_model_makes_a_sound_for_each_caption_and_goes_on_where_it_was(few, golden_dir, tmp_path):
    model, codec = golden_model.load(golden_dir), Steps(hop=160)
    tokenizer = load_tokenizer(golden_dir / "qwen2")
    params = SamplingParams(max_frames=6)
    first = list(from_model(model, codec, tokenizer, params, tmp_path, few[:3], batch_size=2))
    assert all(len(wav) > 0 for wav in first)
    (tmp_path / f"{few[2].id}.wav").unlink()
    again = list(from_model(model, codec, tokenizer, params, tmp_path, few[:3], batch_size=2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_codec_passes_originals_through(few):
    for item, fine, coarse in zip(few, through_codec(Steps(1), few), through_codec(Steps(160), few), strict=True):
        np.testing.assert_allclose(fine, item.sound(), atol=2e-5)
        assert (
            len(coarse) == len(item.sound()) // 160 * 160 and np.abs(coarse - item.sound()[: len(coarse)]).max() > 0.01
        )


# The verb


def test_the_verb_writes_a_report_that_says_all(few, folder, tmp_path, capsys):
    out = tmp_path / "report"
    assert run(["eval", "soundscript", "--wavs", str(folder), "--out", str(out), "--limit", "3"]) == 0
    report = json.loads((out / "report.json").read_text())
    tables = report["tables"]
    assert set(tables) == {"original sounds (ceiling)", "shuffled captions (floor)", "all", *LISTS}
    assert tables["original sounds (ceiling)"]["all"]["value"] == 1.0
    judged = {item["id"]: item["right"] for item in report["items"]}
    assert len(judged) == 12 and not judged["seen-000"]
    assert tables["all"]["all"]["right"] == sum(judged.values()) < 12
    page = (out / "report.html").read_text()
    assert page.count("<audio") == page.count("data:image/png") == list(judged.values()).count(False) - 1
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "report.html" in capsys.readouterr().out


def test_captions_can_be_taken_elsewhere(tmp_path):
    assert run(["eval", "soundscript", "--captions", str(tmp_path / "captions.jsonl"), "--limit", "2"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines[:3]] == ["seen-000", "seen-001", "fresh-000"]


def test_sounds_of_another_making_are_not_mixed_in(tmp_path, capsys):
    code = "import sys, numpy, soundfile; soundfile.write(sys.argv[1], numpy.zeros(1600), 16000)"
    words = ["eval", "soundscript", "--limit", "2", "--lists", "seen", "--out", str(tmp_path), "--command"]
    assert run([*words, f"{sys.executable} -c '{code}' {{out}}"]) == 0
    assert run([*words, f"{sys.executable} -c '{code}' {{out}}", "--limit", "3"]) == 0
    assert len(read_audio(tmp_path / "wavs" / "seen-001.wav", sample_rate=16000)) == 1600
    assert run([*words, f"{sys.executable} -c '{code}' {{out}} --other"]) == 1
    assert "made in another way" in capsys.readouterr().err


def test_sounds_of_other_weights_are_not_mixed_in(tmp_path, monkeypatch, capsys):
    """As when a run has learnt further since its sounds were begun."""
    part, weights = types.SimpleNamespace(frame_rate=50.0), {"model": "abc"}
    loaded = dict(model=part, codec=part, tokenizer=part, mesh=jax.make_mesh((1,), ("data",)), language=None)
    loaded["made_by"] = types.SimpleNamespace(weights=weights)
    monkeypatch.setattr("ualm_jax.pretrained.load", lambda path, step: types.SimpleNamespace(**loaded))
    monkeypatch.setattr(
        "ualm_jax.evaluate.soundscript.model_sounds.from_model",
        lambda *given: (item.sound() for item in given[5]),
    )
    words = f"eval soundscript --model {tmp_path} --limit 2 --lists seen --out {tmp_path / 'out'}".split()
    assert run(words) == 0 and run(words) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["tables"]["all"]["all"]["right"] == 2
    capsys.readouterr()
    weights["model"] = "def"
    assert run(words) == 1 and "made in another way" in capsys.readouterr().err


def test_every_list_has_a_table_only_if_it_is_there(reference):
    assert set(by_list([each for each in reference if each.item.list == "fresh"])) == {"all", "fresh"}
