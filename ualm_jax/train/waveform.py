"""Training a network that makes waveforms, a codec or an enhancer: from a configuration to a run of the one loop, and
to the folder that holds the newest network.
"""

import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32

from ualm_jax.buckets import write
from ualm_jax.codecs.discriminators import init_discriminators
from ualm_jax.data.loading.clips import Clips, FolderClips, render_clips
from ualm_jax.data.loading.crops import Crops, FinishedCrops
from ualm_jax.data.loading.dataset_clips import DatasetClips
from ualm_jax.errors import UserError
from ualm_jax.mapping import to_mapping
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.checkpoint import Checkpoints
from ualm_jax.train.gan import AdversarialConfig, GanState, gathered, init_gan_state
from ualm_jax.train.loop import Run, fit
from ualm_jax.train.metrics import MetricWriter
from ualm_jax.train.optimizer import OptimizerConfig, learning_rate, make_optimizer
from ualm_jax.train.report import Reporter
from ualm_jax.train.waveform_config import CropsConfig, WaveformEvalConfig, WaveformTrainConfig
from ualm_jax.train.waveform_identity import waveform_identity
from ualm_jax.train.workdir import as_begun, check_begun_with, claim
from ualm_jax.weights.run_folder import saved_steps

log = logging.getLogger(__name__)

HEARD = 256  # crops that a fresh run looks at before it begins

Sounds = Callable[[int], dict[str, Array]]
"""A batch by its number, on the mesh: sounds that no step of the run sees in this order."""

_BEGINNING_SEED = 1  # added to the seed of the data


@runtime_checkable
class WaveformConfig(Protocol):
    """The fields that the configuration of every such network has."""

    data: CropsConfig
    optimizer: OptimizerConfig
    judges_optimizer: OptimizerConfig
    adversarial: AdversarialConfig
    train: WaveformTrainConfig
    eval: WaveformEvalConfig
    mesh: MeshConfig


