"""What a run knows of its weights beside them."""

import json

import pytest

from ualm_jax.weights.run_folder import read_notes, write_notes


@pytest.mark.parametrize("before, seen", [(None, 576), (384, 576), (32768, 32768)])
def test_a_run_has_seen_its_own_positions_and_those_of_what_it_began_with(before, seen, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"data": {"seq_len": 576}}))
    notes = {"config": {"max_position_embeddings": before, "eos_token_id": 2}, "license": "mit"}
    if before is not None:
        write_notes(tmp_path, notes)
    found = read_notes(tmp_path)
    assert found["config"].pop("max_position_embeddings") == seen
    assert found == ({"config": {}} if before is None else {"config": {"eos_token_id": 2}, "license": "mit"})
