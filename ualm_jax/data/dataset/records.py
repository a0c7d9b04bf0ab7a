"""A stored conversation and its bytes: a `tf.train.Example` that TFDS reads, made without TensorFlow."""

import dataclasses
import functools
import json
from typing import Any

import numpy as np

# At the top, and not where they are used: while tfds is being imported, it replaces Python's import by a lazy one,
# and whatever another thread imports in that moment is broken.
from tensorflow_datasets.core import features
from tensorflow_datasets.proto import tf_example_pb2

from ualm_jax.tokens.types import Message, Modality, Role


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One conversation in tokens, and where it comes from.

    id: unique within its source.
    source: name of the source.
    messages: text as int32 ids [n], discrete audio as int32 codes [T, Q]; continuous audio as its number of
        16 kHz samples, because the number of encoder frames depends on the front end (audio_input.py). Discrete audio
        that is not encoded yet is its number of samples, too.
    caption: the description of the sound, "" for conversations without one.
    scene: the ground truth of a generated sound, JSON-able; None where there is none.
    length: positions of the conversation's token grid, encoder frames not counted.
    clips: the sound of each message that is a number of samples, in their order: 16 kHz mono as 16-bit FLAC where
        it is audio input, at the codec's rate as 24-bit FLAC where it is not encoded yet (codec_sound.py).
    pair: None for a conversation. A pair holds a prompt once and two answers to it: how many of `messages` are the
        prompt and how many, after it, the chosen answer; the rest are the rejected one. See `conversations_of`.
    """

    id: str
    source: str
    messages: tuple[Message, ...]
    caption: str
    scene: dict[str, Any] | None
    length: int
    clips: tuple[bytes, ...] = ()
    pair: tuple[int, int] | None = None


@functools.cache
def record_features(num_codebooks: int | None, pairs: bool = False) -> Any:
    """The columns as a `tfds.features.FeaturesDict`; num_codebooks: None before sounds have become codes.

    Contents of all messages lie end to end in `text` and `codes`; `lengths` cuts them apart (ids of a text,
    frames of discrete audio, samples of a sound). Codes are stored as int16.
    """
    codes = {} if num_codebooks is None else {"codes": features.Tensor(shape=(None, num_codebooks), dtype=np.int16)}
    pair = {"pair": features.Tensor(shape=(2,), dtype=np.int32)} if pairs else {}
    return features.FeaturesDict(
        {
            "id": features.Text(),
            "source": features.Text(),
            "caption": features.Text(),
            "scene": features.Text(doc="JSON, or empty"),
            "length": features.Scalar(np.int32),
            "roles": features.Sequence(features.Text()),
            "modalities": features.Sequence(features.Text()),
            "audio_tags": features.Sequence(features.Text()),
            "lengths": features.Tensor(shape=(None,), dtype=np.int32),
            "learn": features.Tensor(shape=(None,), dtype=np.int32, doc="1 for messages that are learnt, else 0"),
            "text": features.Tensor(shape=(None,), dtype=np.int32),
            "clips": features.Sequence(features.Text(), doc="FLAC files"),
        }
        | codes
        | pair
    )


def to_bytes(record: Record, num_codebooks: int | None) -> bytes:
    """The record as a serialised `tf.train.Example`; the same record always gives the same bytes."""
    text, codes = [np.zeros(0, np.int32)], [np.zeros((0, num_codebooks or 0), np.int16)]
    lengths = []
    for message in record.messages:
        if isinstance(message.content, int):
            lengths.append(message.content)
            continue
        lengths.append(len(message.content))
        (text if message.modality == Modality.TEXT else codes).append(message.content)
    coded = {} if num_codebooks is None else {"codes": np.concatenate(codes).astype(np.int16)}
    pair = {} if record.pair is None else {"pair": np.array(record.pair, np.int32)}
    example = record_features(num_codebooks, bool(pair)).serialize_example(
        {
            "id": record.id,
            "source": record.source,
            "caption": record.caption,
            "scene": "" if record.scene is None else json.dumps(record.scene),
            "length": record.length,
            "roles": [message.role.value for message in record.messages],
            "modalities": [message.modality.value for message in record.messages],
            "audio_tags": [message.audio_tag for message in record.messages],
            "lengths": np.array(lengths, np.int32),
            "learn": np.array([message.learn for message in record.messages], np.int32),
            "text": np.concatenate(text).astype(np.int32),
            "clips": list(record.clips),
        }
        | coded
        | pair
    )
    # Protobuf leaves the order of a map's entries to chance, each process has its own.
    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)


def from_bytes(data: bytes, num_codebooks: int | None) -> Record:
    """Inverse of `to_bytes`."""
    # Not by `record_features`, which takes five times as long; training reads everything through here.
    columns = tf_example_pb2.Example.FromString(data).features.feature

    def texts(name: str) -> list[str]:
        return [value.decode() for value in columns[name].bytes_list.value]

    def integers(name: str) -> np.ndarray:
        return np.array(columns[name].int64_list.value, np.int32)

    text = integers("text")
    codes = None if num_codebooks is None else integers("codes").reshape(-1, num_codebooks)
    messages = []
    roles = texts("roles")
    # Older datasets do not say what is learnt: it is what the assistant says.
    learn = map(bool, integers("learn")) if "learn" in columns else [None] * len(roles)
    parts = roles, texts("modalities"), texts("audio_tags"), integers("lengths").tolist(), learn
    for role, modality, tag, length, learnt in zip(*parts, strict=True):
        modality = Modality(modality)
        if modality == Modality.TEXT:
            content, text = text[:length], text[length:]
        elif modality == Modality.AUDIO and codes is not None:
            content, codes = codes[:length], codes[length:]
        else:
            content = length
        messages.append(Message(Role(role), modality, content, tag, learnt))
    (scene,) = texts("scene")
    return Record(
        id=texts("id")[0],
        source=texts("source")[0],
        messages=tuple(messages),
        caption=texts("caption")[0],
        scene=json.loads(scene) if scene else None,
        length=int(integers("length" if "length" in columns else "rows")[0]),  # "rows" in format 2
        clips=tuple(columns["clips"].bytes_list.value),
        pair=tuple(integers("pair").tolist()) if "pair" in columns else None,
    )


def id_in(data: bytes) -> str:
    """The id of a record in its bytes, whatever its columns are."""
    return tf_example_pb2.Example.FromString(data).features.feature["id"].bytes_list.value[0].decode()
