"""The loop, on a run that is no language model: a game of two networks with an optimiser each."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ualm_jax.errors import UserError
from ualm_jax.train import checkpoint, metrics
from ualm_jax.train.checkpoint import Checkpoints
from ualm_jax.train.loop import Run, fit
from ualm_jax.train.metrics import MetricWriter, Throughput, read_metrics
from ualm_jax.train.report import Reporter

MAKER, JUDGE = optax.adam(1e-2), optax.sgd(1e-2)


class Game(NamedTuple):
    step: Any
    maker: Any
    judge: Any
    maker_moments: Any
    judge_moments: Any


def fresh() -> Game:
    maker, judge = jnp.ones(3), jnp.linspace(0.1, 0.3, 3)
    return Game(jnp.int32(0), maker, judge, MAKER.init(maker), JUDGE.init(judge))


@jax.jit
def play(state: Game, batch):
    def made(maker):
        return -jnp.mean(jnp.tanh(batch * maker) @ state.judge)

    def judged(judge):
        return jnp.mean(jnp.tanh(batch * state.maker) @ judge) - jnp.mean(batch @ judge) + jnp.sum(judge**2)

    loss, grad = jax.value_and_grad(made)(state.maker)
    judge_loss, judge_grad = jax.value_and_grad(judged)(state.judge)
    update, maker_moments = MAKER.update(grad, state.maker_moments)
    judge_update, judge_moments = JUDGE.update(judge_grad, state.judge_moments)
    after = Game(state.step + 1, state.maker + update, state.judge + judge_update, maker_moments, judge_moments)
    return after, {"maker": loss, "judge": judge_loss, "weights": after.maker, "rows": jnp.float32(len(batch))}


class Rows:
    """Batch n depends on n alone; its records are its rows' numbers."""

    def __init__(self):
        self.position, self.closed = 0, False

    def __next__(self):
        rows = np.random.default_rng(self.position).normal(size=(4, 3)).astype(np.float32)
        records = [f"row-{4 * self.position + row}" for row in range(4)]
        self.position += 1
        return rows, records

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]

    def progress(self):
        return {"data/batches": float(self.position)}

    def record_names(self, records):
        return records

    def close(self):
        self.closed = True


class Watch:
    """Notes when it runs and which checkpoints then lie on disk, and may fail."""

    def __init__(self, every, checkpoints, writer, fail_at=None):
        self.every, self._checkpoints, self._writer, self._fail_at = every, checkpoints, writer, fail_at
        self.ran, self.saved = [], []

    def run(self, step, state):
        self._checkpoints.wait()
        self.ran.append(step)
        self.saved.append(self._checkpoints.latest_step())
        if step == self._fail_at:
            raise UserError("the judge has left")
        self._writer.scalars(step, {"eval/spread": float(jnp.std(state.maker))})

    def close(self):
        pass


IDENTITY = {"game": 1, "data": {"files": [["a", 1], ["b", 2]]}}


def make(folder, steps, fail_at=None, step=play) -> tuple[Run, Watch]:
    """A run in `folder`, which goes on where the newest checkpoint is."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    rows = Rows()
    checkpoints = Checkpoints(folder / "checkpoints", every=4, keep=9, identity=IDENTITY)
    state = fresh()
    if checkpoints.latest_step() is not None:
        mesh = jax.sharding.get_mesh()
        state = checkpoints.restore(jax.eval_shape(fresh), rows, mesh)
    writer = MetricWriter(folder, int(state.step))
    watch = Watch(6, checkpoints, writer, fail_at)
    rates = {"rows_per_second": lambda metrics: metrics["rows"]}
    reporter = Reporter(writer, steps=steps, log_every=1, shown=("maker", "judge"), rates=rates)
    return Run(state, step, rows, checkpoints, reporter, steps, evaluators=(watch,)), watch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Fourteen steps in one go."""
    folder = tmp_path_factory.mktemp("fit") / "whole"
    with jax.set_mesh(jax.sharding.Mesh(jax.devices()[:1], "data")):
        run, watch = make(folder, 14)
        assert fit(run) == 14
    return folder, watch, run


def saved(folder, step):
    checkpoints = Checkpoints(folder / "checkpoints", every=4, keep=9, identity=IDENTITY)
    state = checkpoints.restore(jax.eval_shape(fresh), Rows(), jax.sharding.get_mesh())
    checkpoints.close()
    assert int(state.step) == step
    return jax.tree.map(np.asarray, state)


