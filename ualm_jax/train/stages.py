"""From a configuration to a run: the one file that sees the whole of it and wires the parts together."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from clu import parameter_overview
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset.reference import check_key
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader, open_sources, record_ids
from ualm_jax.errors import UserError
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.models.lora import with_lora
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import make_mesh
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.train.averaging import evaluated_params, optimizer_of
from ualm_jax.train.batches import ShardedBatches, abstract_batch
from ualm_jax.train.checkpoint import Checkpoints
from ualm_jax.train.config import RunConfig
from ualm_jax.train.evaluation import HeldOut, Sounds
from ualm_jax.train.identity import identity_of
from ualm_jax.train.init_from import initial_params, with_adapters
from ualm_jax.train.loop import Evaluator, Run, fit
from ualm_jax.train.metrics import MetricWriter
from ualm_jax.train.optimizer import learning_rate
from ualm_jax.train.preference import check_kind, objective_of, warn_of_drift, with_places_for_pairs
from ualm_jax.train.rates import language_model_rates
from ualm_jax.train.reference import reference_key
from ualm_jax.train.report import Metrics, Reporter
from ualm_jax.train.step import TrainState, abstract_state, init_state, make_eval_step, make_train_step, state_from
from ualm_jax.train.trainable import Trainable, choose
from ualm_jax.train.workdir import Parts, claim, parts_of_run, write_workdir
from ualm_jax.weights.audio_tower import load_encoder
from ualm_jax.weights.fingerprints import check_together, parts_of
from ualm_jax.weights.peft import put_adapters
from ualm_jax.weights.run_folder import saved_steps

log = logging.getLogger(__name__)


def train(config: RunConfig, workdir: pathlib.Path) -> int:
    """Trains until config.train.steps, a signal or a NaN; returns the step reached.

    A run that finds a checkpoint in `workdir` goes on from it, bit for bit as if it had never stopped.
    Raises UserError for a configuration that does not fit the devices, the dataset or the checkpoint, having changed no
    file, and for a loss that is not finite.
    """
    mesh = make_mesh(config.mesh)
    config.check_mesh(**mesh.shape)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(claim(workdir))
        stack.enter_context(jax.set_mesh(mesh))
        parts = checked_parts(config, workdir)
        run = language_model(config, parts, workdir, mesh)
        first = int(run.state.step)
        if jax.process_index() == 0:
            write_workdir(config, parts, workdir, resumed=run.checkpoints.latest_step() is not None)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("workdir")
        step = fit(run)
    if first == config.train.steps:
        log.info("%s is at step %d already, which is train.steps: nothing to do", workdir, step)
    elif step == config.train.steps:
        log.info("done: %d steps in %s", step, workdir)
    return step


def language_model(config: RunConfig, parts: Parts, workdir: pathlib.Path, mesh: Mesh) -> Run:
    """Next-token training of a UALM; `mesh` is set. Reads and checks everything, and writes nothing."""
    optimizer, trainable = optimizer_for(config)
    model = model_of(config, encoder_of(config, parts))
    batches = _batches(config, config.data, model.front_end, mesh, config.train.grad_accum_steps)
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        every=config.train.save_interval,
        keep=config.train.max_to_keep,
        identity=identity_of(config),
    )
    state = _state(config, optimizer, checkpoints, batches, mesh)
    if config.reference is not None and checkpoints.latest_step() is None:  # later the weights are no longer its own
        check_key(config.reference, reference_key(config, parts, model.front_end, model.whole(state.params)))
    log.info("%s parameters on %d devices %s", f"{config.model.num_params():,}", mesh.size, dict(mesh.shape))
    if config.optimizer.schedule != "constant" and config.train.steps > config.optimizer.decay_steps:
        after, rate = config.optimizer.decay_steps, config.optimizer.end_lr
        log.info("steps after optimizer.decay_steps = %d are trained at end_lr = %g", after, rate)
    step = make_train_step(model.structure, objective_of(config), optimizer, trainable)
    writer = MetricWriter(workdir if jax.process_index() == 0 else None, int(state.step))
    return Run(
        state=state,
        step=lambda state, batch: step(state, batch, model.constants),
        batches=batches,
        checkpoints=checkpoints,
        reporter=_reporter(config, mesh, writer),
        steps=config.train.steps,
        stop_every=config.train.log_every,
        evaluators=_evaluators(config, parts, workdir, mesh, model, writer),
    )


def encoder_of(config: RunConfig, parts: Parts) -> AudioEncoder | None:
    """The run's audio encoder on the current mesh, None for a run that does not listen.

    Raises UserError where it does not fit the model's adapter.
    """
    if "encoder" not in parts:
        return None
    encoder = load_encoder(parts["encoder"])
    if encoder.output_width != config.model.feature_width:
        raise UserError(
            f"model.feature_width is {config.model.feature_width}, but the encoder's features are "
            f"{encoder.output_width} wide; set it to that."
        )
    return encoder


def checked_parts(config: RunConfig, workdir: pathlib.Path) -> Parts:
    """Tokenizer, codec and encoder of the run, the same in its data, its checkpoints, and all that it is given."""
    dataset = open_sources(config.data)[0]  # all were made with the same tokenizer and codec
    parts = parts_of_run(dataset, config.train.encoder, workdir)
    if saved_steps(workdir):
        check_together(parts, parts_of(workdir))
    for given in (config.train.init_from, config.eval.directory):
        if given is not None:
            check_together(parts, parts_of(given))
    return parts


def lower_step(config: RunConfig, mesh: Mesh | AbstractMesh) -> jax.stages.Lowered:
    """The training step of a run, traced with shapes alone; `mesh` must be set.

    Raises UserError where an array can not be split over the mesh.
    """
    config.check_mesh(**mesh.shape)
    optimizer, trainable = optimizer_for(config)
    batch = abstract_batch(
        config.data.batch_size,
        config.data.seq_len,
        config.model.vocabulary.num_streams,
        mesh,
        config.train.grad_accum_steps,
    )
    if config.train.objective == "preference":
        batch = with_places_for_pairs(batch, mesh)
    step = make_train_step(model_of(config, None).structure, objective_of(config), optimizer, trainable)
    return step.trace(abstract_state(maker_of(config), optimizer), batch).lower(
        lowering_platforms=(mesh.abstract_device.platform,) if isinstance(mesh, AbstractMesh) else None
    )


def maker_of(config: RunConfig) -> Callable[[], UALM]:
    def make() -> UALM:
        rngs = nnx.Rngs(config.train.seed)
        model = UALM(config.model, config.execution, rngs)
        return with_lora(model, config.lora, rngs) if config.lora.rank else model

    return make


def optimizer_for(config: RunConfig) -> tuple[optax.GradientTransformation, Trainable]:
    params = nnx.state(jax.eval_shape(maker_of(config)), nnx.Param)
    trainable = choose(config.train.trainable, params, config.model.vocabulary)
    return optimizer_of(config.optimizer, trainable, params), trainable


def _judged(state: TrainState) -> nnx.State:
    return evaluated_params(state.params, state.opt_state)


class Frozen(NamedTuple):
    """structure: of the model with its frozen encoder. constants: arrays of it that no state holds."""

    structure: nnx.GraphDef
    constants: nnx.State
    front_end: MelFrontEnd | None

    def whole(self, params: nnx.State) -> UALM:
        return nnx.merge(self.structure, params, self.constants)


def model_of(config: RunConfig, encoder: AudioEncoder | None) -> Frozen:
    model = jax.eval_shape(maker_of(config))
    model.encoder = encoder
    structure, _, constants = nnx.split(model, nnx.Not(nnx.PathContains("encoder")), ...)
    return Frozen(structure, constants, None if encoder is None else encoder.front_end)


def _state(
    config: RunConfig, optimizer: Any, checkpoints: Checkpoints, batches: ShardedBatches, mesh: Mesh
) -> TrainState:
    """The newest checkpoint's, where `batches` then stand too, or a fresh one."""
    newest = checkpoints.latest_step()
    if newest is not None:
        if newest > config.train.steps:
            raise UserError(
                f"The run is at step {newest} already, train.steps is {config.train.steps}; raise it, or choose "
                "another --workdir."
            )
        state = checkpoints.restore(abstract_state(maker_of(config), optimizer), batches, mesh)
        log.info("resumed from step %d", int(state.step))
        return state
    if config.train.init_from is None:
        state = init_state(maker_of(config), optimizer)
    else:
        path = pathlib.Path(config.train.init_from)
        params = initial_params(path, config.model, config.execution, mesh)
        state = state_from(with_adapters(params, config), optimizer)
        log.info("parameters from %s", path)
    if config.train.init_lora is not None:
        put_adapters(pathlib.Path(config.train.init_lora), config.lora, state.params)
    log.info("%s", parameter_overview.get_parameter_overview(nnx.to_pure_dict(state.params), include_stats=False))
    return state


