"""From captions to waveforms."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ualm_jax.codecs.base import Codec
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.segment import generate
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.tokenizer import Tokenizer
from ualm_jax.tokens.types import Message, Modality, Role


def caption_to_sound(
    model: UALM,
    codec: Codec,
    tokenizer: Tokenizer,
    captions: Sequence[str],
    params: SamplingParams,
    modality: str = "audio",
) -> list[Float[np.ndarray, " _"]]:
    """One waveform per caption, at the codec's sample rate. A mesh must be set; caption i draws with seed + i."""
    vocabulary = model.architecture.vocabulary
    prompts = [
        build_prompt([Message(Role.USER, Modality.TEXT, np.array(tokenizer.encode(caption), np.int32))], vocabulary)
        for caption in captions
    ]
    answers = generate(model, prompts, params, modality=modality)
    return codec.decode_batch([answer.tokens for answer in answers])
