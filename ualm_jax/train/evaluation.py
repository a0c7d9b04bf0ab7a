"""What a run measures and makes on its way: held-out loss, and sounds from fixed prompts."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from ualm_jax.audio.write import write_sound
from ualm_jax.codecs.base import Codec
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.sound import caption_to_sound
from ualm_jax.tokens.tokenizer import Tokenizer
from ualm_jax.train.batches import Batches
from ualm_jax.train.metrics import MetricWriter
from ualm_jax.train.objectives import Objective, Sums, values
from ualm_jax.train.report import flat

log = logging.getLogger(__name__)


class HeldOut:
    """What an objective measures on held-out data, the same batches every time.

    batches: only this evaluator reads them. count: how many are read.
    eval_step: (state, batch) to the objective's sums.
    """

    def __init__(
        self,
        every: int,
        batches: Batches,
        count: int,
        objective: Objective,
        eval_step: Callable[[Any, Any], Sums],
        writer: MetricWriter,
    ):
        self.every, self._batches, self._count = every, batches, count
        self._objective, self._eval_step, self._writer = objective, eval_step, writer
        self._start = batches.get_state()

    def run(self, step: int, state: Any) -> None:
        self._batches.set_state(self._start)
        sums = [self._eval_step(state, next(self._batches)[0]) for _ in range(self._count)]
        metrics = jax.device_get(values(self._objective, jax.tree.map(lambda *parts: sum(parts), *sums)))
        scalars = {f"eval/{name}": value for name, value in flat(metrics).items()}
        self._writer.scalars(step, scalars)
        log.info("evaluated at step %d: loss %.4f", step, scalars["eval/loss"])

    def close(self) -> None:
        self._batches.close()


class Sounds:
    """A sound for each prompt, as wav and in TensorBoard.

    model_of: the language model in a state.
    """

    def __init__(
        self,
        every: int,
        prompts: Sequence[str],
        sampling: SamplingParams,
        model_of: Callable[[Any], nnx.Module],
        codec: Codec,
        tokenizer: Tokenizer,
        writer: MetricWriter,
    ):
        self.every, self._prompts, self._sampling = every, tuple(prompts), sampling
        self._model_of, self._codec, self._tokenizer = model_of, codec, tokenizer
        self._writer = writer

    def run(self, step: int, state: Any) -> None:
        log.info("step %d: making %d sounds", step, len(self._prompts))
        wavs = caption_to_sound(self._model_of(state), self._codec, self._tokenizer, self._prompts, self._sampling)
        if jax.process_index() != 0:
            return
        for index, (prompt, wav) in enumerate(zip(self._prompts, wavs, strict=True)):
            name = f"samples/step_{step:07d}_{index}.wav"
            write_sound(self._writer.file(name), wav, self._codec.sample_rate)
            self._writer.sound(step, f"prompt_{index}", wav, self._codec.sample_rate)
            log.info("%s: %s", name, prompt)

    def close(self) -> None:
        """Holds nothing that needs it."""