def _batches(
    config: RunConfig, data: DataConfig, front_end: MelFrontEnd | None, mesh: Mesh, microbatches: int | None
) -> ShardedBatches:
    """Raises UserError where `data` is not what the run's objective learns from."""
    check_kind(config, open_sources(data)[0])
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    loader = make_loader(data, config.model.vocabulary, front_end, reference=config.reference, **processes)
    return ShardedBatches(loader, mesh, functools.partial(record_ids, data), microbatches)


def _reporter(config: RunConfig, mesh: Mesh, writer: MetricWriter) -> Reporter:
    schedule, positions = learning_rate(config.optimizer), config.data.batch_size * config.data.seq_len
    rates = language_model_rates(config.model, mesh)

    def derive(step: int, metrics: Metrics) -> dict[str, float]:
        warn_of_drift(step, metrics)
        return {"learning_rate": float(schedule(step - 1)), "fill": float(metrics["tokens"]) / positions}

    return Reporter(writer, steps=config.train.steps, log_every=config.train.log_every, rates=rates, derive=derive)


def _evaluators(
    config: RunConfig,
    parts: Parts,
    workdir: pathlib.Path,
    mesh: Mesh,
    model: Frozen,
    writer: MetricWriter,
) -> tuple[Evaluator, ...]:
    wanted = config.eval
    evaluators: list[Evaluator] = []
    if wanted.directory is not None:
        data = dataclasses.replace(config.data, directory=wanted.directory, sources=(), cfg_dropout=0.0)
        batches = _batches(config, data, model.front_end, mesh, None)
        eval_step = make_eval_step(model.structure, objective_of(config))
        evaluators.append(
            HeldOut(
                wanted.every,
                batches,
                wanted.batches,
                objective_of(config),
                lambda state, batch: eval_step(_judged(state), batch, model.constants),
                writer,
            )
        )
    if wanted.prompts:
        codec = XCodec.from_directory(parts["codec"])
        frames = max(round(wanted.seconds * codec.frame_rate), 1)
        evaluators.append(
            Sounds(
                wanted.every,
                wanted.prompts,
                SamplingParams(cfg_scale=wanted.cfg_scale, min_frames=frames, max_frames=frames),
                lambda state: nnx.merge(model.structure, _judged(state), model.constants),
                codec,
                load_tokenizer(parts["tokenizer"]),
                workdir / "samples",
                writer,
            )
        )
    return tuple(evaluators)
