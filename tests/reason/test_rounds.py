"""What both rounds build of a model's answers, whatever interrupts it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers.building import CONFIG, POOL, Moody, kinds
from helpers.scripted import ScriptedModel

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.data.dataset.audio_input import with_frames
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.dataset.pairs import conversations_of
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.data.raw.soundscript.conversations import CRITICISE, LISTEN, MAKE_RIGHT
from ualm_jax.errors import UserError
from ualm_jax.reason.builders.rounds import Builder
from ualm_jax.reason.builders.writer import Templates
from ualm_jax.reason.plans import audible
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.rich_caption import compare, parse

CLAP = "sound: Four claps."


def prompts(first, samples=2) -> list[tuple[str, str]]:
    """(prompt, rich caption) of entries from `first` on."""
    entries = [POOL[first + index] for index in range(4)]
    return [(Templates().prompt(e.caption, i * samples), e.caption.write()) for i, e in enumerate(entries)]


def builder(model, golden_dir, writer=None, **changes) -> Builder:
    folders = {"tokenizer": golden_dir / "qwen2", "codec": golden_dir / "xcodec"}
    return Builder(model, POOL, writer or Templates(), dataclasses.replace(CONFIG, **changes), folders)


def pairs_model(stop_at=None) -> ScriptedModel:
    """Even seeds obey, odd ones clap; the last prompt has no plan."""
    script = {
        f"Plan first: {p}": [plan, lambda seed, p=p: CLAP if seed % 2 else f"sound: {p}"] for p, plan in prompts(0)
    }
    script[f"Plan first: {prompts(0)[3][0]}"] = ["no plan"]
    return ScriptedModel(script, slots=1, stop_at=stop_at)


def texts(messages) -> list[str]:
    return ["".join(map(chr, m.content)) for m in messages if m.modality == "text"]


def quarantine(out) -> list[dict]:
    return [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]


def test_round_1_pairs_hold_a_plan_and_its_sound_on_either_side(golden_dir, tmp_path):
    model = pairs_model()
    found = builder(model, golden_dir).pairs(tmp_path)
    assert (found["prompts"], found["records"]) == (4, 3) and sum(found["left out"].values()) == 1
    records = list(open_records(open_dataset(tmp_path / "dataset")))
    for record, (prompt, plan) in zip(records, prompts(0), strict=False):
        chosen, rejected = conversations_of(record)
        answer = [("assistant: text", True), ("assistant: discrete_audio", True)]
        assert kinds(chosen.messages) == kinds(rejected.messages) == [("user: text", False), *answer]
        assert texts(chosen.messages) == [f"Plan first: {prompt}", plan]
        assert model.codec.captions[chosen.messages[2].content[0, 0]] == prompt
        assert model.codec.captions[rejected.messages[2].content[0, 0]] == "Four claps."
        assert record.scene["made_by"] == {"writer": "templates", "weights": {}}
        assert record.scene["chosen"]["score"] == 1.0 > record.scene["rejected"]["score"]
        assert record.scene["rich_caption"] == plan and record.scene["from"].startswith("soundscript2-train-0-")
    (left,) = quarantine(tmp_path)
    assert "plan can not be used" in left["reason"] and left["prompt"] == prompts(0)[3][0]


def test_other_bounds_make_other_pairs_of_the_same_traces(golden_dir, tmp_path):
    builder(pairs_model(), golden_dir).pairs(tmp_path)
    model = pairs_model()
    assert builder(model, golden_dir, pairs=1).pairs(tmp_path)["records"] == 1
    assert {"fewer records are wanted"} < {each["reason"] for each in quarantine(tmp_path)}
    with pytest.raises(UserError, match="nothing is left to learn from.*closer than the margin"):
        builder(model, golden_dir, margin=2.0).pairs(tmp_path)
    assert model.calls == []
    with pytest.raises(UserError, match=r"other settings \(config\)"):
        builder(model, golden_dir, seed=5).pairs(tmp_path)


def reflection_model() -> ScriptedModel:
    """The first obeys, the others do not; what the last makes can not be said."""
    sounds = [f"sound: {prompts(4)[0][0]}", CLAP, CLAP, "sound:"]
    return ScriptedModel({f"Plan first: {p}": [None, sound] for (p, _), sound in zip(prompts(4), sounds, strict=True)})


def test_a_reflection_reads_its_first_attempt_and_learns_the_right_sound(golden_dir, tmp_path):
    found = builder(reflection_model(), golden_dir).reflections(tmp_path)
    assert found["records"] == 3 and "holds no sound" in quarantine(tmp_path)[0]["reason"]
    right, *wrong = open_records(open_dataset(tmp_path / "dataset"))
    head = [("user: text", False), ("assistant: text", True), ("assistant: discrete_audio", False)]
    head += [("user: text", False), ("user: continuous_audio", False), ("assistant: text", True)]
    head += [("user: text", False), ("assistant: text", True)]
    assert kinds(right.messages) == head and texts(right.messages)[-1] == "It is as planned."
    for record, (prompt, plan) in zip(wrong, prompts(4)[1:3], strict=True):
        assert kinds(record.messages) == [*head, ("user: text", False), ("assistant: discrete_audio", True)]
        heard = "Keywords: clap\nLayout: clap.\nDescription: clap = four."
        wanted = audible(parse(plan))
        critique = compare(wanted, parse(heard)).sentence()
        said = [f"Plan first: {prompt}", plan, LISTEN, heard, CRITICISE.format(wanted.write()), critique, MAKE_RIGHT]
        assert texts(record.messages) == said
        assert (record.messages[-1].content == 1023).all() and len(record.clips) == 1
        assert record.scene["made_by"]["writer"] == "templates" and record.scene["critique"] == critique


def test_the_model_itself_may_listen(golden_dir, tmp_path):
    heard = "Keywords: clap\nLayout: clap.\nDescription: clap = two."
    model = ScriptedModel({f"Plan first: {p}": [None, CLAP, heard] for p, _ in prompts(4)})
    builder(model, golden_dir, listener="model").reflections(tmp_path)
    records = open_records(open_dataset(tmp_path / "dataset"))
    assert all(texts(record.messages)[3] == heard for record in records)


def final_model() -> ScriptedModel:
    """The first two get better, the third worse; in the fourth nothing is found wrong."""
    heard = "Keywords: clap\nLayout: clap.\nDescription: clap = four."
    script = {}
    for index, (prompt, plan) in enumerate(prompts(12)):
        right = f"sound: {prompt}"
        first, second = (right, CLAP) if index == 2 else (CLAP, right)
        critique = "It is as planned." if index == 3 else "No claps, please."
        script[f"Plan first: {prompt}"] = [plan, first, heard, critique, second, heard]
    return ScriptedModel(script)


def test_reflection_is_paired_with_doing_without(golden_dir, tmp_path):
    found = builder(final_model(), golden_dir, preference_prompts=6).final_pairs(tmp_path)
    assert found["records"] == 3 and "the critique found nothing wrong" in quarantine(tmp_path)[0]["reason"]
    better, _, worse = open_records(open_dataset(tmp_path / "dataset"))
    with_it, without = conversations_of(better)
    assert kinds(without.messages)[-1] == ("assistant: discrete_audio", True) and len(without.messages) == 3
    assert [learn for kind, learn in kinds(with_it.messages) if "discrete" in kind] == [False, True]
    assert texts(with_it.messages)[-2:] == ["No claps, please.", MAKE_RIGHT] and len(with_it.clips) == 1
    assert better.scene["chosen"]["score"] == 1.0 > better.scene["rejected"]["score"]
    assert [len(each.messages) for each in conversations_of(worse)] == [3, 10]


def test_what_is_built_can_be_trained_on(golden_dir, tmp_path):
    """The spoilt attempts are read, sounds are heard, and what follows them is learnt."""
    front_end = MelFrontEnd(500, windowed=False, normalize=True, max_seconds=5.0)
    builder(reflection_model(), golden_dir).reflections(tmp_path / "reflections")
    builder(final_model(), golden_dir, preference_prompts=6).final_pairs(tmp_path / "final")
    for name, segments in (("reflections", 1), ("final", 2)):
        info = open_dataset(tmp_path / name / "dataset")
        config = DataConfig(
            directory=str(info.directory), seq_len=4096, batch_size=1, packing_bins=1, audio_slots=4, cfg_dropout=0.0
        )
        loader = make_loader(config, info.vocabulary, front_end)
        batch, places = next(loader)
        loader.close()
        record = open_records(info)[int(places[0][0])]
        assert batch.segment_ids.max() >= segments and (batch.reference is not None) == (name == "final")
        grids = [build_grid(with_frames(one.messages, front_end), info.vocabulary) for one in conversations_of(record)]
        length = sum(len(grid.tokens) for grid in grids)
        start = int(np.flatnonzero(places[0] == places[0][0])[0])
        weights = np.concatenate([grid.loss_weights for grid in grids])
        np.testing.assert_array_equal(batch.loss_weights[0, start : start + length], weights)
        clips = [clip.length for grid in grids for clip in grid.clips]
        assert clips and (batch.feature_index[0, start : start + length] >= 0).sum() == sum(clips)


@pytest.mark.parametrize("calls", [0, 3, 9])
def test_what_was_killed_goes_on_to_the_same_dataset(golden_dir, tmp_path, calls, monkeypatch):
    builder(pairs_model(), golden_dir).pairs(tmp_path / "whole")
    model = pairs_model(None if calls == 9 else calls)
    if calls == 9:  # behind the traces
        monkeypatch.setattr("ualm_jax.reason.builders.rounds.DatasetWriter.write", lambda *_: 1 / 0)
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
        builder(model, golden_dir).pairs(tmp_path / "out")
    monkeypatch.undo()
    builder(pairs_model(), golden_dir).pairs(tmp_path / "out")
    for name in ("report.json", "quarantine.jsonl", "texts.jsonl", "traces/00001.npz", "traces/00001.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    keys = [open_dataset(tmp_path / name / "dataset").key for name in ("out", "whole")]
    assert keys[0] == keys[1]


def test_a_prompt_that_nobody_could_write_is_named_and_tried_again(golden_dir, tmp_path):
    writer = Moody()
    with pytest.raises(UserError, match="1 of 4 prompts could not be written, such as: a bad day"):
        builder(pairs_model(), golden_dir, writer).pairs(tmp_path)
    asked, writer.spared = writer.asked, True
    assert builder(pairs_model(), golden_dir, writer).pairs(tmp_path)["records"] == 3
    assert (asked, writer.asked) == (4, 5)
    found = builder(pairs_model(), golden_dir, Moody(), max_bad_fraction=0.3).pairs(tmp_path / "allowed")
    assert found["records"] == 2 and {each["reason"] for each in quarantine(tmp_path / "allowed")} >= {"a bad day"}


def test_the_command_line_builds_stage_by_stage(golden_dir, tmp_path, monkeypatch, capsys):
    from ualm_jax.cli.main import run

    model = tmp_path / "model"
    shutil.copytree(golden_dir / "qwen2", model / "tokenizer")
    shutil.copytree(golden_dir / "xcodec", model / "codec")
    words = f"--config configs/reason_data_tiny.py --model {model} --config.seed=0 --config.writer.workers=1".split()

    def build(stage, *more):
        return run(["reason", "build", stage, *words, "--out", str(tmp_path / stage), *more])

    assert build("sft", "--config.enrichments=2", "--config.dialogues=0") == 0
    assert "2 conversations" in capsys.readouterr().out
    sizes = ["--config.preference_prompts=4", "--config.samples=2"]
    monkeypatch.setattr("ualm_jax.pretrained.load", lambda path, **how: pairs_model())
    assert build("pairs", *sizes) == 0
    said = capsys.readouterr().out
    assert "3 records of 4 prompts" in said and "1 x the plan can not be used" in said
    assert build("pairs", "--config.samples=1") == 1 and "config.samples" in capsys.readouterr().err
    monkeypatch.setattr("ualm_jax.pretrained.load", lambda path, **how: ScriptedModel({}))
    (tmp_path / "model" / "codec").rename(tmp_path / "codec")
    assert build("final") == 1 and "holds no codec" in capsys.readouterr().err
