"""From a sound and a question about it to text."""

import numpy as np
from jaxtyping import Float

from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.segment import generate
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.tokenizer import Tokenizer
from ualm_jax.tokens.types import Message, Modality, Role


def answer(
    model: UALM,
    encoder: AudioEncoder,
    tokenizer: Tokenizer,
    question: str,
    wav: Float[np.ndarray, "N"],
    params: SamplingParams,
) -> str:
    """What the model says to `question` about a 16 kHz mono `wav`. A mesh must be set.

    Raises UserError for a sound that is too long or too short for the encoder.
    """
    text = Message(Role.USER, Modality.TEXT, np.array(tokenizer.encode(question), np.int32))
    clip = Message(Role.USER, Modality.CLIP, encoder.front_end.clip_length(len(wav)))
    prompt = build_prompt([text, clip], model.architecture.vocabulary)
    heard = [encoder.front_end.features(wav)]
    (segment,) = generate(model, [prompt], params, modality="text", heard=heard, encoder=encoder)
    return tokenizer.decode(segment.tokens.tolist())
