"""From a configuration to a run of a language model."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.buckets import Folder
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset.reference import check_key
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader, open_sources, record_ids
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.mapping import to_mapping
from ualm_jax.models.attention.cache import check_backend
from ualm_jax.models.config import AUTO_REMAT
from ualm_jax.parallel.mesh import check_rows_of_processes, make_mesh
from ualm_jax.parallel.processes import meet
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.train.averaging import evaluated_params
from ualm_jax.train.batches import ShardedBatches, abstract_batch, with_windows
from ualm_jax.train.config import RunConfig
from ualm_jax.train.evaluation import HeldOut, Sounds
from ualm_jax.train.loop import Evaluator, Run, fit
from ualm_jax.train.metrics import MetricWriter
from ualm_jax.train.objectives import Objective
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.objectives.policy_gradient import PolicyGradient
from ualm_jax.train.objectives.preference import Preference
from ualm_jax.train.online import abstract_experience
from ualm_jax.train.optimizer import learning_rate
from ualm_jax.train.preference import check_kind, warn_of_drift, with_places_for_pairs
from ualm_jax.train.rates import language_model_rates
from ualm_jax.train.reference import reference_key
from ualm_jax.train.remat import policy_that_fits
from ualm_jax.train.report import Metrics, Reporter
from ualm_jax.train.stages.identity import identity_of
from ualm_jax.train.stages.model import (
    checkpoints_of,
    encoder_of,
    model_of,
    optimizer_for,
    shapes_of_encoder,
    shapes_of_state,
    state_of,
)
from ualm_jax.train.stages.online import online_parts
from ualm_jax.train.step import Frozen, TrainState, make_eval_step, make_train_step
from ualm_jax.train.workdir import Parts, check_begun_with, check_shared, claim, parts_of_run, write_workdir
from ualm_jax.weights.fingerprints import check_together, parts_of
from ualm_jax.weights.run_folder import parts_at, saved_steps
from ualm_jax.weights.shipped import located

log = logging.getLogger(__name__)


def train(config: RunConfig, workdir: Folder) -> int:
    """Trains until config.train.steps, a signal or a NaN; returns the step reached.

    A run that finds a checkpoint in `workdir` goes on from it, bit for bit as if it had never stopped.
    Raises UserError for a configuration that does not fit the devices, the dataset or the checkpoint, having changed no
    file, and for a loss that is not finite.
    """
    mesh = make_mesh(config.mesh)
    config.check_mesh(**mesh.shape)
    check_rows_of_processes(mesh.devices)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(claim(workdir))
        stack.enter_context(jax.set_mesh(mesh))
        if config.online or config.eval.prompts:
            how = config.execution
            check_backend(how.decode_attention, config.model.decoder.head_dim, how.compute_dtype)
        parts = checked_parts(config, workdir)
        run = language_model(config, parts, workdir, mesh)
        first = int(run.state.step)
        resumed = run.checkpoints.latest_step() is not None
        if jax.process_index() == 0:
            sources = [] if config.online else open_sources(config.data)
            write_workdir(to_mapping(config), parts, workdir, sources=sources, resumed=resumed)
        meet("train in the work folder")
        check_shared(workdir)
        step = fit(run)
    if first == config.train.steps:
        log.info("%s is at step %d already, which is train.steps: nothing to do", workdir, step)
    elif step == config.train.steps:
        log.info("done: %d steps in %s", step, workdir)
    return step


def language_model(config: RunConfig, parts: Parts, workdir: Folder, mesh: Mesh) -> Run:
    """Training of a UALM; `mesh` is set. Reads and checks everything, and writes nothing."""
    config = with_remat_decided(config, functools.partial(lower_step, mesh=mesh))
    encoder = encoder_of(config, parts)
    optimizer, trainable = optimizer_for(config, encoder)
    model = model_of(config, encoder)
    online = online_parts(config, parts, model, mesh) if config.online else None
    if online is None:
        batches = _batches(config, config.data, model.front_end, mesh, config.train.grad_accum_steps)
    else:
        batches = online.batches
    identity = identity_of(config) | ({} if online is None else online.identity)
    checkpoints = checkpoints_of(config, parts, workdir / "checkpoints", identity)
    state = state_of(config, encoder, optimizer, checkpoints, batches, mesh)
    if config.reference is not None and checkpoints.latest_step() is None:  # later the weights are no longer its own
        check_key(config.reference, reference_key(model.whole(state.params), parts))
    log.info("%s parameters on %d devices %s", f"{config.model.num_params():,}", mesh.size, dict(mesh.shape))
    if config.optimizer.schedule != "constant" and config.train.steps > config.optimizer.decay_steps:
        after, rate = config.optimizer.decay_steps, config.optimizer.end_lr
        log.info("steps after optimizer.decay_steps = %d are trained at end_lr = %g", after, rate)
    step = make_train_step(model.structure, objective_of(config), optimizer, trainable)
    take = functools.partial(_with_constants, step, model) if online is None else online.step(step)
    writer = MetricWriter(workdir if jax.process_index() == 0 else None, int(state.step))
    return Run(
        state=state,
        step=take,
        batches=batches,
        checkpoints=checkpoints,
        reporter=_reporter(config, mesh, writer),
        steps=config.train.steps,
        stop_every=config.train.log_every,
        evaluators=_evaluators(config, parts, mesh, model, writer),
    )


def _with_constants(step: Any, model: Frozen, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
    return step(state, batch, model.constants)


def with_remat_decided(config: RunConfig, lower: Callable[[RunConfig], jax.stages.Lowered]) -> RunConfig:
    """`config` with the policy that fits the devices in the place of "auto". lower: the training step of a run."""
    if config.execution.remat != AUTO_REMAT:
        return config
    return config.with_remat(policy_that_fits(lambda policy: lower(config.with_remat(policy))))


def objective_of(config: RunConfig) -> Objective:
    if config.online:
        return PolicyGradient(config.grpo)
    return Preference(config.preference) if config.train.objective == "preference" else next_token


def checked_parts(config: RunConfig, workdir: Folder) -> Parts:
    """Tokenizer, codec and encoder of the run, the same in its data, its checkpoints, and all that it is given."""
    # All datasets of a run were made with the same tokenizer and codec.
    source = located(config.train.init_from) if config.online else open_sources(config.data)[0].directory
    parts = parts_of_run(source, config.train.encoder, workdir)
    if saved_steps(workdir):
        check_together(parts, parts_at(workdir, None))
        check_begun_with(config.train.init_from, workdir)
    for given in (config.train.init_from, config.eval.directory):
        if given is not None:
            check_together(parts, parts_of(given))
    return parts


def lower_step(config: RunConfig, mesh: Mesh | AbstractMesh) -> jax.stages.Lowered:
    """The training step of a run, traced with shapes alone; `mesh` must be set.

    Raises UserError where an array can not be split over the mesh.
    """
    config.check_mesh(**mesh.shape)
    encoder = shapes_of_encoder(config)
    optimizer, trainable = optimizer_for(config, encoder)
    batch = abstract_batch(
        config.data.batch_size,
        config.data.seq_len,
        config.model.vocabulary.num_streams,
        mesh,
        config.train.grad_accum_steps,
    )
    if config.train.objective == "preference":
        batch = with_places_for_pairs(batch, mesh)
    if config.online:
        batch = abstract_experience(batch, mesh, divergence=config.grpo.kl_weight > 0)
    if encoder is not None:
        batch = with_windows(batch, encoder.front_end, config.data.audio_slots, mesh)
    step = make_train_step(model_of(config, encoder).structure, objective_of(config), optimizer, trainable)
    return step.trace(shapes_of_state(config, encoder, optimizer), batch).lower(
        lowering_platforms=(mesh.abstract_device.platform,) if isinstance(mesh, AbstractMesh) else None
    )


def _judged(state: TrainState) -> nnx.State:
    return evaluated_params(state.params, state.opt_state)


def _batches(
    config: RunConfig, data: DataConfig, front_end: MelFrontEnd | None, mesh: Mesh, microbatches: int | None
) -> ShardedBatches:
    """Raises UserError where `data` is not what the run's objective learns from."""
    check_kind(config.train.objective, open_sources(data)[0])
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    loader = make_loader(data, config.model.vocabulary, front_end, reference=config.reference, **processes)
    return ShardedBatches(loader, mesh, functools.partial(record_ids, data), microbatches)


