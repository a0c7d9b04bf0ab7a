"""The reference's sampling loop in PyTorch, for `ualm bench decode --against torch`: see `reference_torch`."""

import time

import numpy as np
import torch
from jaxtyping import Int
from transformers import DynamicCache, StaticCache

from ualm_jax.bench.reference_torch import DEVICE, Reference, synchronize
from ualm_jax.bench.sizes import SizedModel
from ualm_jax.tokens.vocabulary import AUDIO, EOS, EOT


class Decoding:
    """The reference's sampling loop for prompts [B, P, S] of equal length; every run is `steps` steps long.

    The end of a row is looked for, as the reference does, but does not stop the loop. compiled: a static cache and
    `torch.compile` of the whole step instead of a growing cache and eager calls.
    """

    def __init__(
        self,
        model: Reference,
        config: SizedModel,
        prompts: Int[np.ndarray, "B P S"],
        *,
        steps: int,
        cfg_scale: float,
        temperature: float,
        top_k: int,
        compiled: bool,
    ):
        self._model, self._mask = model.eval(), _forbidden(config)
        self._prompts = torch.from_numpy(prompts).long().to(DEVICE)
        self._steps, self._scale, self._temperature, self._top_k = steps, cfg_scale, temperature, top_k
        self._cache, self._next = None, self._step
        if compiled:
            self._cache = StaticCache(config=model.model.config, max_cache_len=prompts.shape[1] + steps)
            self._next = torch.compile(self._step, mode="reduce-overhead" if DEVICE == "cuda" else None)

    def compile(self) -> tuple[str | None, float]:
        """What went wrong with the first run, if anything did (no C++ compiler, say), and the seconds it took."""
        start = time.perf_counter()
        try:
            self.run()
        except Exception as error:
            return (str(error).strip() or type(error).__name__).splitlines()[0], time.perf_counter() - start
        return None, time.perf_counter() - start

    @torch.no_grad()
    def prefill(self) -> DynamicCache | StaticCache:
        """Both branches' caches: prompts first, then as many rows of zeros.

        Eager, the logits of every position and stream are computed too, as the reference does.
        """
        if self._cache is not None:
            self._cache.reset()
        both = torch.cat([self._prompts, torch.zeros_like(self._prompts)])
        cache = DynamicCache(config=self._model.model.config) if self._cache is None else self._cache
        output = self._model.model(inputs_embeds=self._model.embed(both), past_key_values=cache, use_cache=True)
        if self._cache is None:
            self._model.lm_head(self._model.streams(output.last_hidden_state))
        synchronize()
        return cache

    @torch.no_grad()
    def run(self) -> Int[np.ndarray, "B M S"]:
        """Prefill and all steps; the sampled unified ids."""
        cache = self.prefill()
        B, _, S = self._prompts.shape
        tokens = torch.zeros((B, 1, S), dtype=torch.long, device=DEVICE)
        tokens[:, 0, 0] = AUDIO
        ended = torch.zeros(B, dtype=torch.bool, device=DEVICE)
        rows = []
        for _ in range(self._steps):
            tokens = self._next(tokens, cache).clone()
            rows.append(tokens)
            ended |= (tokens[:, 0, 0] == EOS) | (tokens[:, 0, 0] == EOT)
            if bool(ended.all()):  # the reference would stop here; looking waits for the device, as it does there
                continue
        return torch.cat(rows, dim=1).cpu().numpy()

    def _step(self, tokens: torch.Tensor, cache: DynamicCache | StaticCache) -> torch.Tensor:
        model = self._model
        embedded = model.embed(tokens.tile(2, 1, 1))
        hidden = model.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True).last_hidden_state
        logits = model.lm_head(model.streams(hidden)).masked_fill(self._mask, float("-inf"))
        cond, uncond = logits.chunk(2)
        logits = cond * self._scale + uncond * (1 - self._scale)
        logits = logits.masked_fill(self._mask, float("-inf"))
        if self._temperature == 0:
            return logits.argmax(-1)
        best, indices = torch.topk(logits, self._top_k)
        chances = torch.softmax(best / self._temperature, dim=-1)
        chosen = torch.multinomial(chances.flatten(end_dim=-2), num_samples=1).view(chances[..., :1].shape)
        return torch.gather(indices, -1, chosen).squeeze(-1)


def _forbidden(config: SizedModel) -> torch.Tensor:
    """[1, 1, S, V], True where a stream may not emit: all but its own codebook, and for stream 0 eos and eot."""
    vocabulary = config.architecture.vocabulary
    mask = torch.ones(vocabulary.num_streams, vocabulary.size, dtype=torch.bool)
    for stream in range(vocabulary.num_streams):
        start = vocabulary.audio_pad(stream)
        mask[stream, start : start + vocabulary.stream_size] = False
    mask[0, [EOS, EOT]] = False
    return mask[None, None].to(DEVICE)
