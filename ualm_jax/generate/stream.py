"""An answer while it is made: sound in chunks, text in pieces."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from ualm_jax.errors import UserError
from ualm_jax.fields import Count, check_value
from ualm_jax.generate.job import Job
from ualm_jax.generate.parts import Answer, Parts
from ualm_jax.generate.request import finish
from ualm_jax.generate.stop_strings import before


class Stream:
    """Iterate it once: samples [n] of audio, each chunk behind the one before, or strings of text.

    Joined chunks are the whole answer: sound within 1e-3 of what the codec makes of all codes at once (the order of
    its sums alone differs), text to the letter. A frame of sound depends on `codec.context` frames on either side of
    it, the receptive field of the codec's decoder, so that a chunk is decoded with so many frames around it, and waits
    for those that follow it; the delay structure adds a frame for each codebook but one.

    first_chunk_frames: of the first chunk of sound. Each of the next has twice as many, until they have chunk_frames:
        it is to be there when the one before has been played.
    answer: all of it, once the last chunk has come. seconds_to_first: from the start to the first chunk, None before.
    underruns: chunks that came when all before them had been played, if playing began with the first.
    """

    def __init__(
        self,
        parts: Parts,
        job: Job,
        finished: Callable[[Job], Answer],
        *,
        first_chunk_frames: int = 2,
        chunk_frames: int = 25,
        stop: Sequence[str] = (),
    ):
        for name, value in (("first_chunk_frames", first_chunk_frames), ("chunk_frames", chunk_frames)):
            try:
                check_value(value, Count, name)
            except UserError:
                parts.engine.cancel(job)
                raise
        self._parts, self._job, self._finished, self._stop = parts, job, finished, stop
        self._frames = first_chunk_frames, chunk_frames
        self._began, self._plays_until = time.perf_counter(), 0.0
        self.seconds_to_first: float | None = None
        self.underruns = 0
        self.answer: Answer | None = None
        self._begun = False

    def __iter__(self) -> Iterator[Float[np.ndarray, " n"] | str]:
        job, engine = self._job, self._parts.engine
        if self._begun:
            raise UserError("A stream can be read once; what it gave is in its answer.")
        self._begun = True
        try:
            begun = len(job.tokens)
            while len(job.tokens) == begun and not job.done:
                engine.advance(self._first_steps())
            if job.done and job.modality is None:
                job.result()  # raises what stopped it
            for chunk in self._texts() if job.modality == "text" else self._sounds():
                self._note(chunk)
                yield chunk
            self.answer = self._finished(job)
        finally:
            if not job.done:
                engine.cancel(job)

    def _first_steps(self) -> int:
        """Of what will be yielded first; one where it is not known yet whether that is a sound."""
        if self._job.modality in (None, "text"):
            return 1
        return self._frames[0] + self._parts.part("codec").context + self._job.vocabulary.num_streams - 1

    def _sounds(self) -> Iterator[Float[np.ndarray, " n"]]:
        job, codec, engine = self._job, self._parts.part("codec"), self._parts.engine
        lag, hop, context = job.vocabulary.num_streams - 1, codec.hop, codec.context
        begun = 0 if job.asked.begun is None else len(job.asked.begun)
        sent, size = begun, self._frames[0]
        while True:
            made = len(job.result().tokens) if job.done else len(job.tokens) - lag
            end = min(sent + size, made) if job.done else sent + size
            if end == sent:
                return
            wanted = end + context
            if not job.done and made < wanted:
                engine.advance(wanted - made)
                continue
            start = max(sent - context, 0)
            codes = _codes(job, start, min(wanted, made))
            yield codec.decode(codes)[(sent - start) * hop : (end - start) * hop]
            sent, size = end, min(2 * size, self._frames[1])

    def _texts(self) -> Iterator[str]:
        job, tokenizer = self._job, self._parts.part("tokenizer")
        # What may be the beginning of a string that stops it is not said yet.
        held = max(map(len, self._stop), default=1) - 1
        said = ""
        while True:
            ids, _ = finish(job.tokens, "text", job.vocabulary, False)
            text = before(tokenizer.decode(ids.tolist()), self._stop)
            if not job.done:
                text = text[: len(text) - held].rstrip("\ufffd")  # of a character that has only begun
            if len(text) > len(said):
                yield text[len(said) :]
                said = text
            if job.done:
                return
            self._parts.engine.advance(1)

    def _note(self, chunk: Float[np.ndarray, " n"] | str) -> None:
        now = time.perf_counter()
        lasts = 0.0 if isinstance(chunk, str) else len(chunk) / self._parts.codec.sample_rate
        if self.seconds_to_first is None:
            self.seconds_to_first, self._plays_until = now - self._began, now
        elif lasts and now > self._plays_until:
            self.underruns, self._plays_until = self.underruns + 1, now
        self._plays_until += lasts


def _codes(job: Job, start: int, end: int):
    """Codes [end - start, Q] of frames that are whole: stream q has that of frame t at position t + q."""
    tokens, streams = job.tokens, job.vocabulary.num_streams
    return np.stack([tokens[start + q : end + q, q] - job.vocabulary.audio_pad(q) - 1 for q in range(streams)], axis=1)
