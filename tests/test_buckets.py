"""Folders here and in a bucket: what is written is read, one process holds the lock, and sums see every change."""

import hashlib
import threading
import time

import pytest
import tensorstore as ts

from ualm_jax import bucket_lock, buckets
from ualm_jax.buckets import Spool, filled, here, objects, open_folder, replace_folder, write
from ualm_jax.cli.main import run as ualm
from ualm_jax.data.dataset.folder import open_dataset
from ualm_jax.errors import UserError
from ualm_jax.weights.checksums import first_change, sums_of


@pytest.fixture(params=["here", "in a bucket"])
def folder(request, tmp_path):
    return tmp_path if request.param == "here" else request.getfixturevalue("bucket") / tmp_path.name


@pytest.fixture
def source(tmp_path_factory):
    made = tmp_path_factory.mktemp("source")
    (made / "deep").mkdir()
    (made / "one.json").write_text("{}")
    (made / "deep" / "two.bin").write_bytes(bytes(range(256)) * 40)
    return made


def content(folder) -> dict[str, bytes]:
    found = here(folder)
    return {str(path.relative_to(found)): path.read_bytes() for path in found.rglob("*") if path.is_file()}


def test_a_folder_is_copied_whole_and_replaced_whole(folder, source):
    replace_folder(folder / "codec", source)
    assert content(folder / "codec") == content(source)
    (source / "deep" / "two.bin").unlink()
    (source / "one.json").write_text("[]")
    replace_folder(folder / "codec", source)
    assert content(folder / "codec") == {"one.json": b"[]"}, "what was read before is not what is read now"


def test_a_file_is_written_again(folder):
    write(folder / "config.json", "first")
    write(folder / "config.json", "zweite ü")
    assert (folder / "config.json").read_text() == "zweite ü"
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_what_fills_a_folder_is_there_when_it_is_full(folder, source):
    (folder / "made").mkdir()
    with filled(folder / "made") as made:
        (made / "one").write_text("1")
    assert content(folder / "made") == {"one": b"1"}


def test_a_file_that_grows_goes_on_where_another_process_left_it(folder):
    folder.mkdir(exist_ok=True)
    for expected in (b"1", b"12"):
        spool = Spool(folder)
        with open(spool.bring("metrics.jsonl"), "ab") as file:
            file.write(b"%d" % len(expected))
        spool.send()
        assert (folder / "metrics.jsonl").read_bytes() == expected


def test_sums_tell_of_files_that_are_changed_or_gone(folder, source):
    replace_folder(folder / "checkpoints" / "5" / "state", source)
    replace_folder(folder / "codec", source)
    step = folder / "checkpoints" / "5"
    sums = sums_of(step, step / "state", folder / "codec")
    assert sorted(sums) == [
        f"{where}/{name}" for where in ("../../codec", "state") for name in ("deep/two.bin", "one.json")
    ]
    assert first_change(step, sums) is None
    write(folder / "codec" / "one.json", "{ }")
    assert first_change(step, sums).startswith("../../codec/one.json has another ")
    (step / "state" / "deep" / "two.bin").unlink()
    assert first_change(step, {name: sums[name] for name in sums if "state" in name}) == "state/deep/two.bin is missing"


def test_a_run_that_was_copied_to_a_bucket_or_from_it_keeps_its_sums(bucket, source, tmp_path):
    replace_folder(bucket / "copied", source)
    assert first_change(bucket / "copied", sums_of(source, source)) is None
    assert first_change(source, sums_of(bucket / "copied", bucket / "copied")) is None
    write(bucket / "copied" / "one.json", "{ }")
    assert "SHA-256" in first_change(bucket / "copied", sums_of(source, source))


@pytest.mark.parametrize("url", ["s3://bucket/run", "https://host/run", "file:///tmp/run", "gs:/bucket", "gs://"])
def test_another_url_is_neither_a_bucket_nor_a_folder_here(url):
    with pytest.raises(UserError, match=f"{url}: expected a folder on this machine or gs://BUCKET/PATH") as caught:
        open_folder(url)
    assert "\n" not in str(caught.value) and ("Orbax" in str(caught.value)) == (not url.startswith("gs:"))


def test_a_dataset_lies_in_a_file_system():
    with pytest.raises(UserError, match="gs://bucket/data: a dataset is read at random and must lie in a file system"):
        open_dataset("gs://bucket/data")


def test_packages_that_are_missing_are_named_before_anything_begins(monkeypatch, capsys):
    monkeypatch.setattr(buckets, "_installed", lambda package: False)
    with pytest.raises(SystemExit):
        ualm(["train", "--config", "configs/tiny.py", "--workdir", "gs://bucket/run"])
    assert "needs gcsfs, which is not installed; in a checkout: pip install '.[gcs]'" in capsys.readouterr().err


@pytest.fixture
def store(monkeypatch):
    """Where a lock lies, and its times made short."""
    monkeypatch.setattr(bucket_lock, "BEAT", 0.05)
    monkeypatch.setattr(bucket_lock, "SILENCE", 0.4)
    return ts.KvStore.open("memory://").result()


def test_a_bucket_that_is_not_there_is_said_so(bucket):
    with pytest.raises(UserError, match="gs://none/run: nothing can be written there .*404.*; does the bucket exist"):
        with bucket_lock.bucket_lock(open_folder("gs://none/run")):
            pass


def test_one_holds_the_lock_and_leaves_nothing(store):
    with bucket_lock.held(store, "gs://bucket/run"):
        with pytest.raises(UserError, match="gs://bucket/run: process .* is writing here"):
            with bucket_lock.held(store, "gs://bucket/run"):
                pass
    assert store.list().result() == []
    with bucket_lock.held(store, "gs://bucket/run"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_when_it_was_silent(store):
    store["lock"] = b"process 1 on another\n"
    began = time.monotonic()
    with bucket_lock.held(store, "gs://bucket/run"):
        assert time.monotonic() - began >= 0.4
        assert b"process 1 on another" not in store["lock"]


def test_a_lock_that_is_given_back_while_it_is_watched_is_taken_at_once(store, monkeypatch):
    monkeypatch.setattr(bucket_lock, "SILENCE", 30)
    monkeypatch.setattr(bucket_lock, "BEAT", 0.2)
    store["lock"] = b"process 1 on another\n"
    threading.Timer(0.15, lambda: store.write("lock", None).result()).start()
    began = time.monotonic()
    with bucket_lock.held(store, "gs://bucket/run"):
        assert time.monotonic() - began < 5


def test_of_many_that_take_over_at_once_one_does(store):
    store["lock"] = b"process 1 on another\n"
    got, ended = [], threading.Event()

    def take():
        try:
            with bucket_lock.held(store, "gs://bucket/run"):
                got.append(True)
                ended.wait(5)
        except UserError:
            got.append(False)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(got) < 6:
        time.sleep(0.02)
    ended.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 5 + [True]


def test_a_process_whose_lock_was_taken_over_ends_itself(store, monkeypatch):
    exits = []
    monkeypatch.setattr(bucket_lock.os, "_exit", exits.append)
    with bucket_lock.held(store, "gs://bucket/run"):
        store["lock"] = b"process 1 on another\n"
        until = time.monotonic() + 5
        while not exits and time.monotonic() < until:
            time.sleep(0.02)
    assert set(exits) == {1} and store["lock"] == b"process 1 on another\n"


def test_what_the_bucket_keeps_is_listed_with_its_sums(bucket, source):
    replace_folder(bucket / "listed", source)
    expected = {name: hashlib.md5(data).hexdigest() for name, data in content(source).items()}
    assert objects(bucket / "listed") == expected