@runtime_checkable
class Network(Protocol):
    """What is trained.

    name: of the folder in WORKDIR that holds it. sample_rate, channels, hop: of the sounds it learns from, hop the
    samples of one of `data.frames`. shown: metrics of the console line.
    """

    config: WaveformConfig
    name: str
    sample_rate: int
    channels: int
    hop: int
    shown: tuple[str, ...]

    def source(self) -> Any:
        """The generated sounds that are learnt from where there is no folder."""

    def identity(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint must agree with besides the configuration, by group, ready for JSON."""

    def finish(self, rows: slice, seed: int) -> Callable[[int, Float32[np.ndarray, "B N C"]], dict[str, np.ndarray]]:
        """See `FinishedCrops`; what is made are arrays by name."""

    def blank(self) -> tuple[Any, Any]:
        """Parameters, and what learns without gradients, of the shapes that all states have."""

    def given(self) -> tuple[Any, Any] | None:
        """Those of `train.init_from`, read before any sound is; None where it names nothing."""

    def beginning(self, sounds: Crops) -> tuple[Any, Any]:
        """Those that a fresh run begins with where nothing is given."""

    def step(self, sounds: Sounds, first: int) -> Callable[[GanState, Any], tuple[GanState, dict[str, Array]]]:
        """The step of a run that begins or goes on at step `first`."""

    def ready(self, step: int) -> bool:
        """Whether there is anything to store after `step` steps."""

    def save(self, params: Any, rest: Any, step: int, folder: pathlib.Path) -> None: ...

    def opened(self, folder: pathlib.Path) -> Callable[[Float32[np.ndarray, "N C"]], dict[str, tuple[np.ndarray, int]]]:
        """What the stored network makes of a sound: (samples, rate) by what it is."""


def train_waveforms(network: Network, workdir: pathlib.Path) -> int:
    """Trains until config.train.steps or a signal; returns the step reached. WORKDIR/name holds the newest network.

    A run that finds a checkpoint in `workdir` goes on from it, bit for bit as if it had never stopped. Raises UserError
    for a configuration that does not fit the devices, the sounds or the checkpoint, having changed no file, and for a
    loss that is not finite.
    """
    config = network.config
    mesh = make_mesh(config.mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.data.batch_size % parts:
        raise UserError(
            f"data.batch_size ({config.data.batch_size}) must be a multiple of mesh.data x mesh.fsdp ({parts})."
        )
    with claim(workdir), jax.set_mesh(mesh):
        run = waveform_run(network, workdir, mesh)
        first = int(run.state.step)
        (workdir / "checkpoints").mkdir(exist_ok=True)  # when every check has passed
        stored = to_mapping(config)
        if saved_steps(workdir):
            stored = as_begun(stored, workdir)
        write(workdir / "config.json", json.dumps(stored, indent=2) + "\n")
        if first >= config.train.steps:  # it may have been killed when all was learnt and not all stored
            for evaluator in run.evaluators:
                evaluator.run(first, run.state)
        step = fit(run)
    if first >= config.train.steps:
        log.info("%s is at step %d already, train.steps is %d: nothing to train", workdir, step, config.train.steps)
    if step >= config.train.steps:
        stored = network.ready(step)
        left = f"the {network.name} is in {workdir / network.name}" if stored else f"too few to store a {network.name}"
        log.info("done: %d steps, %s", step, left)
    return step


def waveform_run(network: Network, workdir: pathlib.Path, mesh: Mesh) -> Run:
    """The run of a network; `mesh` is set."""
    config, given = network.config, None
    if saved_steps(workdir):
        check_begun_with(config.train.init_from, workdir)
    else:
        given = network.given()
    clips = _open_clips(network)
    batches = PlacedCrops(_crops(network, clips, config.data.seed), mesh)
    beginnings = PlacedCrops(_crops(network, clips, config.data.seed + _BEGINNING_SEED), mesh)
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        every=config.train.save_interval,
        keep=config.train.max_to_keep,
        identity=waveform_identity(config, network.identity() | {"data": {"sounds": clips.fingerprint()}}),
        parts=(),  # WORKDIR/codec is what is made here, and changes
    )
    state = _state(network, given, beginnings, checkpoints, batches, mesh)
    sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
    log.info("%s parameters on %d devices %s", f"{sum(sizes):,}", mesh.size, dict(mesh.shape))
    step = int(state.step)
    writer = MetricWriter(workdir, step)
    schedule = learning_rate(config.optimizer)
    seconds = config.data.batch_size * config.data.frames * network.hop / network.sample_rate
    return Run(
        state=state,
        step=network.step(beginnings.batch, step),
        batches=batches,
        checkpoints=checkpoints,
        reporter=Reporter(
            writer,
            steps=config.train.steps,
            log_every=config.train.log_every,
            shown=("loss", *network.shown, "grad_norm"),
            rates={"audio_seconds_per_second": lambda metrics: seconds},
            derive=lambda number, metrics: {"learning_rate": float(schedule(number - 1))},
        ),
        steps=config.train.steps,
        stop_every=config.train.log_every,
        evaluators=(StoredNetwork(network, workdir, clips, writer),),
    )


class PlacedCrops:
    """`Crops` as `fit` wants its batches: arrays by name, on the mesh."""

    def __init__(self, crops: Crops, mesh: Mesh):
        self.crops, self._mesh = crops, mesh
        self.get_state, self.set_state, self.close = crops.get_state, crops.set_state, crops.close
        self.progress, self.record_names = crops.progress, crops.record_names

    def __next__(self) -> tuple[dict[str, jax.Array], np.ndarray]:
        made, origins = next(self.crops)
        return shard_batch(made, self._mesh), origins

    def batch(self, number: int) -> dict[str, jax.Array]:
        return shard_batch(self.crops.batch(number)[0], self._mesh)


class StoredNetwork:
    """Leaves the network of a state in WORKDIR, and what it makes of a few sounds in TensorBoard."""

    def __init__(self, network: Network, workdir: pathlib.Path, clips: Clips, writer: MetricWriter):
        self.every, self._network = network.config.eval.every, network
        self._workdir, self._writer, self._clips = workdir, writer, clips

    def run(self, step: int, state: GanState) -> None:
        params, rest = jax.device_get(jax.jit(gathered)((state.average, state.rest)))
        if not self._network.ready(step):
            return
        target = self._workdir / self._network.name
        beside = self._workdir / f".{self._network.name}.partial"
        shutil.rmtree(beside, ignore_errors=True)
        self._network.save(params, rest, step, beside)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(beside, target)
        self._listen(step, target)

    def _listen(self, step: int, folder: pathlib.Path) -> None:
        wanted, make = self._network.config.eval, self._network.opened(folder)
        for index in range(min(wanted.sounds, len(self._clips.lengths))):
            length = min(int(self._clips.lengths[index]), round(wanted.seconds * self._network.sample_rate))
            length -= length % self._network.hop
            if length:
                for what, (wav, rate) in make(self._clips.read(index, 0, length)).items():
                    self._writer.sound(step, f"sound_{index}/{what}", wav, rate)

    def close(self) -> None:
        pass


def _open_clips(network: Network) -> Clips:
    data = network.config.data
    if data.folder is not None and (pathlib.Path(data.folder) / "dataset.json").is_file():
        if network.channels != 1:
            raise UserError(
                f"data.folder = {data.folder} is a prepared dataset, whose sounds are mono; give stereo files."
            )
        return DatasetClips(data.folder, network.sample_rate)
    if data.folder is not None:
        # Where the field of a stereo sound is learnt, so is its upper band.
        lowest = 0 if network.channels == 1 else network.sample_rate * 9 // 10
        return FolderClips(data.folder, network.sample_rate, network.channels, lowest)
    workers = data.workers or os.cpu_count()
    log.info("rendering %d scenes with %d processes", data.soundscript, workers)
    return render_clips(network.source(), data.soundscript, workers)


def _crops(network: Network, clips: Clips, seed: int) -> Crops:
    data = network.config.data
    rows = slice(0, data.batch_size)  # of one process
    return FinishedCrops(
        network.finish(rows, seed),
        clips,
        samples=data.frames * network.hop,
        batch_size=data.batch_size,
        seed=seed,
        gain_db=data.gain_db,
        flip=True,
        rows=rows,
        threads=data.threads,
    )


def _state(
    network: Network,
    given: tuple[Any, Any] | None,
    beginnings: PlacedCrops,
    checkpoints: Checkpoints,
    batches: PlacedCrops,
    mesh: Mesh,
) -> GanState:
    """The newest checkpoint's, where `batches` then stand too, or a fresh one."""
    if checkpoints.latest_step() is None:
        _check_heard(network, beginnings.crops)
        return _fresh(network, *(given or network.beginning(beginnings.crops)), mesh)
    blank = _fresh(network, *network.blank(), mesh)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), blank)
    state = checkpoints.restore(abstract, batches, mesh)
    log.info("resumed from step %d", int(state.step))
    return state


def _check_heard(network: Network, crops: Crops) -> None:
    batches = range(-(-HEARD // network.config.data.batch_size))
    if not any(np.any(crops.batch(number)[0]["wav"]) for number in batches):
        raise UserError(
            f"{network.config.data.folder}: expected sounds to learn from, found silence in all of "
            f"{len(batches) * network.config.data.batch_size} crops."
        )


def _fresh(network: Network, params: Any, rest: Any, mesh: Mesh) -> GanState:
    config = network.config
    judges = {}
    if config.adversarial.begin is not None:
        judges = init_discriminators(config.adversarial.discriminators, network.channels, config.train.seed)
    optimizers = make_optimizer(config.optimizer), make_optimizer(config.judges_optimizer)
    return init_gan_state(params, rest, judges, *optimizers, mesh.shape["fsdp"])
