"""Training a codec: from a configuration to a run, and to the folder that `XCodec.from_directory` opens."""

import contextlib
import json
import logging
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ualm_jax.codecs.discriminators import init_discriminators
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.principal import init_principal, mirrored
from ualm_jax.codecs.xcodec.quantizer import Codebooks
from ualm_jax.codecs.xcodec.trainable import Trainable
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory
from ualm_jax.data.loading.clips import Clips, FolderClips, render_clips
from ualm_jax.data.loading.crops import Crops
from ualm_jax.data.raw.soundscript import SoundScript, SoundScript2
from ualm_jax.errors import UserError
from ualm_jax.mapping import to_mapping
from ualm_jax.parallel.mesh import make_mesh
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.checkpoint import Checkpoints
from ualm_jax.train.codec_config import CodecRunConfig, CropsConfig
from ualm_jax.train.codec_step import CodecStep, codebooks_from, empty_codebooks
from ualm_jax.train.gan import GanState, gathered, init_gan_state
from ualm_jax.train.loop import Run, fit
from ualm_jax.train.metrics import MetricWriter
from ualm_jax.train.optimizer import learning_rate, make_optimizer
from ualm_jax.train.report import Reporter
from ualm_jax.train.workdir import claim

log = logging.getLogger(__name__)

_SAMPLE_RATE = 16000
_KMEANS_SEED = 1  # added to the seed of the data
_HEARD = 256  # crops that principal components are estimated of


def train_codec(config: CodecRunConfig, workdir: pathlib.Path) -> int:
    """Trains until config.train.steps or a signal; returns the step reached. WORKDIR/codec holds the newest codec.

    A run that finds a checkpoint in `workdir` goes on from it, bit for bit as if it had never stopped. Raises UserError
    for a configuration that does not fit the devices, the sounds or the checkpoint, having changed no file, and for a
    loss that is not finite.
    """
    mesh = make_mesh(config.mesh)
    if config.data.batch_size % (mesh.shape["data"] * mesh.shape["fsdp"]):
        raise UserError(
            f"data.batch_size ({config.data.batch_size}) must be a multiple of mesh.data x mesh.fsdp "
            f"({mesh.shape['data'] * mesh.shape['fsdp']})."
        )
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(claim(workdir))
        stack.enter_context(jax.set_mesh(mesh))
        run = codec_run(config, workdir, mesh)
        first = int(run.state.step)
        if jax.process_index() == 0:  # when every check has passed
            (workdir / "checkpoints").mkdir(exist_ok=True)
            _replace(workdir / "config.json", json.dumps(to_mapping(config), indent=2) + "\n")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("workdir")
        step = fit(run)
    if first >= config.train.steps:
        log.info("%s is at step %d already, train.steps is %d: nothing to do", workdir, step, config.train.steps)
    elif step == config.train.steps:
        log.info("done: %d steps, the codec is in %s", step, workdir / "codec")
    return step


def codec_run(config: CodecRunConfig, workdir: pathlib.Path, mesh: Mesh) -> Run:
    """The run of a codec; `mesh` is set."""
    trainable = config.codec.trainable()
    clips = open_clips(config.data, trainable)
    batches = PlacedCrops(_crops(config.data, trainable, clips, config.data.seed), mesh)
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        every=config.train.save_interval,
        keep=config.train.max_to_keep,
        identity=_identity(config, clips),
    )
    beginnings = PlacedCrops(_crops(config.data, trainable, clips, config.data.seed + _KMEANS_SEED), mesh)
    state = _state(config, trainable, beginnings, checkpoints, batches, mesh)
    sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
    log.info("%s parameters on %d devices %s", f"{sum(sizes):,}", mesh.size, dict(mesh.shape))
    step = int(state.step)
    writer = MetricWriter(workdir if jax.process_index() == 0 else None, step)
    schedule = learning_rate(config.optimizer)
    seconds = config.data.batch_size * config.data.frames / trainable.config.frame_rate
    return Run(
        state=state,
        step=CodecStep(config, trainable, lambda number: beginnings.batch(number)["wav"], step),
        batches=batches,
        checkpoints=checkpoints,
        reporter=Reporter(
            writer,
            steps=config.train.steps,
            log_every=config.train.log_every,
            shown=("loss", "squared", "log", "grad_norm"),
            rates={"audio_seconds_per_second": lambda metrics: seconds},
            derive=lambda number, metrics: {"learning_rate": float(schedule(number - 1))},
        ),
        steps=config.train.steps,
        stop_every=config.train.log_every,
        evaluators=(StoredCodec(config, trainable, workdir, clips, writer),),
    )


def open_clips(data: CropsConfig, trainable: Trainable) -> Clips:
    """The sounds of a configuration, at the codec's rate."""
    rate = trainable.config.sample_rate
    if data.folder is not None:
        return FolderClips(data.folder, rate)
    source = (SoundScript, SoundScript2)[data.language - 1](data.soundscript, data.seed, rate)
    workers = data.workers or os.cpu_count()
    log.info("rendering %d scenes with %d processes", data.soundscript, workers)
    return render_clips(source, data.soundscript, workers)