def _reporter(config: RunConfig, mesh: Mesh, writer: MetricWriter) -> Reporter:
    schedule, positions = learning_rate(config.optimizer), config.data.batch_size * config.data.seq_len
    updates = config.grpo.updates if config.online else 1
    rates = language_model_rates(config.model, mesh)

    def derive(step: int, metrics: Metrics) -> dict[str, float]:
        warn_of_drift(step, metrics)
        return {"learning_rate": float(schedule((step - 1) * updates)), "fill": float(metrics["tokens"]) / positions}

    shown = ("reward" if config.online else "loss", "grad_norm")
    return Reporter(
        writer, steps=config.train.steps, log_every=config.train.log_every, shown=shown, rates=rates, derive=derive
    )


def _evaluators(
    config: RunConfig,
    parts: Parts,
    mesh: Mesh,
    model: Frozen,
    writer: MetricWriter,
) -> tuple[Evaluator, ...]:
    wanted = config.eval
    evaluators: list[Evaluator] = []
    if wanted.directory is not None:
        data = dataclasses.replace(config.data, directory=wanted.directory, sources=(), cfg_dropout=0.0)
        batches = _batches(config, data, model.front_end, mesh, config.train.grad_accum_steps)
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
                writer,
            )
        )
    return tuple(evaluators)
