"""What travels from data to model: messages and token grids. numpy only, no JAX."""

import dataclasses
import enum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Role(enum.StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Modality(enum.StrEnum):
    """What a message holds; the names are the reference's."""

    TEXT = "text"  # content: token ids of the text vocabulary, int [n], counted from 0
    AUDIO = "discrete_audio"  # content: codec codes, int [T, Q], counted from 0 in each codebook
    CLIP = "continuous_audio"  # content: number of encoder frames (25 Hz) the clip will occupy


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn, or one part of a turn, in one modality. A conversation is a tuple of them.

    audio_tag: the special token that announces discrete audio: "audio", or "speech" for spoken output.
    learn: whether its tokens are targets of the loss, its role, modality and end among them. By default those of the
        assistant are; what it said first and took back, or all its turns but the last, may be read only.
    """

    role: Role
    modality: Modality
    content: np.ndarray | int
    audio_tag: str = "audio"
    learn: bool | None = None

    def __post_init__(self):
        if self.learn is None:
            object.__setattr__(self, "learn", self.role == Role.ASSISTANT)

    @property
    def is_speech(self) -> bool:
        return self.modality == Modality.AUDIO and self.audio_tag == "speech"


@dataclasses.dataclass(frozen=True)
class Clip:
    """Where continuous features go: `length` positions of a grid from `start` on."""

    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class TokenGrid:
    """A conversation as the decoder reads it.

    tokens: [T, S] ids of the unified vocabulary; 0 embeds to nothing.
    loss_weights: [T, S]; 1 for text and special tokens to be learnt, 1/S for audio, 0 elsewhere.
    clips: positions whose embedding comes from the audio encoder, in the order of the messages.
    """

    tokens: Int[np.ndarray, "T S"]
    loss_weights: Float[np.ndarray, "T S"]
    clips: tuple[Clip, ...] = ()


class Batch(NamedTuple):
    """Rows of packed conversations, of static shape; a pytree of numpy or JAX arrays.

    segment_ids: 1, 2, ... for the conversations of a row, 0 for padding; nothing attends across segments.
    positions: count from 0 in each conversation.
    feature_index: which of its row's audio frames a position takes instead of a token; -1 for none.
    mels, mel_frames: log-mel windows of the rows' audio clips, and how many frames of each are real; what an audio
        encoder turns into features. None where nothing is heard.
    features: audio frames of the rows, W windows of M // 4 each, one after the other.
    reference: for pairs; pair p of a row is segments 2 p + 1 (chosen) and 2 p + 2 (rejected). The weighted sums of
        their tokens' log-probabilities under the reference model; 0 where there is no pair, or no reference.
    """

    tokens: Int[Any, "B T S"]
    loss_weights: Float[Any, "B T S"]
    segment_ids: Int[Any, "B T"]
    positions: Int[Any, "B T"]
    features: Float[Any, "B C A"] | None = None
    feature_index: Int[Any, "B T"] | None = None
    mels: Float[Any, "B W F M"] | None = None
    mel_frames: Int[Any, "B W"] | None = None
    reference: Float[Any, "B P 2 S"] | None = None
