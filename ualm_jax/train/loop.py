"""The training loop: evaluate, save, draw a batch, step, report; so ordered, a resumed run repeats nothing."""

import collections
import logging
import pathlib
import signal
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ualm_jax.data.loading.loader import SourceProgress, make_loader, record_ids
from ualm_jax.errors import UserError
from ualm_jax.mapping import to_mapping
from ualm_jax.models.ualm import abstract_model
from ualm_jax.parallel.mesh import make_mesh
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.checkpoint import Checkpoints
from ualm_jax.train.config import RunConfig
from ualm_jax.train.evaluation import Evaluation
from ualm_jax.train.init_from import initial_params
from ualm_jax.train.metrics import MetricWriter, Throughput, format_eta
from ualm_jax.train.optimizer import learning_rate, make_optimizer
from ualm_jax.train.step import abstract_state, init_state, make_train_step, state_from
from ualm_jax.train.workdir import load_encoder, prepare_workdir

log = logging.getLogger(__name__)


def train(config: RunConfig, workdir: pathlib.Path) -> int:
    """Trains until config.train.steps, a signal or a NaN; returns the step reached.

    A run that finds a checkpoint in `workdir` goes on from it, bit for bit as if it had never stopped.
    SIGINT and SIGTERM finish the step, save and return. Raises UserError for a configuration that does not fit
    the devices, the dataset or the checkpoint, and for a loss that is not finite.
    """
    mesh = make_mesh(config.mesh)
    config.check_mesh(**mesh.shape)
    if jax.process_index() == 0:
        prepare_workdir(config, workdir)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("workdir")
    with jax.set_mesh(mesh):
        return _train(config, workdir, mesh)


def _train(config: RunConfig, workdir: pathlib.Path, mesh: Mesh) -> int:
    optimizer = make_optimizer(config.optimizer)
    structure, _ = abstract_model(config.model, config.execution)
    loader = make_loader(
        config.data,
        config.model.vocabulary,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        every=config.train.save_interval,
        keep=config.train.max_to_keep,
        identity=_identity(config),
    )
    if checkpoints.latest_step() is None:
        if config.train.init_from is None:
            state = init_state(config.model, config.execution, optimizer, config.train.seed)
        else:
            path = pathlib.Path(config.train.init_from)
            state = state_from(initial_params(path, config.model, config.execution, mesh), optimizer)
            log.info("parameters from %s", path)
        log.info("%s", parameter_overview.get_parameter_overview(nnx.to_pure_dict(state.params), include_stats=False))
    else:
        state = checkpoints.restore(abstract_state(config.model, config.execution, optimizer), loader, mesh)
        log.info("resumed from step %d", int(state.step))
    log.info("%d parameters on %d devices %s", config.model.num_params(), mesh.size, dict(mesh.shape))

    encoder = load_encoder(config, workdir)
    train_step = make_train_step(structure, optimizer)
    evaluation = Evaluation(config, structure, workdir, mesh, encoder)
    reporter = _Reporter(config, MetricWriter(workdir))
    first = step = int(state.step)
    with _Stop() as stop:
        while True:
            if step > first and (step % config.eval.every == 0 or step == config.train.steps):
                with reporter.clock.pause():
                    reporter.flush()
                    evaluation.run(step, state.params, reporter.writer)
            ending = step == config.train.steps or stop.requested(step, config.train.log_every)
            with reporter.clock.pause():
                if step > first and (ending or step % config.train.save_interval == 0):
                    # A state whose loss was not finite must never become a checkpoint.
                    reporter.flush()
                    checkpoints.save(step, state, loader, force=ending)
            if ending:
                break
            batch, records = next(loader)  # only after the save, which records where the data stands
            state, metrics = train_step(state, shard_batch(batch, mesh, config.train.grad_accum_steps), encoder)
            step += 1
            reporter.add(step, metrics, records, loader.progress())
        checkpoints.wait()
    checkpoints.close()
    loader.close()
    reporter.writer.close()
    if step < config.train.steps:
        log.info("stopped at step %d, saved; the same command goes on from there", step)
    return step


def _identity(config: RunConfig) -> dict[str, Any]:
    """What may not change between a checkpoint and its continuation."""
    mapping = to_mapping(config)
    # What decides which rows a batch holds. Sources may be added and reweighted.
    names = ("seed", "seq_len", "batch_size", "cfg_dropout", "packing_bins", "audio_slots", "window_frames")
    data = {name: mapping["data"][name] for name in (*names, "audio_encoder", "normalize_clips")}
    return {"model": mapping["model"], "data": data}


class _Reporter:
    """Reads each step's metrics one step later, so that the host never waits for the device it feeds."""

    def __init__(self, config: RunConfig, writer: MetricWriter):
        self.writer = writer
        self.clock = Throughput()
        self._config = config
        self._schedule = learning_rate(config.optimizer)
        self._pending: collections.deque = collections.deque()

    def add(self, step: int, metrics: dict[str, jax.Array], records: np.ndarray, sources: list[SourceProgress]) -> None:
        self._pending.append((step, metrics, records, sources))
        if len(self._pending) > 1:
            self._report(*self._pending.popleft())

    def flush(self) -> None:
        while self._pending:
            self._report(*self._pending.popleft())

    def _report(
        self, step: int, metrics: dict[str, jax.Array], records: np.ndarray, sources: list[SourceProgress]
    ) -> None:
        values = jax.tree.map(np.asarray, metrics)
        self.clock.count(float(values["tokens"]))
        if not (np.isfinite(values["loss"]) and np.isfinite(values["grad_norm"])):
            names = record_ids(self._config.data, records)
            raise UserError(
                f"Step {step}: the loss is {values['loss']} and the gradient norm {values['grad_norm']}; the batch "
                f"held the records {', '.join(names)}; look at these, or lower optimizer.peak_lr."
            )
        total = self._config.train.steps
        if step % self._config.train.log_every and step != total:
            return
        tokens_per_second, steps_per_second = self.clock.rates()
        scalars = {name: float(values[name]) for name in ("loss", "grad_norm", "param_norm", "update_norm")}
        scalars |= {f"accuracy/stream_{s}": float(a) for s, a in enumerate(values["accuracy"])}
        scalars |= {
            "learning_rate": float(self._schedule(step - 1)),
            "tokens_per_second": tokens_per_second,
            "fill": float(values["tokens"]) / (self._config.data.batch_size * self._config.data.seq_len),
        }
        for source in sources:
            scalars[f"data/{source.directory}/share"] = source.share
            scalars[f"data/{source.directory}/tokens"] = float(source.tokens)
            scalars[f"data/{source.directory}/epochs"] = source.epochs
        self.writer.scalars(step, scalars)
        log.info(
            "step %d/%d  loss %.4f  grad norm %.2f  %.0f tokens/s  ETA %s",
            step,
            total,
            scalars["loss"],
            scalars["grad_norm"],
            tokens_per_second,
            format_eta((total - step) / steps_per_second),
        )


class _Stop:
    """Turns SIGINT and SIGTERM into a request that the loop reads between steps."""

    def __enter__(self):
        self._asked = False
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, *_):
        self._asked = True

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self, step: int, every: int) -> bool:
        """Whether any process was asked to stop; processes agree on it every `every` steps."""
        if jax.process_count() == 1:
            return self._asked
        return step % every == 0 and bool(np.any(multihost_utils.process_allgather(np.array(self._asked))))
