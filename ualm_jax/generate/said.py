"""What was said in a conversation, message by message."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from ualm_jax.generate.parts import Parts
from ualm_jax.tokens.types import Message


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """One message of a conversation. samples: of a sound that is heard, at 16 kHz; heard: see `prompts.Heard`."""

    message: Message
    samples: Float32[np.ndarray, " N"] | None = None
    heard: Any = None


def text_of(parts: Parts, message: Message) -> str:
    """The words of a text message."""
    ids: Int[np.ndarray, " n"] = message.content
    return parts.part("tokenizer").decode(ids.tolist())
