import pytest
from helpers.fake_sounds import FakeSource, prepare_fake, prepare_fake_sounds, save_parts


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """A folder with `tokenizer` and `codec`."""
    return save_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def dataset(parts, tmp_path_factory):
    """100 short conversations in 7 shards; tests must not change it."""
    return prepare_fake(FakeSource(100), parts, tmp_path_factory.mktemp("dataset") / "fake", shard_size=15)


@pytest.fixture(scope="session")
def sounds(parts, tmp_path_factory):
    """What becomes `dataset` when it is encoded; tests must not change it."""
    return prepare_fake_sounds(FakeSource(100), parts, tmp_path_factory.mktemp("sounds") / "fake", shard_size=15)