def rows_of(folder) -> list[dict]:
    """Of metrics.jsonl, without what the clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if "second" not in key} for row in rows]


def test_the_steps_are_those_of_a_plain_loop(whole):
    state, rows = fresh(), Rows()
    for _ in range(14):
        state, _ = play(state, next(rows)[0])
    jax.tree.map(np.testing.assert_array_equal, saved(whole[0], 14), jax.tree.map(np.asarray, state))


def test_a_file_that_differs_is_named_and_not_all_of_them(whole):
    for files, said in (
        ([["a", 1], ["c", 2]], r"config.data.files\[1\] = \['b', 2\], but this run has \['c', 2\]; set it back"),
        ([["a", 1]], r"config.data.files\[1\] = \['b', 2\], but this run has None"),
    ):
        other = Checkpoints(whole[0] / "checkpoints", every=4, keep=9, identity={"data": {"files": files}})
        with pytest.raises(UserError, match=said):
            other.restore(jax.eval_shape(fresh), Rows(), jax.sharding.get_mesh())
        other.close()


def test_processes_that_see_different_checkpoints_go_on_from_none(whole, monkeypatch):
    compared = []

    def differ(what, value, then):
        compared.append((what, value))
        raise UserError("not the same")

    monkeypatch.setattr(checkpoint, "check_same", differ)
    with pytest.raises(UserError, match="not the same"):
        saved(whole[0], 14)
    assert compared == [(f"the newest checkpoint in {whole[0] / 'checkpoints'}", 14)]


def test_evaluators_run_when_they_are_due_and_at_the_end_after_the_save(whole):
    folder, watch, run = whole
    assert watch.ran == [6, 12, 14]
    assert watch.saved == [4, 12, 14]  # at 12, where both are due, the save came first
    assert run.batches.closed


def test_metrics_have_one_row_a_step(whole):
    rows = rows_of(whole[0])
    assert [row["step"] for row in rows] == list(range(1, 15))
    assert [row["step"] for row in rows if "eval/spread" in row] == [6, 12, 14]
    assert {"maker", "judge", "weights_0", "weights_2", "data/batches"} <= rows[0].keys()


def test_an_evaluation_that_fails_loses_no_step_and_is_made_up_for(whole, tmp_path):
    run, _ = make(tmp_path / "run", 14, fail_at=12)
    with pytest.raises(UserError, match="the judge has left"):
        fit(run)
    again, watch = make(tmp_path / "run", 14)
    assert int(again.state.step) == 12
    assert fit(again) == 14 and watch.ran == [12, 14]
    jax.tree.map(np.testing.assert_array_equal, saved(tmp_path / "run", 14), saved(whole[0], 14))
    assert rows_of(tmp_path / "run") == rows_of(whole[0])


def test_where_no_batch_can_be_had_what_was_trained_is_saved(whole, tmp_path, monkeypatch):
    run, _ = make(tmp_path / "run", 14)
    whole_rows = Rows.__next__

    def gone(rows):
        batch = whole_rows(rows)
        if rows.position == 11:  # a batch that was begun
            raise UserError("the disk has left")
        return batch

    with monkeypatch.context() as patch, pytest.raises(UserError, match="the disk has left"):
        patch.setattr(Rows, "__next__", gone)
        fit(run)
    again, _ = make(tmp_path / "run", 14)
    assert int(again.state.step) == 10
    assert fit(again) == 14
    jax.tree.map(np.testing.assert_array_equal, saved(tmp_path / "run", 14), saved(whole[0], 14))
    assert rows_of(tmp_path / "run") == rows_of(whole[0])


def test_what_was_written_after_the_checkpoint_is_written_once(whole, tmp_path):
    """As a kill at step 10 leaves it, the last line half written."""
    run, _ = make(tmp_path / "run", 10)
    fit(run)
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 11, "mak')
    newest = tmp_path / "run" / "checkpoints" / "10"
    newest.rename(tmp_path / "gone")
    again, _ = make(tmp_path / "run", 14)
    assert int(again.state.step) == 8
    fit(again)
    assert rows_of(tmp_path / "run") == rows_of(whole[0])


def test_a_finished_run_does_nothing(whole):
    run, watch = make(whole[0], 14)
    before = (whole[0] / "metrics.jsonl").read_bytes()
    assert fit(run) == 14 and watch.ran == []
    assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_a_metric_that_is_not_finite_names_the_records_and_is_not_saved(tmp_path):
    def spoilt(state, batch):
        state, metrics = play(state, batch)
        return state, metrics | {"judge": jnp.where(state.step == 4, jnp.nan, metrics["judge"])}

    run, _ = make(tmp_path / "run", 14, step=spoilt)
    with pytest.raises(UserError, match="Step 4: judge is nan; the batch held the records row-12, row-13, row-14"):
        fit(run)
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_rows_of_older_runs_are_read_with_a_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0},
        {"step": 2, "eval/loss": 5.0},
        {"step": 1, "loss": 3.5},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_metrics(path) == [{"step": 1, "loss": 3.5}, {"step": 2, "loss": 2.0, "eval/loss": 5.0}]


def test_waiting_for_data_is_part_of_a_step_and_told_and_a_pause_is_neither(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    clock = Throughput()
    for waited in (2.0, 4.0):
        with clock.wait():
            now[0] += waited
        now[0] += 1.0
        with clock.pause():
            now[0] += 100.0
        clock.count({"rows_per_second": 8.0})
    assert clock.rates() == (4.0, 3.0, {"rows_per_second": 2.0})
    assert clock.rates()[:2] == (0.0, 0.0)
