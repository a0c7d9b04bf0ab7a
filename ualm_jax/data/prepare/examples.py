"""Raw conversations to records whose sound is FLAC: everything that is done before the codec."""

import dataclasses
import functools
import os

import numpy as np

from ualm_jax.audio.io import BadAudio
from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.data.dataset.audio_input import SHORTEST, to_flac
from ualm_jax.data.dataset.codec_sound import PEAK, CodecShape, pack_sound
from ualm_jax.data.dataset.pairs import conversations_of, split_pair
from ualm_jax.data.dataset.records import Record
from ualm_jax.data.prepare.filters import Measures, SoundMeasures, caption_hash
from ualm_jax.data.prepare.reports import Rejected
from ualm_jax.data.raw.conversation import ConversationSource, RawConversation, RawMessage
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tokenizer import Tokenizer, is_unicode, load_tokenizer
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

_SAMPLES_PER_POSITION = SAMPLE_RATE // 25  # of audio input


@dataclasses.dataclass(frozen=True, eq=False)
class Ready:
    """A conversation whose sounds have been read: target audio at the codec's rate and in whole frames, audio input at
    16 kHz. sounds: what filters look at of each."""

    raw: RawConversation
    index: int
    contents: tuple[str | np.ndarray, ...]
    sounds: tuple[SoundMeasures, ...]


@dataclasses.dataclass(frozen=True)
class RawReader:
    """Conversations of a source by index. Can be pickled: other processes read the same.

    `read` may run in several threads at once; `record` may not, as tokenizers can not.
    """

    source: ConversationSource
    tokenizer_dir: str | os.PathLike
    shape: CodecShape

    def read(self, index: int) -> Ready | Rejected:
        """Conversation `index` with its sounds, or why it can not be used."""
        try:
            raw = self.source[index]
        except BadRecord as error:
            return Rejected(error.id, index, "", str(error))
        contents, sounds = [], []
        try:
            if not raw.messages:
                raise BadRecord("the conversation has no messages")
            for message in raw.messages:
                content = message.content
                if message.modality != Modality.TEXT:
                    content = self._read_sound(message)
                    rate = self.shape.sample_rate if message.modality == Modality.AUDIO else SAMPLE_RATE
                    sounds.append(SoundMeasures.of(content, rate))
                elif not content.strip():
                    raise BadRecord("a text is empty")
                contents.append(content)
            texts = [content for content in contents if isinstance(content, str)]
            if not is_unicode("".join([raw.id, raw.caption, *texts])):
                raise BadRecord("id or text holds half a surrogate pair, which is no text")
            if raw.pair is not None:
                _check_pair(list(zip(raw.messages, contents, strict=True)), raw.pair)
        except (BadRecord, BadAudio) as error:
            return Rejected(raw.id, index, "", f"{self.source.name} record {index + 1} (id {raw.id}): {error}")
        return Ready(raw, index, tuple(contents), tuple(sounds))

    def record(self, ready: Ready) -> tuple[Record, Measures]:
        """The record that is stored of a conversation, and what filters look at."""
        raw, messages, clips, frames = ready.raw, [], [], []
        for message, content in zip(raw.messages, ready.contents, strict=True):
            if message.modality == Modality.TEXT:
                content = np.array(self._tokenizer.encode(content), np.int32)
                in_grid = content
            elif message.modality == Modality.AUDIO:
                clips.append(pack_sound(content, self.shape.sample_rate))
                content = len(content)
                in_grid = np.zeros((content // self.shape.hop, self.shape.codebooks), np.int32)
            else:
                clips.append(to_flac(content))
                content, in_grid = len(content), 0  # encoder frames are counted when a front end is known
            messages.append(Message(message.role, message.modality, content, message.audio_tag, message.learn))
            frames.append(dataclasses.replace(messages[-1], content=in_grid))
        grids = [frames] if raw.pair is None else split_pair(frames, raw.pair)
        record = Record(
            id=raw.id,
            source=self.source.name,
            messages=tuple(messages),
            caption=raw.caption,
            scene=raw.scene,
            length=sum(len(build_grid(grid, self._some_vocabulary).tokens) for grid in grids),
            clips=tuple(clips),
            pair=raw.pair,
        )
        heard = [m.content for one in conversations_of(record) for m in one.messages if m.modality == Modality.CLIP]
        length = record.length + sum(-(-samples // _SAMPLES_PER_POSITION) for samples in heard)
        return record, Measures(ready.sounds, length)

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.tokenizer_dir)

    @property
    def _some_vocabulary(self) -> Vocabulary:
        """A conversation's length does not depend on the size of a codebook."""
        return Vocabulary(self._tokenizer.size, 1, self.shape.codebooks)

    def __getstate__(self) -> dict:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _read_sound(self, message: RawMessage) -> np.ndarray:
        made = message.modality == Modality.AUDIO
        wav = message.content.read(self.shape.sample_rate if made else SAMPLE_RATE)
        if not np.isfinite(wav).all():
            raise BadRecord(f"{int((~np.isfinite(wav)).sum())} of {len(wav)} samples are NaN or infinite")
        least = self.shape.hop if made else SHORTEST
        if len(wav) < least:
            raise BadRecord(f"{len(wav)} samples are too few, one frame takes {least}")
        if (peak := float(np.abs(wav).max())) >= PEAK:  # of audio input, 16 bits would keep a square wave
            raise BadRecord(f"its peak is {peak:g}, full scale is 1; expected less than {PEAK:g}")
        return wav[: len(wav) // self.shape.hop * self.shape.hop] if made else wav


def condition_hash(raw: RawConversation) -> int | None:
    """Hash of the texts that condition the target audio; None where there is none, and for pairs: a prompt may have
    several."""
    if raw.pair is not None or all(message.modality != Modality.AUDIO for message in raw.messages):
        return None
    said = [m.content for m in raw.messages if m.modality == Modality.TEXT and m.role != Role.ASSISTANT]
    return caption_hash("\n".join(said))


def _check_pair(parts: list[tuple[RawMessage, str | np.ndarray]], pair: tuple[int, int]) -> None:
    """Raises BadRecord where the answers are equal, or nothing of one is learnt."""
    prompt, chosen = pair
    answers = {"chosen": parts[prompt : prompt + chosen], "rejected": parts[prompt + chosen :]}
    for name, answer in answers.items():
        if not any(m.role == Role.ASSISTANT if m.learn is None else m.learn for m, _ in answer):
            raise BadRecord(f"nothing of {name!r} is learnt, so there is nothing to prefer")
    one, other = answers.values()
    if len(one) == len(other) and all(map(_same, one, other)):
        raise BadRecord("'chosen' and 'rejected' are equal, so there is nothing to prefer")


def _same(one: tuple[RawMessage, str | np.ndarray], other: tuple[RawMessage, str | np.ndarray]) -> bool:
    (message, content), (against, compared) = one, other
    kind = (message.role, message.modality, message.audio_tag)
    return kind == (against.role, against.modality, against.audio_tag) and np.array_equal(content, compared)
