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
    with pytest.raises(UserError, match="runs that are not here: longer, encoder, own; make those parts first"):
        box.give(2)


def test_sounds_that_another_codec_encoded_are_not_kept(box, tmp_path):
    made = tmp_path / "data" / "soundscript" / "caption"
    made.mkdir(parents=True)
    (made / "dataset.json").write_text(json.dumps({"made_from": {"codec": "another"}}))
    with pytest.raises(UserError, match="data/soundscript/caption was encoded by another codec; move data and longer"):
        box.codes()


def test_what_was_not_made_here_is_what_was_made_before_it_or_else_what_is_shipped(box, tmp_path):
    def heard():
        return box.made(box.OWN, box.CODEC, shipped=box.SHIPPED / "codec")

    assert heard() == box.FOLDER / "soundscript" / "codec" and box.begin("longer", "model") == ""
    (tmp_path / "weights" / "codec").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    assert str(heard()) == "weights/codec"
    assert box.begin("longer", "model") == "--config.train.init_from=model --config.train.encoder=model"
    (tmp_path / "weights" / "own-codes").mkdir()
    (tmp_path / "longer").mkdir()
    assert str(heard()) == "weights/own-codes"
    assert box.begin("longer", "model") == "--config.train.init_from=longer --config.train.encoder=longer"
