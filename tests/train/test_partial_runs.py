"""Whole runs that train a part, keep an average, and round their moments at random: stopped and gone on with they end
as they would have, and what is opened and exported of them is the average."""

import numpy as np
import pytest
from flax import nnx
from helpers.runs import command, saved, stopped_at

from ualm_jax.cli.main import run
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.weights.opener import open_weights

pytestmark = pytest.mark.usefixtures("as_many_devices_as_the_mesh_has")

PARTIAL = ["--config.train.trainable=('decoder', 'embed[audio]', 'audio_head')", "--config.optimizer.ema_decay=0.5"]
PARTIAL += ["--config.train.steps=4", "--config.train.save_interval=2", "--config.optimizer.state_dtype=bfloat16"]


@pytest.fixture(scope="module")
def folders(dataset, tmp_path_factory):
    """`whole` took four steps at once; `resumed` was stopped after two and went on."""
    folder = tmp_path_factory.mktemp("partial")
    for name in ("whole", "resumed"):
        if name == "resumed":
            stopped_at(2, folder / "whole", folder / name)
        assert run(command(dataset, folder / name, *PARTIAL)) == 0
    return folder


def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(folders):
    whole, resumed = (saved(folders / name, 4) for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    moments = [array for name, array in whole.items() if "['mu']" in name or "['nu']" in name]
    assert moments and all(array.dtype == "bfloat16" for array in moments)
    assert any("average" in name for name in whole) and not any(
        "average" in name and "text_head" in name for name in whole
    )


def test_the_average_is_what_is_opened_and_exported(folders):
    arrays = saved(folders / "whole", 4)
    weights = open_weights(folders / "whole")
    params = weights.load_params(make_mesh(MeshConfig()))
    store, differing = weights.arrays(), set()
    for path, leaf in nnx.to_flat_state(params):
        keys = "".join(f"['{name}']" for name in path) + "['value']"
        averaged = arrays.get(f"['opt_state']['average']{keys}")
        wanted = arrays[f"['params']{keys}"] if averaged is None else averaged
        np.testing.assert_array_equal(leaf[...], wanted, err_msg=keys)
        np.testing.assert_array_equal(store.read(".".join(path)), wanted, err_msg=keys)
        if averaged is not None and (averaged != arrays[f"['params']{keys}"]).any():
            differing.add(path[0])
    assert differing == {"decoder", "embed", "audio_head"}


def test_what_is_trained_is_part_of_what_a_run_is(folders, dataset, capsys):
    words = command(dataset, folders / "whole", *PARTIAL, "--config.train.steps=5")
    assert run([*words, "--config.train.trainable=('decoder',)"]) == 1
    assert "was made with config.train.trainable = ['decoder', 'embed[audio]', 'audio_head']" in capsys.readouterr().err
