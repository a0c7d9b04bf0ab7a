"""tools/box.py refuses what would make a card of something else."""

import json

import pytest
from helpers.tools import tool

from ualm_jax.errors import UserError


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tool("box")


def test_a_card_tells_of_runs_that_are_there(box, tmp_path):
    for name in ("decoder", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(UserError, match="runs that are not here: encoder, longer; make those parts first"):
        box.give(2)


def test_sounds_that_another_codec_encoded_are_not_kept(box, tmp_path):
    made = tmp_path / "data" / "soundscript" / "caption"
    made.mkdir(parents=True)
    (made / "dataset.json").write_text(json.dumps({"made_from": {"codec": "another"}}))
    with pytest.raises(UserError, match="data/soundscript/caption was encoded by another codec; move data and longer"):
        box.codes()


def test_without_a_codec_of_its_own_it_takes_the_shipped_one(box, tmp_path):
    assert box.trained_codec() == box.FOLDER / "soundscript" / "codec"
    (tmp_path / "weights" / "codec").mkdir(parents=True)
    assert str(box.trained_codec()) == "weights/codec"
