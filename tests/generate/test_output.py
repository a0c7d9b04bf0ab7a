"""A generated sound on disk: whole, with how it was made, so that it can be made again."""

import dataclasses
import json
import resource

import jax
import numpy as np
import pytest

from ualm_jax.audio.io import read_audio
from ualm_jax.cli import replay as cli
from ualm_jax.errors import UserError
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.output import parse_loudness, read_record, save_again
from ualm_jax.generate.replay import replay
from ualm_jax.weights.fingerprints import codec_fingerprint, model_fingerprint


@pytest.fixture(scope="module")
def made(pipeline):
    """The same pipeline, which knows its weights."""
    weights = {"model": model_fingerprint(pipeline.model), "codec": codec_fingerprint(pipeline.codec)}
    return dataclasses.replace(pipeline, made_by=MadeBy("golden", 100, read_weights=lambda: weights))


@pytest.fixture(scope="module")
def clip(made):
    """Not the first of its batch; settings that are not the defaults."""
    return made.generate(["two beeps", "Zwei Töne"], seconds=0.3, seed=5, top_k=7, negative_prompt="noise")[1]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_saved_sound_is_made_again_from_the_file_alone(made, clip, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    clip.save(path, loudness="rms=-20")
    record = read_record(path)
    assert record == {k: v for k, v in read_record(tmp_path / f"a{suffix}.json").items() if k in record}
    assert (record["prompt"], record["seed"], record["made_by"]["step"]) == ("Zwei Töne", 6, 100)
    again = replay(record, made)
    np.testing.assert_array_equal(again.samples, clip.samples)
    for source in (record, read_record(tmp_path / f"a{suffix}.json")):
        save_again(tmp_path / f"b{suffix}", again.samples, again.rate, source)
        assert (tmp_path / f"b{suffix}").read_bytes() == path.read_bytes()


def test_the_json_beside_says_what_the_file_became(clip, tmp_path):
    gain = clip.save(tmp_path / "a.wav", loudness="peak=-6", plot=True)
    beside = json.loads((tmp_path / "a.wav.json").read_text())
    assert (beside["gain"], beside["seconds"], beside["rate"]) == (gain, clip.seconds, 16000)
    assert beside["codes"]["frames"] == 15 and beside["negative"] == "noise"
    assert (tmp_path / "a.wav.png").read_bytes().startswith(b"\x89PNG")
    assert np.abs(read_audio(tmp_path / "a.wav", sample_rate=16000)).max() == pytest.approx(10 ** (-6 / 20), abs=1e-3)


def test_other_weights_are_refused(made, clip):
    other = MadeBy("runs/other", read_weights=lambda: made.made_by.weights | {"model": "0" * 64})
    with pytest.raises(UserError, match="runs/other has another model than made this sound .* --model"):
        replay(clip.record(), dataclasses.replace(made, made_by=other))
    lacking = MadeBy("runs/other", read_weights=lambda: {"model": made.made_by.weights["model"]})
    with pytest.raises(UserError, match="another codec .*fingerprint none"):
        replay(clip.record(), dataclasses.replace(made, made_by=lacking))
    with pytest.raises(UserError, match="does not say which weights"):
        replay(clip.record() | {"weights": {}}, made)


def test_a_sound_that_comes_out_different_is_not_passed_off_as_the_same(made, clip):
    record = clip.record()
    with pytest.raises(
        UserError, match="Another sound came out than the one recorded, from the same weights and seed.$"
    ):
        replay(record | {"prompt": "two beeps"}, made)
    with pytest.raises(UserError, match="made on H100 with jax 0.11, this is cpu"):
        replay(record | {"prompt": "two beeps", "device": "H100", "jax": "0.11"}, made)


def test_what_depends_on_more_than_a_record_holds_is_not_made_again(made, clip):
    (more,) = made.generate(["two beeps"], seconds=0.2, begin=clip)
    with pytest.raises(UserError, match="from its prompt and a sound that it begins with, which is not kept"):
        replay(more.record(), made)
    session = made.session().say("two beeps")
    (reply,) = session.reply("audio", seconds=0.2)
    with pytest.raises(UserError, match="and a conversation, which is not kept"):
        replay(reply.record(), made)


def test_one_changed_weight_is_another_fingerprint(pipeline):
    def nudge(path, leaf):
        if "audio_head" not in jax.tree_util.keystr(path):
            return leaf
        value = np.array(leaf)
        value[0, 0, 0] += 1e-6
        return jax.device_put(value, leaf.sharding)

    before = model_fingerprint(pipeline.model)
    changed = jax.tree_util.tree_map_with_path(nudge, pipeline.model)
    assert before == model_fingerprint(pipeline.model) != model_fingerprint(changed)


def test_a_full_disk_leaves_none_of_the_three_files(clip, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))  # the record fits, the sound does not
    try:
        with pytest.raises(OSError, match="File too large"):
            clip.save(tmp_path / "a.wav")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_files_that_say_nothing_and_wrong_settings_are_one_sentence(clip, tmp_path):
    from ualm_jax.audio.write import write_sound

    write_sound(tmp_path / "plain.wav", clip.samples, clip.rate, comment="a nice sound")
    (tmp_path / "broken.json").write_text('{"prompt": ')
    for name in ("plain.wav", "broken.json"):
        with pytest.raises(UserError, match="does not say how it was made"):
            read_record(tmp_path / name)
    with pytest.raises(UserError, match="none.json: can not be read"):
        read_record(tmp_path / "none.json")
    with pytest.raises(UserError, match="expected a sound file that"):
        read_record(tmp_path / "a.txt")
    clip.save(tmp_path / "a.wav")
    record = json.loads((tmp_path / "a.wav.json").read_text())
    for name, value in {
        "weights": ["x"],
        "made_by": "me",
        "settings": None,
        "file": {"depth": "16", "size": 3},
    }.items():
        (tmp_path / "edited.json").write_text(json.dumps(record | {name: value}))
        with pytest.raises(UserError, match=f"what it says of {name} is damaged"):
            read_record(tmp_path / "edited.json")
    for work in (3, "audio", ["sound"], [["audio"]]):
        (tmp_path / "edited.json").write_text(json.dumps(record | {"made_by": record["made_by"] | {"work": work}}))
        with pytest.raises(UserError, match="damaged: of work it says"):
            cli.main([str(tmp_path / "edited.json")])
    for value in ("loud", "lufs", "lufs=", "lufs=loud"):
        with pytest.raises(UserError, match="given as peak=-1, rms=-20 or lufs=-16"):
            parse_loudness(value)
    for value in ("lufs=3", "lufs=nan", "rms=-100"):
        with pytest.raises(UserError, match="between -70 and 0"):
            parse_loudness(value)
    with pytest.raises(UserError, match="peak, rms, lufs, not 'vu'"):
        clip.save(tmp_path / "a.wav", loudness="vu=-3")
