"""Tar files named as WebDataset does: sound and text of one name are a sample, and what is not used is told."""

import io
import json
import tarfile

import numpy as np
import pytest
from helpers.fake_sounds import prepare_fake
from helpers.sound_files import heard, sound_file, tones

from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.raw.conversation import CaptionedConversations
from ualm_jax.data.raw.sound_source import BadRecord, SoundSource
from ualm_jax.data.raw.webdataset import WebDatasetSounds
from ualm_jax.errors import UserError


def flac(number: int) -> bytes:
    """One second of 200 + 100 `number` Hz."""
    return sound_file(tones(200 + 100 * number), "FLAC")


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return path


def samples(tmp_path, *members, **options) -> WebDatasetSounds:
    return WebDatasetSounds(write_tar(tmp_path / "some.tar", members), 16000, **options)


def told(sounds: WebDatasetSounds) -> dict[str, tuple[str, float | str]]:
    """What each sample is: its caption and tone, or why it can not be used."""
    result = {}
    for index in range(len(sounds)):
        try:
            sound = sounds[index]
            result[sound.id] = sound.caption, heard(sound.wav)[0]
        except BadRecord as error:
            result[error.id] = str(error).partition(f"sample {error.id}: ")[2]
    return result


NO_TEXT, NO_SOUND = (f"has a {one} but no {other} of the same name beside it" for one, other in
                     (("sound", "text"), ("text", "sound")))  # fmt: skip
LONG = "a/" + "very" * 40 + "/long"


