"""Filters count what they find, leave out what they are told to, and say why."""

import json

import numpy as np
import pytest
from helpers.fake_sounds import FakeSource, prepare_fake

from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.prepare.filters import FILTERS, Filters, audio_hash, caption_hash
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound
from ualm_jax.errors import UserError


class Poor(FakeSource):
    """Sounds 3, 8: silent; 5: clipped; 6: short; 9: the words of 1, 10: the sound of 2, 11: both of 4's."""

    def __getitem__(self, index: int) -> CaptionedSound:
        words = {9: " SOUND 1, " + super().__getitem__(1).caption.split()[-1], 11: super().__getitem__(4).caption}
        same = super().__getitem__({10: 2, 11: 4}.get(index, index))
        wav = {3: same.wav * 1e-4, 8: same.wav * 0, 5: np.sign(same.wav), 6: same.wav[:20]}.get(index, same.wav)
        caption = words.get(index, f"sound {index} " + "x" * index)
        if index in (1, 4):
            caption = super().__getitem__(index).caption
        return CaptionedSound(f"clip-{index}", caption, wav, self.sample_rate, None)


EXPECTED = {
    "duration": ["clip-6"],
    "silence": ["clip-3", "clip-8"],
    "clipping": ["clip-5"],
    "length": [],
    "duplicate-caption": ["clip-9", "clip-11"],
    "duplicate-audio": ["clip-10", "clip-11"],
}
COUNTS = {name: len(ids) for name, ids in EXPECTED.items()}


def prepared(parts, out, **filters):
    return prepare_fake(Poor(12), parts, out, shard_size=4, filters=Filters(min_seconds=0.0015, **filters))


def quarantine(info) -> dict[str, str]:
    entries = map(json.loads, (info.directory / "quarantine.jsonl").read_text().splitlines())
    return {entry["id"]: entry["filter"] for entry in entries}


def test_what_is_found_is_counted_and_kept_unless_told_otherwise(parts, tmp_path):
    info = prepared(parts, tmp_path / "out", drop=())
    assert info.records == 12 and info.filters == COUNTS and quarantine(info) == {}


@pytest.mark.parametrize("name", [name for name in FILTERS if EXPECTED[name]])
def test_a_filter_leaves_out_what_it_finds_and_nothing_else(parts, tmp_path, name):
    info = prepared(parts, tmp_path / "out", drop=(name,))
    assert quarantine(info) == dict.fromkeys(EXPECTED[name], name)
    assert info.filters[name] == COUNTS[name] and info.quarantined == COUNTS[name]
    ids = {open_records(info)[index].id for index in range(info.records)}
    assert ids == {f"clip-{index}" for index in range(12)} - set(EXPECTED[name])
    assert info == open_dataset(info.directory)


def test_too_long_conversations_are_left_out(parts, tmp_path):
    whole = prepared(parts, tmp_path / "whole")
    info = prepared(parts, tmp_path / "out", max_length=whole.longest - 1)
    assert info.longest < whole.longest and info.filters["length"] >= 1


def test_an_interruption_does_not_show_where_duplicates_are_left_out(parts, tmp_path):
    """A record mended later was there first: what was kept in its place has to go."""
    filters = Filters(drop=("duplicate-caption", "duplicate-audio"))
    options = {"shard_size": 4, "filters": filters}

    class Broken(Poor):
        def __getitem__(self, index):
            if index == 1:
                raise BadRecord("clip-1.wav: there is no such file")
            return super().__getitem__(index)

    with pytest.raises(UserError, match="1 of 12 records"):
        prepare_fake(Broken(12), parts, tmp_path / "out", max_bad_fraction=0.0, **options)
    prepare_fake(Poor(12), parts, tmp_path / "out", **options)
    prepare_fake(Poor(12), parts, tmp_path / "clean", **options)
    for path in (tmp_path / "clean").iterdir():
        if path.is_file():
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_captions_are_compared_in_any_script():
    assert caption_hash("A dog, barking!") == caption_hash("a  DOG barking")
    assert caption_hash("犬が吠える。") == caption_hash("犬が吠える")
    assert caption_hash("犬が吠える") != caption_hash("猫が鳴く")


def test_sounds_are_compared_by_their_coarsest_codes():
    codes = np.random.default_rng(0).integers(0, 32, (20, 8)).astype(np.int32)
    finer = codes.copy()
    finer[:, 3] += 1
    assert audio_hash([codes]) == audio_hash([finer]) != audio_hash([codes[:-1]])


def test_unknown_filters_and_an_empty_result_are_one_sentence(parts, tmp_path):
    with pytest.raises(UserError, match="there is no filter 'loud'; expected duration, silence"):
        Filters(drop=("loud",))
    with pytest.raises(UserError, match="the filters leave nothing of it"):
        prepare_fake(FakeSource(3), parts, tmp_path / "none", filters=Filters(min_seconds=60.0))
