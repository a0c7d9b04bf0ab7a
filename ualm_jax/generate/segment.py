"""Prompts in, one segment each out."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from ualm_jax.errors import UserError
from ualm_jax.generate.decode import Settings, decode_segment, special_logits
from ualm_jax.generate.prompts import Heard, batch_prompts, bucket
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import RULES, spec
from ualm_jax.tokens.delay import undelay
from ualm_jax.tokens.types import TokenGrid
from ualm_jax.tokens.vocabulary import EOS, EOT, SPECIAL_TOKENS, Vocabulary

_MODALITIES = ("audio", "text", "speech")
_REFERENCE_MODALITIES = ("audio", "text", "image", "video", "toolcall")


@dataclasses.dataclass(frozen=True)
class Generated:
    """One segment of an answer.

    modality: "audio", "speech" or "text".
    tokens: audio codes [T, Q], or text ids [n] of the text vocabulary. With `reference_behaviour` audio is the
        rows [n, S] of unified ids as sampled, for they need not have the delay structure.
    end: "eos" for an answer that is over, "eot" where another segment follows, None where the limit cut it off.
    """

    modality: str
    tokens: Int[np.ndarray, "T Q"] | Int[np.ndarray, " n"]
    end: str | None


def generate(
    model: UALM,
    prompts: Sequence[TokenGrid],
    params: SamplingParams | Sequence[SamplingParams],
    *,
    modality: str = "audio",
    heard: Heard | None = None,
    encoder: AudioEncoder | None = None,
) -> list[Generated]:
    """One segment for each prompt, sampled together.

    prompts: grids from `tokens.layout.build_prompt`. heard: see `prompts.Heard`; encoder: hears mel windows.
    params: one for each prompt; or one for all, and then prompt i draws with seed + i.
    modality: "audio", "speech", "text", or "auto": the model chooses for each prompt, which reads it once more.
    A prompt's segment does not depend on the prompts beside it. A mesh must be set; any number of prompts will
    do, rows that no prompt fills are computed and thrown away.
    """
    if modality not in (*_MODALITIES, "auto"):
        raise UserError(f"modality must be one of {', '.join(_MODALITIES)} or auto, got {modality!r}.")
    if not prompts:
        return []
    if isinstance(params, SamplingParams):
        seeds = [(params.seed + index) % 2**32 for index in range(len(prompts))]
        params = [dataclasses.replace(params, seed=seed) for seed in seeds]
    if len(params) != len(prompts):
        raise ValueError(f"params must be one or {len(prompts)}, one for each prompt, got {len(params)}")
    if len({param.reference_behaviour for param in params}) > 1:
        raise ValueError("reference_behaviour must be the same for all prompts of a call")
    heard = [None] * len(prompts) if heard is None else heard

    count = len(prompts)
    mesh = jax.sharding.get_mesh()
    idle = -count % int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    prompts = [*prompts, *[prompts[0]] * idle]
    heard = [*heard, *[heard[0]] * idle]
    params = [*params, *[params[0]] * idle]
    names = [modality] * len(prompts)
    if modality == "auto":
        names = _choose_modalities(model, encoder, prompts, heard, params[0].reference_behaviour)
    segments = {}
    for text in sorted({name == "text" for name in names[:count]}):
        wanted = [index for index in range(count) if (names[index] == "text") == text]
        segments |= _decode(model, encoder, prompts, heard, params, names, wanted, text)
    return [segments[index] for index in range(count)]


def _choose_modalities(model, encoder, prompts, heard, reference: bool) -> list[str]:
    choices = _REFERENCE_MODALITIES if reference else _MODALITIES
    batch = _place(batch_prompts(prompts, heard, guided=False, keep_role=True, chunk_frames=_chunk_frames(encoder)))
    logits = np.asarray(special_logits(model, batch, encoder))[:, [SPECIAL_TOKENS.index(name) for name in choices]]
    names = [choices[best] for best in logits.argmax(axis=1)]
    for name in names:
        if name not in _MODALITIES:
            raise UserError(f"The model chose to answer with <|{name}|>, which cannot be generated.")
    return names


def _decode(model, encoder, prompts, heard, params, names, wanted, text: bool) -> dict[int, Generated]:
    """Segments of the prompts `wanted`, all of them text or none."""
    vocabulary, reference = model.architecture.vocabulary, params[0].reference_behaviour
    guided = not text and any(params[index].cfg_scale != 1 for index in wanted)
    batch = batch_prompts(prompts, heard, guided=guided, keep_role=not reference, chunk_frames=_chunk_frames(encoder))
    settings = _settings(params, names, wanted, text, vocabulary)
    rows = decode_segment(
        model,
        _place(batch),
        _place(settings),
        encoder,
        num_steps=bucket(int(settings.limit[wanted].max())),
        text=text,
        guided=guided,
        enforce=not reference,
        greedy=not settings.temperature[wanted].any(),
    )
    rows = np.asarray(rows)
    return {
        index: _finish(rows[index, : settings.limit[index]], names[index], vocabulary, reference) for index in wanted
    }


def _chunk_frames(encoder: AudioEncoder | None) -> int:
    return 1 if encoder is None else encoder.front_end.chunk_frames


def _settings(params, names, wanted, text: bool, vocabulary: Vocabulary) -> Settings:
    S = vocabulary.num_streams
    names = [name if (name == "text") == text else "text" if text else "audio" for name in names]
    prefix = "text_" if text else ""
    limits = [p.max_tokens if text else p.max_frames + vocabulary.num_codebooks for p in params]
    return Settings(
        opening=np.array([SPECIAL_TOKENS.index(name) for name in names], np.int32),
        temperature=np.array([p.per_stream(f"{prefix}temperature", S) for p in params], np.float32),
        top_k=np.array([p.per_stream(f"{prefix}top_k", S) for p in params], np.int32),
        cfg_scale=np.array([p.cfg_scale for p in params], np.float32),
        seed=np.array([p.seed for p in params], np.uint32),
        min_frames=np.array([p.min_frames for p in params], np.int32),
        max_frames=np.array([p.max_frames for p in params], np.int32),
        limit=np.array(limits, np.int32),
        active=np.isin(np.arange(len(params)), wanted),
    )


def _finish(rows: np.ndarray, modality: str, vocabulary: Vocabulary, reference: bool) -> Generated:
    """The segment in the sampled rows, which end with eos, eot or nowhere."""
    ends = np.flatnonzero(np.isin(rows[:, 0], (EOS, EOT)))
    end = SPECIAL_TOKENS[rows[ends[0], 0]] if ends.size else None
    rows = rows[: ends[0]] if ends.size else rows
    if modality == "text":
        return Generated(modality, rows[:, 0] - vocabulary.text_start, end)
    return Generated(modality, rows if reference else undelay(rows, vocabulary), end)


def _place(arrays):
    """Host arrays [B, ...] on the mesh, split by rows."""
    mesh = jax.sharding.get_mesh()

    def place(array):
        return jax.device_put(array, jax.NamedSharding(mesh, spec("batch", *[None] * (array.ndim - 1))))

    return jax.tree.map(place, arrays)
