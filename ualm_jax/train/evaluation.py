"""What a run measures and makes on its way: held-out loss, and sounds from fixed prompts."""

import dataclasses
import itertools
import logging
import pathlib

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ualm_jax.audio.io import write_wav
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.sound import caption_to_sound
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.config import RunConfig
from ualm_jax.train.loss import LossSums
from ualm_jax.train.metrics import MetricWriter
from ualm_jax.train.step import make_eval_step

log = logging.getLogger(__name__)


class Evaluation:
    """The same batches and prompts every time it runs."""

    def __init__(
        self,
        config: RunConfig,
        structure: nnx.GraphDef,
        workdir: pathlib.Path,
        mesh: Mesh,
        encoder: AudioEncoder | None,
    ):
        self._config, self._structure, self._mesh = config, structure, mesh
        self._workdir, self._encoder = workdir, encoder
        self._eval_step = make_eval_step(structure)
        if config.eval.prompts:
            self._codec = XCodec.from_directory(workdir / "codec")
            self._tokenizer = load_tokenizer(workdir / "tokenizer")

    def run(self, step: int, params: nnx.State, writer: MetricWriter) -> None:
        """Writes loss and accuracy of the held-out data, and a sound for each prompt."""
        if self._config.eval.directory is not None:
            sums = self._held_out(params)
            accuracy = np.asarray(sums.correct / np.maximum(sums.counted, 1))
            scalars = {"eval/loss": float(sums.mean())}
            scalars |= {f"eval/accuracy/stream_{s}": float(a) for s, a in enumerate(accuracy)}
            writer.scalars(step, scalars)
            log.info("evaluated at step %d: loss %.4f", step, scalars["eval/loss"])
        if self._config.eval.prompts:
            self._sounds(step, params, writer)

    def _held_out(self, params: nnx.State) -> LossSums:
        data = dataclasses.replace(
            self._config.data, directory=self._config.eval.directory, sources=(), cfg_dropout=0.0
        )
        loader = make_loader(
            data,
            self._config.model.vocabulary,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        batches = itertools.islice(loader, self._config.eval.batches)
        sums = [self._eval_step(params, shard_batch(batch, self._mesh), self._encoder) for batch, _ in batches]
        loader.close()
        return jax.tree.map(lambda *parts: sum(parts), *sums)

    def _sounds(self, step: int, params: nnx.State, writer: MetricWriter) -> None:
        model = nnx.merge(self._structure, params)
        frames = max(round(self._config.eval.seconds * self._codec.frame_rate), 1)
        sampling = SamplingParams(cfg_scale=self._config.eval.cfg_scale, min_frames=frames, max_frames=frames)
        prompts = self._config.eval.prompts
        wavs = caption_to_sound(model, self._codec, self._tokenizer, prompts, sampling)
        if jax.process_index() != 0:
            return
        folder = self._workdir / "samples"
        folder.mkdir(exist_ok=True)
        for index, (prompt, wav) in enumerate(zip(prompts, wavs, strict=True)):
            path = folder / f"step_{step:07d}_{index}.wav"
            write_wav(path, wav, self._codec.sample_rate)
            writer.sound(step, f"prompt_{index}", wav, self._codec.sample_rate)
            log.info("%s: %s", path, prompt)
