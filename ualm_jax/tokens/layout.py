"""The chat layout: messages to a token grid with loss weights.

`<bos>`, then for each message `[role][modality][content][eot | eos]`; `eot` when the next message has the
same role. Special tokens and text stand in stream 0, the other streams hold 0 there. Everything that a message to be
learnt (`Message.learn`, by default the assistant's) holds is a target: special tokens and text with weight 1, each of
the S tokens of an audio frame with 1/S.
Layout and weights are the reference's (`ualm_job.py`, `preprocessing` and `_apply_cfg`).
"""

from collections.abc import Sequence

import numpy as np

from ualm_jax.tokens.delay import delay
from ualm_jax.tokens.types import Clip, Message, Modality, Role, TokenGrid
from ualm_jax.tokens.vocabulary import AUDIO, BOS, EOS, EOT, PAD, SPECIAL_TOKENS, SPEECH, TEXT, Vocabulary

_AUDIO_TAGS = {"audio": AUDIO, "speech": SPEECH}


def build_grid(messages: Sequence[Message], vocabulary: Vocabulary, *, only_segment: int | None = None) -> TokenGrid:
    """The whole conversation, ready to train on.

    With `only_segment`, every other message and `<bos>` become id 0 (positions that embed to zero but stay
    where they are) and lose their weight: the unconditional context of classifier-free guidance.
    Raises ValueError for an empty conversation or content that does not fit its modality.
    """
    if not messages:
        raise ValueError("a conversation needs at least one message")
    parts = [_special(BOS, vocabulary)]
    weights = [np.zeros((1, vocabulary.num_streams), np.float32)]
    clips = []
    length = 1
    for index, message in enumerate(messages):
        continues = index + 1 < len(messages) and messages[index + 1].role == message.role
        tokens, weight = _segment(message, EOT if continues else EOS, vocabulary)
        dropped = only_segment is not None and index != only_segment
        if message.modality == Modality.CLIP and not dropped:
            clips.append(Clip(start=length + 2, length=message.content))
        parts.append(np.zeros_like(tokens) if dropped else tokens)
        weights.append(np.zeros_like(weight) if dropped else weight)
        length += len(tokens)
    if only_segment is not None:
        parts[0] = np.zeros_like(parts[0])
    return TokenGrid(np.concatenate(parts), np.concatenate(weights), tuple(clips))


def build_prompt(messages: Sequence[Message], vocabulary: Vocabulary) -> TokenGrid:
    """What the model reads before it answers: the conversation, and `<|assistant|>` to open the answer.

    A conversation that the assistant was last to speak in goes on with another segment of its answer.
    """
    grid = build_grid(messages, vocabulary)
    tokens = np.concatenate([grid.tokens, _special(SPECIAL_TOKENS.index("assistant"), vocabulary)])
    if messages[-1].role == Role.ASSISTANT:
        tokens[-2, 0] = EOT
    return TokenGrid(tokens, np.zeros(tokens.shape, np.float32), grid.clips)


def drop_condition(
    messages: Sequence[Message], vocabulary: Vocabulary, *, probability: float, rng: np.random.Generator
) -> TokenGrid:
    """`build_grid` with classifier-free-guidance dropout.

    With `probability` one audio message that is learnt, chosen evenly, is kept with its role, modality
    and end token; all that stands around it is dropped. A conversation without such audio is not touched.
    """
    audio = [index for index, message in enumerate(messages) if message.learn and message.modality == Modality.AUDIO]
    # Both numbers are always drawn, so that the stream of random numbers does not depend on the content.
    dropped, choice = rng.random(2)
    if not audio or dropped >= probability:
        return build_grid(messages, vocabulary)
    return build_grid(messages, vocabulary, only_segment=audio[int(choice * len(audio))])


def _special(token: int, vocabulary: Vocabulary) -> np.ndarray:
    row = np.full((1, vocabulary.num_streams), PAD, np.int32)
    row[0, 0] = token
    return row


def _segment(message: Message, end: int, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Rows [role][modality][content][end] of one message and their loss weights."""
    streams = vocabulary.num_streams
    if message.modality == Modality.TEXT:
        ids = np.asarray(message.content)
        if ids.ndim != 1 or (ids.size and (ids.min() < 0 or ids.max() >= vocabulary.text_size)):
            raise ValueError(f"text must be ids [n] in [0, {vocabulary.text_size}), got shape {ids.shape}")
        content = np.zeros((len(ids), streams), np.int32)
        content[:, 0] = ids + vocabulary.text_start
        content_weight = (content != 0).astype(np.float32)
        modality = TEXT
    elif message.modality == Modality.AUDIO:
        content = delay(message.content, vocabulary)
        content_weight = np.full(content.shape, 1 / streams, np.float32)
        modality = _AUDIO_TAGS[message.audio_tag]
    else:
        content = np.zeros((message.content, streams), np.int32)
        content_weight = np.zeros(content.shape, np.float32)
        modality = _AUDIO_TAGS[message.audio_tag]
    role = SPECIAL_TOKENS.index(message.role.value)
    marks = [_special(token, vocabulary) for token in (role, modality, end)]
    tokens = np.concatenate([marks[0], marks[1], content, marks[2]])
    if not message.learn:
        return tokens, np.zeros(tokens.shape, np.float32)
    mark_weight = (marks[0] != 0).astype(np.float32)
    return tokens, np.concatenate([mark_weight, mark_weight, content_weight, mark_weight])
