"""Round 1's conversations: what is built of pools and writers."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile
from helpers.building import CONFIG, POOL, Moody, kinds

from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError
from ualm_jax.reason.builders.config import BuildConfig
from ualm_jax.reason.builders.conversations import Written, build_conversations, write_texts
from ualm_jax.reason.builders.pool import ManifestPool
from ualm_jax.reason.builders.writer import Templates


def test_texts_are_written_once_and_what_failed_is_tried_again(tmp_path, caplog):
    source, writer = Written(POOL, tmp_path / "written", 3, 2), Moody()
    write_texts(source, writer, CONFIG)
    assert "1 of the last 5 were not written: soundscript-enrich-1: a bad day" in caplog.text
    with pytest.raises(BadRecord, match="soundscript-enrich-1: a bad day"):
        source[1]
    asked, again = writer.asked, Written(POOL, tmp_path / "written", 3, 2)
    write_texts(again, Templates(), CONFIG)
    assert asked == 3 and [source[i].messages[0].content for i in (0, 2)] == [
        again[i].messages[0].content for i in (0, 2)
    ]
    for index in range(5):
        conversation = again[index]
        entry = POOL[index]
        *said, plan, sound = conversation.messages
        assert plan.content == entry.caption.write() and sound.modality == "discrete_audio"
        np.testing.assert_array_equal(sound.content.read(16000), POOL.sound(index, 16000))
        assert conversation.scene["writer"] == ("templates" if index == 1 else "moody")
        assert (len(said) > 1) == (index > 2) and said[0].content.startswith("Plan first: ") == (index <= 2)


def test_round_1_becomes_a_dataset_with_a_quarantine(golden_dir, tmp_path):
    folders = {"tokenizer": golden_dir / "qwen2", "codec": golden_dir / "xcodec"}
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    lines = [{"audio": "a.wav", "rich_caption": "Keywords: dog\nLayout: dog.\nDescription: dog = two."}]
    lines += [{"audio": "a.wav", "rich_caption": "Keywords:\nLayout: dog.\nDescription: none."}]
    lines += [{"audio": "a.wav", "rich_caption": "Keywords: dog\nLayout: dog.\nDescription: dog = two, three."}]
    lines += [{"audio": "missing.wav", "rich_caption": lines[0]["rich_caption"]}, {"audio": "a.wav"}]
    soundfile.write(sounds / "a.wav", np.sin(np.arange(4000) * 0.1).astype(np.float32) * 0.3, 16000)
    (sounds / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pool = ManifestPool(str(sounds / "pool.jsonl"))
    config = dataclasses.replace(CONFIG, enrichments=5, dialogues=1, max_bad_fraction=0.9)
    info = build_conversations(pool, Templates(), config, tmp_path / "out", folders)
    assert (info.records, info.quarantined) == (2, 4)
    left = (tmp_path / "out" / "dataset" / "quarantine.jsonl").read_text()
    for reason in ("Keywords is empty", "can not be two and three at once", "no such file", "a text as 'rich_caption'"):
        assert reason in left
    records = list(open_records(info))
    assert [kinds(record.messages)[-2:] for record in records] == [
        [("assistant: text", True), ("assistant: discrete_audio", True)]
    ] * 2
    assert records[0].scene == {"from": "pool-1", "writer": "templates", "rich_caption": pool[0].caption.write()}
    assert build_conversations(pool, Templates(), config, tmp_path / "out", folders).key == info.key
    with pytest.raises(UserError, match=r"other settings \(writer\)"):
        build_conversations(pool, Moody(), config, tmp_path / "out", folders)
    shutil.rmtree(tmp_path / "out" / "dataset")
    again = build_conversations(pool, Templates(), config, tmp_path / "out", folders)
    assert again.key == info.key


@pytest.mark.parametrize("wrong", [{"samples": 1}, {"enrichments": 0, "dialogues": 0}, {"reflections": 0}])
def test_sizes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match="config"):
        BuildConfig(**wrong)
