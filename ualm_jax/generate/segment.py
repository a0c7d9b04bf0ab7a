"""Prompts in, one segment each out."""

import dataclasses
from collections.abc import Sequence

from ualm_jax.errors import UserError
from ualm_jax.generate.engine import Engine
from ualm_jax.generate.prompts import Heard, bucket, check_heard
from ualm_jax.generate.request import MODALITIES, Generated, Request
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.work import work_of
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.types import TokenGrid


def generate(
    model: UALM,
    prompts: Sequence[TokenGrid],
    params: SamplingParams | Sequence[SamplingParams],
    *,
    modality: str = "audio",
    heard: Heard | None = None,
    encoder: AudioEncoder | None = None,
    logprobs: bool = False,
) -> list[Generated]:
    """One segment for each prompt, sampled together: an `Engine` that has a slot for each.

    prompts: grids from `tokens.layout.build_prompt`. heard: see `prompts.Heard`; encoder: hears mel windows.
    params: one for each prompt; or one for all, and then prompt i draws with seed + i.
    modality: "audio", "speech", "text", or "auto": the model chooses for each prompt.
    A prompt's segment does not depend on the prompts beside it. A mesh must be set; any number of prompts will do.
    """
    if modality not in (*MODALITIES, "auto"):
        raise UserError(f"modality must be one of {', '.join(MODALITIES)} or auto, got {modality!r}.")
    if not prompts:
        return []
    if isinstance(params, SamplingParams):
        seeds = [(params.seed + index) % 2**32 for index in range(len(prompts))]
        params = [dataclasses.replace(params, seed=seed) for seed in seeds]
    if len(params) != len(prompts):
        raise ValueError(f"params must be one or {len(prompts)}, one for each prompt, got {len(params)}")
    heard = [None] * len(prompts) if heard is None else heard
    check_heard(prompts, heard)
    requests = [
        Request(prompt, param, modality, entry, scored=logprobs)
        for prompt, param, entry in zip(prompts, params, heard, strict=True)
    ]
    vocabulary = model.architecture.vocabulary
    kinds = ("audio", "text") if modality == "auto" else (modality,)
    steps = bucket(max(request.steps(kind, vocabulary) for request in requests for kind in kinds))
    engine = Engine(
        model,
        slots=len(prompts),
        sequences=None if any(request.guided for request in requests) else len(prompts),
        capacity=bucket(max(len(prompt.tokens) for prompt in prompts)) + steps,
        chunk=steps,
        encoder=encoder,
        work=work_of((modality, request.params, logprobs) for request in requests),
    )
    jobs = [engine.submit(request) for request in requests]
    while not all(job.done for job in jobs):
        engine.advance()
    return [job.result() for job in jobs]
