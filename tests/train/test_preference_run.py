"""From pairs to a preference-tuned model: reference log-probabilities, the run that reads them, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers import preference_config
from helpers.fake_sounds import prepare_fake
from helpers.pair_sources import pair_source, write_pairs
from helpers.runs import assert_same_state, kill_and_finish, saved, stopped_at

from ualm_jax.data.dataset.folder import open_dataset
from ualm_jax.data.dataset.reference import check_key, open_columns
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping
from ualm_jax.train import reference
from ualm_jax.train.config import RunConfig
from ualm_jax.train.metrics import read_metrics
from ualm_jax.train.preference import warn_of_drift
from ualm_jax.train.stages.run import lower_step, train
from ualm_jax.train.stages.score import score

pytestmark = pytest.mark.usefixtures("as_many_devices_as_the_mesh_has")


@pytest.fixture(scope="module")
def pairs(dataset, tmp_path_factory):
    """24 pairs with the tokenizer and codec of `dataset`."""
    folder = tmp_path_factory.mktemp("pairs")
    prepare_fake(pair_source(write_pairs(folder, 24)), dataset, folder / "pairs")
    return folder / "pairs"


@pytest.fixture(scope="module")
def config(pairs, tmp_path_factory) -> RunConfig:
    values = preference_config.get_config()
    values.data.directory = str(pairs)
    values.preference.reference = str(tmp_path_factory.mktemp("reference") / "columns")
    values.train.save_interval = 3
    values.eval.update(directory=str(pairs), every=3, batches=1)
    return from_mapping(RunConfig, values.to_dict())


@pytest.fixture(scope="module")
def columns(config):
    """What `ualm score` writes."""
    return score(config)


@pytest.fixture(scope="module")
def trained(config, columns, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train(config, workdir)
    return workdir


def changed(config, **groups):
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in groups.items()}
    )


def assert_same(one, other, pairs, **tolerance):
    found, wanted = (open_columns(folder, open_dataset(pairs), 8) for folder in (one, other))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 0, "atol": 0} | tolerance))


def test_a_run_begins_with_log_2_and_no_margin_to_the_last_bit_and_learns(trained):
    rows = read_metrics(trained / "metrics.jsonl")
    first, last = rows[0], rows[-1]
    assert np.float32(first["preference"]) == np.float32(np.log(2))
    assert all(value == 0 for name, value in first.items() if name.startswith(("margin", "reward", "drift", "kl")))
    assert last["preference"] < first["preference"] and last["margin"] > 0 and last["accuracy"] > first["accuracy"]
    assert first["loss"] == pytest.approx(first["preference"] + first["ce"], rel=1e-6)


def test_every_pair_has_finite_sums_of_its_learnt_tokens(config, columns, pairs):
    info = open_dataset(pairs)
    totals, counts = open_columns(columns, info, 8)
    assert totals.shape == counts.shape == (24, 2, 8) and totals.dtype == counts.dtype == np.float32
    assert (totals[..., 0] < 0).all() and (counts[..., 0] > 0).all() and (totals[counts == 0] == 0).all()


def test_a_scorer_that_was_stopped_goes_on_to_the_same_numbers(config, columns, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "SAVE_SECONDS", -1.0)  # after every batch
    again = changed(config, preference={"reference": str(tmp_path / "columns")})
    calls = []

    def stopping(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reference.score_rows(*arguments)

    monkeypatch.setattr("ualm_jax.train.stages.score.score_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        score(again)
    assert not (tmp_path / "columns").exists()
    assert np.isnan(np.load(next((tmp_path / "columns.partial").glob("*.totals.npy")))).any()
    score(again)
    assert_same(tmp_path / "columns", columns, pairs)
    assert {path.name for path in (tmp_path / "columns").iterdir()} == {path.name for path in columns.iterdir()}
    before = len(calls)
    score(again)  # has nothing to do
    assert len(calls) == before


def test_another_mesh_scores_the_same(config, columns, pairs, tmp_path):
    score(changed(config, mesh={"data": 2, "fsdp": 2, "tensor": 2}, preference={"reference": str(tmp_path / "c")}))
    assert_same(tmp_path / "c", columns, pairs, rtol=1e-5, atol=1e-5)
    # Parameters are known by what they are, wherever they lie.
    keys = [json.loads((at / "reference.json").read_text())["key"] for at in (tmp_path / "c", columns)]
    assert keys[0] == keys[1]


def test_a_continued_run_equals_an_uninterrupted_one_though_its_weights_are_no_longer_the_references(
    config, columns, trained, tmp_path
):
    stopped_at(3, trained, tmp_path / "run")
    train(config, tmp_path / "run")
    ours, theirs = saved(tmp_path / "run", 6), saved(trained, 6)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_columns_of_other_weights_or_settings_are_refused(config, columns, trained, tmp_path):
    with pytest.raises(UserError, match="was made with another weights .* than this run begins with"):
        train(changed(config, train={"seed": 1}), tmp_path)
    with pytest.raises(UserError, match="no reference log-probabilities here; run `ualm score` first"):
        train(changed(config, preference={"reference": str(tmp_path / "none")}), tmp_path)
    key = json.loads((columns / "reference.json").read_text())
    with pytest.raises(UserError, match="was made with another compute_dtype .float32. than .* .bfloat16."):
        check_key(columns, key["key"] | {"compute_dtype": "bfloat16"})
    with pytest.raises(UserError, match="was made with another layer_products"):
        train(changed(config, execution={"layer_products": "fp8"}), tmp_path)
    (tmp_path / "other").mkdir()
    for path in columns.iterdir():
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "other" / "reference.json").write_text(json.dumps({"key": key["key"] | {"codec": "0" * 64}}))
    with pytest.raises(UserError, match="reference.codec"):  # a run goes on with what it began with
        train(changed(config, preference={"reference": str(tmp_path / "other")}, train={"steps": 7}), trained)
    assert not (tmp_path / "checkpoints").exists()


def test_columns_of_other_tokens_are_noticed(config, columns, pairs, tmp_path):
    for path in columns.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = next(tmp_path.glob("*.counts.npy"))
    np.save(path, np.load(path) + 1)
    with pytest.raises(UserError, match="is of other tokens, or missing"):
        train(changed(config, preference={"reference": str(tmp_path)}), tmp_path / "run")


def test_pairs_and_conversations_want_their_own_objective(config, columns, dataset, pairs, tmp_path):
    with pytest.raises(UserError, match="holds pairs, which train.objective = 'preference' learns from"):
        train(changed(config, train={"objective": "next_token"}), tmp_path)
    with pytest.raises(UserError, match="holds conversations, but train.objective is 'preference'"):
        train(changed(config, data={"directory": str(dataset)}), tmp_path)
    with pytest.raises(UserError, match="cfg_dropout is 0.1"):
        changed(config, data={"cfg_dropout": 0.1})
    with pytest.raises(UserError, match="preference.reference is missing: the loss sigmoid is of a comparison"):
        changed(config, preference={"reference": None})
    with pytest.raises(UserError, match="a weight for each of the model's 8 streams, got 2"):
        changed(config, preference={"stream_weights": (1.0, 2.0)})


def test_held_out_pairs_are_judged_by_the_columns_too(trained):
    last = [row for row in read_metrics(trained / "metrics.jsonl") if "eval/margin" in row][-1]
    assert last["eval/margin"] > 0 and last["eval/kl"] > 0


def test_losses_without_a_reference_read_none(config):
    assert changed(config, preference={"loss": "simpo", "reference": None}).reference is None
    assert config.reference is not None


def test_a_falling_log_probability_of_the_chosen_is_warned_of(caplog):
    warn_of_drift(7, {"drift": np.array(-0.04)})
    warn_of_drift(7, {"loss": np.array(2.0)})
    assert not caplog.text
    warn_of_drift(8, {"drift": np.array(-0.2)})
    assert "step 8: the chosen answers have become less likely than to the reference, by 0.2 nats" in caplog.text


def test_a_preference_step_lowers_without_data(config, as_many_devices_as_the_mesh_has):
    mesh = as_many_devices_as_the_mesh_has(config.mesh)
    with jax.set_mesh(mesh):
        assert "x2x8xf32>" in lower_step(config, mesh).as_text()  # the reference's numbers of pairs


@pytest.fixture(scope="module")
def words(pairs, columns):
    """Of a run in a process of its own, on one device, that saves every step."""
    words = ["--config", preference_config.__file__, f"--config.data.directory={pairs}"]
    words += [f"--config.preference.reference={columns}", "--config.train.save_interval=1"]
    return ["train", *words]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_run_killed_anywhere_ends_as_the_uninterrupted_one(number, words, trained, tmp_path):
    kill_and_finish(words, tmp_path, number, 6)
    assert_same_state(tmp_path, trained, 6)
