"""A stored conversation comes back exactly, and is an ordinary tf.train.Example."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from ualm_jax.data.dataset.records import Record, from_bytes, record_features, to_bytes
from ualm_jax.tokens.types import Message, Modality, Role

ids = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(lambda ids: np.array(ids, np.int32))
tags = st.sampled_from(["audio", "speech"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def codes(num_codebooks):
    frames = st.lists(st.lists(st.integers(0, 2**15 - 1), min_size=num_codebooks, max_size=num_codebooks))
    return frames.map(lambda frames: np.array(frames, np.int32).reshape(-1, num_codebooks))


def messages(num_codebooks):
    return st.one_of(
        st.builds(Message, st.sampled_from(Role), st.just(Modality.TEXT), ids, tags, st.none() | st.booleans()),
        st.builds(Message, st.sampled_from(Role), st.just(Modality.AUDIO), codes(num_codebooks), tags, st.booleans()),
        st.builds(Message, st.sampled_from(Role), st.just(Modality.CLIP), st.integers(0, 1000), tags),
    )


def fields(num_codebooks):
    return st.fixed_dictionaries(
        {
            "id": st.text(),
            "source": st.text(),
            "messages": st.lists(messages(num_codebooks), max_size=5).map(tuple),
            "caption": st.text(),
            "scene": st.none() | st.dictionaries(st.text(), json_values, max_size=4),
            "length": st.integers(0, 2**31 - 1),
            "clips": st.lists(st.binary(max_size=40), max_size=3).map(tuple),
        }
    )


@settings(deadline=None)  # the first example pays for imports
@given(data=st.data(), num_codebooks=st.sampled_from([1, 8]))
def test_any_record_comes_back_exactly(data, num_codebooks):
    record = Record(**data.draw(fields(num_codebooks)))
    back = from_bytes(to_bytes(record, num_codebooks), num_codebooks)
    for name in ("id", "source", "caption", "scene", "length", "clips"):
        assert getattr(back, name) == getattr(record, name)
    assert len(back.messages) == len(record.messages)
    for got, want in zip(back.messages, record.messages, strict=True):
        assert (got.role, got.modality, got.audio_tag) == (want.role, want.modality, want.audio_tag)
        assert got.learn is want.learn
        np.testing.assert_array_equal(got.content, want.content)
        assert getattr(got.content, "dtype", None) == getattr(want.content, "dtype", None)


def test_the_bytes_are_a_plain_example_with_named_columns():
    message = Message(Role.USER, Modality.TEXT, np.array([5, 0, 7], np.int32))
    record = Record("a1", "sounds", (message,), "a frog", {"events": [1]}, length=7)
    columns = tf_example_pb2.Example.FromString(to_bytes(record, 8)).features.feature
    assert set(columns) == set(record_features(8))
    assert columns["id"].bytes_list.value == [b"a1"]
    assert columns["text"].int64_list.value == [5, 0, 7]
    assert columns["scene"].bytes_list.value == [b'{"events": [1]}']


def test_a_record_that_does_not_say_what_is_learnt_is_learnt_where_the_assistant_speaks():
    texts = [Message(role, Modality.TEXT, np.array([1], np.int32), learn=False) for role in Role]
    example = tf_example_pb2.Example.FromString(to_bytes(Record("a", "b", tuple(texts), "", None, length=9), 8))
    assert [message.learn for message in from_bytes(example.SerializeToString(), 8).messages] == [False] * 3
    del example.features.feature["learn"]  # as datasets were written before
    messages = from_bytes(example.SerializeToString(), 8).messages
    assert {message.role for message in messages if message.learn} == {Role.ASSISTANT}