@pytest.fixture(params=[tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def tars(request, tmp_path):
    """Two tar files; one sample has no text, one a damaged sound, one JSON, one a name too long for a header."""
    first = [("0.flac", flac(0)), ("0.txt", b"tone 0\n"), ("0.cls", b"7"), ("1.flac", flac(1)), ("2.wav", b"RIFF")]
    second = [("d/3.json", json.dumps({"text": "tone 3", "x": 1}).encode()), ("d/3.flac", flac(3))]
    third = [(f"{LONG}.seg.flac", flac(4)), (f"{LONG}.seg.txt", b"tone 4")]
    write_tar(tmp_path / "set-0.tar", [*first, ("2.txt", b"tone 2")], request.param)
    write_tar(tmp_path / "set-1.tar", second + third, request.param)
    return tmp_path


def test_members_of_one_name_are_a_sample(tars):
    sounds = WebDatasetSounds(tars / "set-*.tar", 16000)
    assert isinstance(sounds, SoundSource) and len(sounds) == 5 and sounds.name == "set-0"
    found = told(sounds)
    assert {name: found[name] for name in ("0", "d/3", LONG)} == {
        "0": ("tone 0", 200),
        "d/3": ("tone 3", 500),
        LONG: ("tone 4", 600),
    }
    assert found["1"] == NO_TEXT and found["2"].startswith("not a readable sound file")
    assert sounds[3].unused == ("x",)
    with pytest.raises(IndexError):
        sounds[5]
    with pytest.raises(BadRecord, match="sample d/3: expected a text that is not empty, found None"):
        WebDatasetSounds(tars / "set-1.tar", 16000, caption="title")[0]


def test_two_names_are_never_paired(tmp_path):
    """The library's key ends at the first dot, so it takes these for one sample."""
    sounds = samples(tmp_path, ("a_0.1.flac", flac(1)), ("a_0.2.txt", b"tone 2"), ("b.flac", flac(3)), ("b.txt", b"t"))
    assert told(sounds) == {"a_0.1": NO_TEXT, "a_0.2": NO_SOUND, "b": ("t", 500)}
    sounds = samples(tmp_path, *[(f"c.{n}.{suffix}", content) for n in (1, 2, 3) for suffix, content in
                                 (("flac", flac(n)), ("txt", b"tone"))])  # fmt: skip
    assert told(sounds) == {f"c.{n}": ("tone", 200 + 100 * n) for n in (1, 2, 3)}


def test_members_that_do_not_stand_beside_each_other_are_told(tmp_path):
    sounds = samples(tmp_path, ("a.flac", flac(0)), ("b.flac", flac(1)), ("a.txt", b"a"), ("b.txt", b"b"), ("c.flac", flac(2)), ("c.txt", b"c"))  # fmt: skip  # noqa: E501
    assert [why for name, why in told(sounds).items() if name in "ab"] == [NO_SOUND, NO_SOUND]
    assert len(sounds) == 5 and told(sounds)["c"] == ("c", 400)


def test_members_that_are_not_used_are_counted(tmp_path):
    mac = b"\0\5\x16\7" + bytes(100)
    members = []
    for number in range(3):
        members += [(f"./._{number}.flac", mac), (f"./{number}.flac", flac(number)), (f"./._{number}.txt", mac)]
        members += [(f"./{number}.txt", b"tone"), (f"./{number}.json", b"{}"), (f"./{number}.cls", b"1")]
    members += [("./2.ogg", flac(0)), ("./2.de.txt", b"ton"), ("link.flac", None), ("README", b"hello")]
    sounds = samples(tmp_path, *members)
    assert told(sounds) == {f"./{n}": ("tone", 200 + 100 * n) for n in range(3)}
    assert {(each.name, each.count, each.reason.partition(" (")[0]) for each in sounds.left_out} == {
        ("./._0.flac", 6, "what macOS writes beside a file"),
        ("./0.json", 3, "a second text of a sample"),
        ("./0.cls", 3, "neither a sound"),
        ("./2.ogg", 1, "a second sound of a sample"),
        ("./2.de.txt", 1, "a text beside a sample, but of another name than its sound"),
        ("link.flac", 1, "a link, a device or a sparse file, not a plain file"),
        ("README", 1, "neither a sound"),
    }


def test_fields_that_may_name_a_segment_or_disagree_make_a_bad_record(tmp_path):
    fields = {
        "good": {"duration": 1.0, "lang": "en"},
        "long": {"duration": 5},
        "part": {"begin": 0.5},
        "start": {"start": 1},
    }
    members = []
    for name, more in fields.items():
        members += [(f"{name}.flac", flac(0)), (f"{name}.json", json.dumps({"text": name} | more).encode())]
    found = told(samples(tmp_path, *members))
    assert found["good"] == ("good", 200) and "lasts 1 s, but its record says 'duration' 5" in found["long"]
    assert "unknown field 'begin'" in found["part"] and "unknown field 'start'" in found["start"]
    sounds = samples(tmp_path, *members, ignore=["begin", "start", "duration"])
    assert [sound[1] for sound in told(sounds).values()] == [200] * 4 and sounds[2].unused == ("begin",)
    twice = samples(tmp_path, ("a.flac", flac(0)), ("a.json", b'{"text": "a", "text": "b"}'), ("b.flac", flac(0)), ("b.txt", b"\xef\xbb\xbfb"))  # fmt: skip  # noqa: E501
    assert "it has the field 'text' twice" in told(twice)["a"] and told(twice)["b"] == ("b", 200)


def test_archives_that_were_put_behind_each_other_are_all_read(tmp_path):
    one = write_tar(tmp_path / "one.tar", [("a.flac", flac(0)), ("a.txt", b"a")]).read_bytes()
    two = write_tar(tmp_path / "two.tar", [("b.flac", flac(1)), ("b.txt", b"b")]).read_bytes()
    (tmp_path / "both.tar").write_bytes(one + two)
    assert told(WebDatasetSounds(tmp_path / "both.tar", 16000)) == {"a": ("a", 200), "b": ("b", 300)}


def test_a_pattern_stands_for_files_that_are_all_there(tmp_path):
    for number in (0, 1, 2, 10):
        write_tar(tmp_path / f"x-{number:03d}.tar", [(f"{number}.flac", flac(number)), (f"{number}.txt", b"tone")])
    (tmp_path / "x[1].tar").write_bytes((tmp_path / "x-001.tar").read_bytes())
    for pattern, names in {
        "x-{000..002}.tar": "012",
        "x-{002..000}.tar": "210",
        "x-{000,002}.tar": "02",
        "x-0{0,1}0.tar": ["0", "10"],
        "x-00[12].tar": "12",
        "x[1].tar": "1",
        "x-*.tar": ["0", "1", "2", "10"],
    }.items():
        assert list(told(WebDatasetSounds(tmp_path / pattern, 16000))) == list(names), pattern
    with pytest.raises(UserError, match=r"x-003.tar: there is no such file, one of the 4 that .*x-\{000..003\}.tar"):
        WebDatasetSounds(tmp_path / "x-{000..003}.tar", 16000)
    with pytest.raises(UserError, match=r"is a folder; name its tar files"):
        WebDatasetSounds(tmp_path, 16000)
    with pytest.raises(UserError, match="there is no such tar file"):
        WebDatasetSounds(tmp_path / "none-*.tar", 16000)


@pytest.mark.parametrize("damage", [lambda data: b"x" * 2000, lambda data: data[:11_000], lambda data: data[:9728] +
                                    b"?" * 512 + data[10_240:]], ids=["no-tar", "cut", "header"])  # fmt: skip
def test_a_damaged_tar_is_one_sentence(tmp_path, damage):
    """The library takes a damaged header for the end of the archive."""
    members = [(f"{n}.txt", b"t" * 4000) if n % 2 else (f"{n - n % 2}.flac", flac(0)) for n in range(8)]
    data = write_tar(tmp_path / "some.tar", [("0.txt", b"t" * 9000), *members]).read_bytes()
    (tmp_path / "some.tar").write_bytes(damage(data))
    with pytest.raises(UserError, match="some.tar: not a readable tar file"):
        WebDatasetSounds(tmp_path / "some.tar", 16000)


def test_tar_files_are_read_from_urls_too(tars):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for tar in ("set-0.tar", "set-1.tar"):
        memory.put(str(tars / tar), f"/{tars.name}/{tar}")  # all tests share this file system
    local = WebDatasetSounds(tars / "set-*.tar", 16000)
    for pattern in ("set-*.tar", "set-{0..1}.tar"):
        sounds = WebDatasetSounds(f"memory://{tars.name}/{pattern}", 16000)
        assert sounds.fingerprint() == local.fingerprint()
        np.testing.assert_array_equal(sounds[4].wav, local[4].wav)
    with pytest.raises(UserError, match=r"memory://none-\*.tar: there is no such tar file"):
        WebDatasetSounds("memory://none-*.tar", 16000)


def test_samples_become_a_dataset(tars, parts, tmp_path):
    source = CaptionedConversations(WebDatasetSounds(tars / "set-*.tar", 16000), "caption_to_audio")
    info = prepare_fake(source, parts, tmp_path / "out", max_bad_fraction=0.5)
    assert info.records == 3 and open_records(info)[0].caption == "tone 0"
