"""What a run keeps beside its checkpoints."""

import dataclasses
import json

import pytest
from helpers import run_config

from ualm_jax.data.dataset.folder import open_dataset
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.train.config import RunConfig
from ualm_jax.train.workdir import parts_of_run, write_workdir
from ualm_jax.weights.run_folder import read_notes


@pytest.mark.parametrize(
    "before, hours, after",
    [
        ("random", [0.0], False),
        ("random", [0.0, 0.5], True),
        ("random", [None], None),
        ("random", [None, 0.5], True),
        (False, [0.0], False),
        (None, [0.0], None),
        (True, [0.0], True),
        (False, [], False),
    ],
)
@pytest.mark.parametrize("resumed", [True, False])
def test_a_run_knows_whether_speech_was_in_all_that_it_learnt_from(before, hours, after, resumed, dataset, tmp_path):
    """resumed: what came before is the run itself, else the weights that it begins with."""
    values = run_config.get_config()
    values.data.directory = str(dataset)
    config = from_mapping(RunConfig, values.to_dict())
    first, last = tmp_path / "first", tmp_path / "last"
    if before == "random":
        last = first
    else:
        first.mkdir()
        (first / "config.json").write_text(json.dumps({"data": {"seq_len": 160}}))
        (first / "source.json").write_text(json.dumps({} if before is None else {"speech": before}))
        (first / "checkpoints").mkdir()
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=str(first)))
    last = first if resumed else last
    last.mkdir(exist_ok=True)
    info = open_dataset(dataset)
    sources = [dataclasses.replace(info, speech_hours=each) for each in hours]
    resumed = resumed and before != "random"
    write_workdir(to_mapping(config), parts_of_run(dataset, None, last), last, sources=sources, resumed=resumed)
    assert read_notes(last)["speech"] is after
