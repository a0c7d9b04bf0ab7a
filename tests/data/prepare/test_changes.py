"""What changes while a dataset is being made: what is finished is kept wherever it does not depend on the change."""

import json
import threading

import numpy as np
import pytest
import soundfile
from helpers.fake_sounds import FakeSource, fake_codec, prepare_fake, prepare_fake_sounds
from helpers.folders import contents

from ualm_jax.data.prepare.filters import Filters
from ualm_jax.data.prepare.partial import PartialDataset
from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.errors import UserError
from ualm_jax.outputs import lock


class Stopping(FakeSource):
    """Ends the work when record 13 is asked for."""

    def __getitem__(self, index):
        if index >= 13:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def shard_times(folder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("**/0*.array_record")}


@pytest.mark.parametrize(
    "filters",
    [Filters(), Filters(silence_db=0.0, drop=()), Filters(min_seconds=0.02), Filters(max_length=60, drop=("length",))],
    ids=["the same", "other counts", "more left out", "other ones"],
)
def test_filters_may_change_and_only_what_they_concern_is_made_again(parts, tmp_path, filters):
    before = Filters(max_seconds=0.03)
    with pytest.raises(KeyboardInterrupt):
        prepare_fake(Stopping(20), parts, tmp_path / "out", shard_size=5, filters=before)
    assert len(shard_times(tmp_path / "out.partial")) == 2
    prepare_fake(FakeSource(20), parts, tmp_path / "out", shard_size=5, filters=filters)
    prepare_fake(FakeSource(20), parts, tmp_path / "clean", shard_size=5, filters=filters)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_filters_that_leave_out_the_same_make_nothing_again(parts, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare_fake_sounds(Stopping(20), parts, tmp_path / "out", shard_size=5)
    source = FakeSource(20)
    prepare_fake_sounds(source, parts, tmp_path / "out", shard_size=5, filters=Filters(max_seconds=900.0))
    assert set(source.read) == set(range(10, 20))


def test_filters_may_change_when_all_sounds_have_been_read(parts, tmp_path):
    """Then duplicates have been left out, and some codes have been made."""
    with fake_codec(), pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        made = PartialDataset.write_shard

        def stop(self, shard, *arguments):
            if self.partial.name == "out.partial" and shard == 2:
                raise KeyboardInterrupt
            return made(self, shard, *arguments)

        patch.setattr(PartialDataset, "write_shard", stop)
        prepare_fake(FakeSource(20), parts, tmp_path / "out", shard_size=5)
    filters, source = Filters(min_seconds=0.02), FakeSource(20)
    prepare_fake(source, parts, tmp_path / "out", shard_size=5, filters=filters)
    prepare_fake(FakeSource(20), parts, tmp_path / "clean", shard_size=5, filters=filters)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


@pytest.fixture
def manifest(tmp_path):
    """Twelve sounds in a manifest, of which one has a mistake."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(12):
        wav = np.random.default_rng(number).uniform(-0.5, 0.5, 1600 + 16 * number).astype(np.float32)
        soundfile.write(folder / f"{number}.wav", wav, 16000)
    lines = [{"audio": f"{number}.wav", "caption": f"Hiss {number}."} for number in range(12)]
    lines[5]["captoin"] = lines[5].pop("caption")

    def write(change=lambda lines: None):
        change(lines)
        (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Manifest(folder / "list.jsonl", sample_rate=16000)

    return write


def mend(lines):
    lines[5]["caption"] = lines[5].pop("captoin")


def extend(lines):
    mend(lines)
    lines.append({"audio": "0.wav", "caption": "Again.", "id": "again"})


@pytest.mark.parametrize("change", [mend, extend])
def test_a_mended_manifest_continues_where_its_records_are_the_same(parts, tmp_path, manifest, change):
    options = {"shard_size": 4, "max_bad_fraction": 0.0}
    with pytest.raises(UserError, match=r"1 of 12 records.*such as: .*line 6"):
        prepare_fake(manifest(), parts, tmp_path / "out", **options)
    before = shard_times(tmp_path / "out.partial")
    assert set(before) == {"00000.array_record", "00001.array_record"}
    mended = manifest(change)
    made_again = []
    with pytest.MonkeyPatch.context() as patch:
        made = PartialDataset.write_shard

        def watch(self, shard, *arguments):
            if self.partial.name == "sounds":
                made_again.append(shard)
            return made(self, shard, *arguments)

        patch.setattr(PartialDataset, "write_shard", watch)
        prepare_fake(mended, parts, tmp_path / "out", **options)
    assert 0 not in made_again and {1, 2} <= set(made_again)
    prepare_fake(mended, parts, tmp_path / "clean", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_a_refused_start_touches_nothing(parts, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare_fake(Stopping(20), parts, tmp_path / "out", shard_size=5)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="out.partial: begun with another source;"):
        prepare_fake(FakeSource(21), parts, tmp_path / "out", shard_size=5)
    with pytest.raises(UserError, match="out.partial: begun with another shard_size;"):
        prepare_fake(FakeSource(20), parts, tmp_path / "out", shard_size=4)
    with pytest.raises(UserError, match="no tokenizer here"):
        prepare_fake(FakeSource(20), tmp_path / "nothing", tmp_path / "new")
    assert {n: c for n, c in contents(tmp_path).items() if not n.endswith("lock")} == {
        n: c for n, c in before.items() if not n.endswith("lock")
    }
    assert not (tmp_path / "new.partial").exists()


def test_two_jobs_do_not_write_one_dataset(parts, tmp_path):
    (tmp_path / "out.partial" / "progress").mkdir(parents=True)
    held, done = threading.Event(), threading.Event()

    def hold():
        with lock(tmp_path / "out.partial" / "progress"):
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    with pytest.raises(UserError, match="process .* is writing here"):
        prepare_fake(FakeSource(3), parts, tmp_path / "out")
    done.set()
    other.join()
    prepare_fake(FakeSource(3), parts, tmp_path / "out")


@pytest.mark.parametrize("out", ["gs://bucket/data", "s3://bucket/data"])
def test_a_url_is_no_output(parts, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="expected a folder on this machine"):
        prepare_fake(FakeSource(3), parts, out)
    assert not list(tmp_path.iterdir())


def test_a_record_that_changes_in_a_finished_shard_is_read_again(parts, tmp_path, manifest):
    with pytest.raises(UserError, match=r"1 of 12 records"):
        prepare_fake(manifest(), parts, tmp_path / "out", shard_size=4, max_bad_fraction=0.0)
    changed = manifest(lambda lines: lines[1].update(caption="Something else."))
    options = {"shard_size": 4, "max_bad_fraction": 0.5}
    prepare_fake(changed, parts, tmp_path / "out", **options)
    prepare_fake(changed, parts, tmp_path / "clean", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")
