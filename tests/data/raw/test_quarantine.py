"""What a source holds and a dataset does not is counted, named with its reason, and shown."""

import io
import json
import tarfile

import pytest
from helpers.fake_sounds import prepare_fake, prepare_fake_sounds
from helpers.folders import quarantine
from helpers.sound_files import sound_file, tones

from ualm_jax.cli.main import run
from ualm_jax.data.raw.conversation import CaptionedConversations
from ualm_jax.data.raw.formats import JsonConversations
from ualm_jax.data.raw.webdataset import WebDatasetSounds


@pytest.fixture
def tar(tmp_path):
    sound = sound_file(tones(300, seconds=0.2), "FLAC")
    members = [("a.flac", sound), ("a.json", b'{"text": "A tone.", "source": "x"}'), ("a.cls", b"1"), ("b.ogg", sound)]
    members += [("c.flac", sound), ("c.json", b'{"text": "A second tone.", "source": "x"}'), ("c.cls", b"2")]
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return tmp_path / "set.tar"


def test_members_and_fields_that_are_not_used_are_named_in_every_dataset_made_of_them(tar, parts, tmp_path):
    source = CaptionedConversations(WebDatasetSounds(tar, 16000), "caption_to_audio")
    for prepare, out in ((prepare_fake, "codes"), (prepare_fake_sounds, "sounds")):
        info = prepare(source, parts, tmp_path / out, max_bad_fraction=0.5, shard_size=2)
        assert (info.records, info.quarantined, info.unused) == (2, 1, 4)
        bad, *unused = quarantine(info.directory)
        assert (bad["id"], bad["index"]) == ("b", 1) and "has a sound but no text" in bad["reason"]
        assert [(each["name"], each["count"]) for each in unused] == [("a.cls", 2), ("field 'source'", 2)]
        assert all(each["reason"] for each in unused)


def test_ids_are_in_the_quarantine_and_records_are_counted_from_one(parts, tmp_path):
    (tmp_path / "a.wav").write_bytes(sound_file(tones(300, seconds=0.2)))
    (tmp_path / "loud.wav").write_bytes(sound_file(5 * tones(300, seconds=0.2), subtype="FLOAT"))
    (tmp_path / "cut.wav").write_bytes(sound_file(tones(300, seconds=0.2))[:-100])

    def record(**fields):
        turns = [{"from": "human", "value": "<sound> What?"}, {"from": "gpt", "value": "A tone."}]
        return json.dumps({"sound": "a.wav", "conversations": turns} | fields) + "\n"

    lines = [
        record(),
        record(id="l", sound="loud.wav"),
        record(id="c", sound="cut.wav"),
        record(id=7, begin=1.0),
        "{\n",
    ]
    (tmp_path / "u.jsonl").write_text("".join(lines))
    info = prepare_fake(
        JsonConversations(tmp_path / "u.jsonl", "understanding"), parts, tmp_path / "out", max_bad_fraction=0.9
    )
    found = quarantine(info.directory)
    assert [(each["id"], each["index"]) for each in found] == [("l", 1), ("c", 2), ("7", 3), (None, 4)]
    reasons = "record 2 (id l): its peak is 2, full scale", "record 3 (id c)", "line 4 (id 7)", "line 5"
    for each, words in zip(found, reasons, strict=True):
        assert words in each["reason"], each


def test_the_command_says_what_is_not_used_and_so_does_inspect(tar, parts, tmp_path, capsys):
    words = ["data", "prepare", "--source", "webdataset", "--input", tar, "--out", tmp_path / "sounds", "--sounds-only"]
    assert run([str(word) for word in (*words, "--workers", "1", "--max-bad-fraction", "0.5")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 conversations" in said and "1 left out" in said
    assert "Not used: 4 members, files, columns or fields of the source, named in" in said
    source = CaptionedConversations(WebDatasetSounds(tar, 16000), "caption_to_audio")
    prepare_fake(source, parts, tmp_path / "out", max_bad_fraction=0.5)
    assert run(["data", "inspect", str(tmp_path / "out"), "--examples", "0", "--out", str(tmp_path / "look")]) == 0
    assert "out: not used: 4 members, files, columns or fields" in " ".join(capsys.readouterr().out.split())