class PlacedCrops:
    """`Crops` as `fit` wants its batches: {"wav": [B, N]} on the mesh."""

    def __init__(self, crops: Crops, mesh: Mesh):
        self.crops, self._mesh = crops, mesh
        self.get_state, self.set_state, self.close = crops.get_state, crops.set_state, crops.close
        self.progress, self.record_names = crops.progress, crops.record_names

    def __next__(self) -> tuple[dict[str, jax.Array], np.ndarray]:
        crops, origins = next(self.crops)
        return self._placed(crops), origins

    def batch(self, number: int) -> dict[str, jax.Array]:
        return self._placed(self.crops.batch(number)[0])

    def _placed(self, crops: np.ndarray) -> dict[str, jax.Array]:
        return shard_batch({"wav": crops[..., 0]}, self._mesh)


def _crops(data: CropsConfig, trainable: Trainable, clips: Clips, seed: int) -> Crops:
    rows = data.batch_size // jax.process_count()
    return Crops(
        clips,
        samples=data.frames * trainable.config.hop,
        batch_size=data.batch_size,
        seed=seed,
        gain_db=data.gain_db,
        flip=True,
        rows=slice(jax.process_index() * rows, (jax.process_index() + 1) * rows),
        threads=data.threads,
    )


def _state(
    config: CodecRunConfig,
    trainable: Trainable,
    beginnings: PlacedCrops,
    checkpoints: Checkpoints,
    batches: PlacedCrops,
    mesh: Mesh,
) -> GanState:
    """The newest checkpoint's, where `batches` then stand too, or a fresh one."""
    if checkpoints.latest_step() is None:
        return _fresh(config, *_beginning(config, trainable, beginnings), mesh)
    blank = _fresh(config, trainable.narrowed(init_random(trainable.config, 0)), empty_codebooks(trainable), mesh)
    state = checkpoints.restore(jax.tree.map(_abstract, blank), batches, mesh)
    log.info("resumed from step %d", int(state.step))
    return state


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _fresh(config: CodecRunConfig, params: Any, codebooks: Codebooks, mesh: Mesh) -> GanState:
    judges = {}
    if config.adversarial.begin is not None:
        judges = init_discriminators(config.adversarial.discriminators, 1, config.train.seed)
    optimizers = make_optimizer(config.optimizer), make_optimizer(config.judges_optimizer)
    return init_gan_state(params, codebooks, judges, *optimizers, mesh.shape["fsdp"])


def _beginning(config: CodecRunConfig, trainable: Trainable, beginnings: PlacedCrops) -> tuple[Any, Codebooks]:
    """What a run begins with: another codec, or principal components of what it will hear and no codebooks yet."""
    if config.train.init_from is None:
        if not mirrored(trainable.config.acoustic):
            log.info("random parameters: principal components need a decoder that mirrors the encoder")
            return trainable.narrowed(init_random(trainable.config, config.train.seed)), empty_codebooks(trainable)
        heard = [beginnings.crops.batch(number)[0] for number in range(-(-_HEARD // config.data.batch_size))]
        params = init_principal(trainable, np.concatenate(heard)[..., 0], config.train.seed)
        return params, empty_codebooks(trainable)
    given, params = read_directory(config.train.init_from)
    if given != trainable.config:
        raise UserError(f"{config.train.init_from}: expected a codec of the shape in config.codec, found {given}")
    log.info("parameters from %s", config.train.init_from)
    return trainable.narrowed(params), codebooks_from(jnp.asarray(params["codebooks"]))


def _identity(config: CodecRunConfig, clips: Clips) -> dict[str, Any]:
    """What may not change between a checkpoint and its continuation."""
    mapping = to_mapping(config)
    data = {name: mapping["data"][name] for name in ("seed", "batch_size", "frames", "gain_db")}
    same = {name: mapping[name] for name in ("codec", "loss", "quantizer", "adversarial")}
    return same | {"data": data | {"sounds": clips.fingerprint()}}


class StoredCodec:
    """Leaves the codec of a state in WORKDIR/codec, and what it makes of a few sounds in TensorBoard."""

    def __init__(
        self, config: CodecRunConfig, trainable: Trainable, workdir: pathlib.Path, clips: Clips, writer: MetricWriter
    ):
        self.every, self._config, self._trainable = config.eval.every, config, trainable
        self._workdir, self._writer, self._clips = workdir, writer, clips

    def run(self, step: int, state: GanState) -> None:
        params, rest = jax.device_get(jax.jit(gathered)((state.average, state.rest)))
        if jax.process_index() or step <= self._config.quantizer.begin:
            return
        beside = self._workdir / ".codec.partial"
        shutil.rmtree(beside, ignore_errors=True)
        save_directory(self._trainable.widened(params, rest.embed), self._trainable.config, beside)
        shutil.rmtree(self._workdir / "codec", ignore_errors=True)
        os.replace(beside, self._workdir / "codec")
        self._listen(step, XCodec.from_directory(self._workdir / "codec"))

    def _listen(self, step: int, codec: XCodec) -> None:
        wanted, rate = self._config.eval, codec.sample_rate
        for index in range(min(wanted.sounds, len(self._clips.lengths))):
            length = min(int(self._clips.lengths[index]), round(wanted.seconds * rate))
            wav = self._clips.read(index, 0, length - length % codec.hop)[:, 0]
            if len(wav):
                self._writer.sound(step, f"sound_{index}/original", wav, rate)
                self._writer.sound(step, f"sound_{index}/decoded", codec.decode(codec.encode(wav)), rate)

    def close(self) -> None:
        pass


def _replace(path: pathlib.Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text)
    os.replace(beside, path)
