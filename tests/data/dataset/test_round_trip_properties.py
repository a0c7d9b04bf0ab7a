"""Whatever a conversation holds: it comes back from its bytes, is packed whole and once, and is weighted as it should.

The oracle lays out one position at a time, in plain Python, from the layout's description alone.
"""

import dataclasses
import itertools
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.data.dataset.audio_input import Size, to_flac, with_frames
from ualm_jax.data.dataset.records import Record, from_bytes, to_bytes
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.packing import Planner, Supply
from ualm_jax.data.loading.sequences import RowBuilder
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

STREAMS, TEXTS, CODES = 8, 300, 32
VOCABULARY = Vocabulary(TEXTS, CODES, STREAMS)
CONFIG = DataConfig(directory="unused", seq_len=160, batch_size=1, audio_slots=4, cfg_dropout=0.0, packing_bins=3)
FRONT_END = MelFrontEnd(24, windowed=False, normalize=True, max_seconds=0.24)
BOS, EOS, EOT = 1, 2, 3
MARKS = {"system": 4, "user": 5, "assistant": 6, "text": 7, "audio": 8, "speech": 9}


class Position(NamedTuple):
    """ids: of the first streams, the others are 0; each weighs `weight`. heard: an encoder frame stands here."""

    ids: list[int]
    weight: float
    heard: bool = False


def oracle(messages, kept: int | None = None) -> list[Position]:
    """kept: the one message that stays when the condition is dropped."""
    found = [Position([BOS if kept is None else 0], 0.0)]
    for number, message in enumerate(messages):
        followed = number + 1 < len(messages) and messages[number + 1].role == message.role
        learnt = 1.0 if message.role == "assistant" else 0.0
        tag = "text" if message.modality == "text" else message.audio_tag
        part = [Position([MARKS[message.role]], learnt), Position([MARKS[tag]], learnt)]
        if message.modality == "text":
            part += [Position([256 + int(number)], learnt) for number in message.content]
        elif message.modality == "discrete_audio":
            frames = len(message.content)
            for step in range(frames + STREAMS - 1):
                ids = []
                for stream in range(STREAMS):
                    pad, frame = 256 + TEXTS + (1 + CODES) * stream, step - stream
                    ids.append(pad + 1 + int(message.content[frame][stream]) if 0 <= frame < frames else pad)
                part.append(Position(ids, learnt / STREAMS))
        else:  # 100 mel frames a second, halved, then in pairs
            part += [Position([0], 0.0, heard=True)] * ((message.content // 160 + 1) // 4)
        part.append(Position([EOT if followed else EOS], learnt))
        found += part if kept in (None, number) else [Position([0], 0.0)] * len(part)
    return found


def arrays(positions: list[Position]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens and loss weights [T, S], and where encoder frames stand [T]."""
    tokens, weights = np.zeros((2, len(positions), STREAMS))
    for row, (ids, weight, _) in enumerate(positions):
        tokens[row, : len(ids)] = ids
        weights[row, : len(ids)] = weight
    return tokens, weights, np.array([position.heard for position in positions])


texts = st.lists(st.integers(0, TEXTS - 1), max_size=8).map(lambda ids: np.array(ids, np.int32))
frames = st.lists(st.lists(st.integers(0, CODES - 1), min_size=STREAMS, max_size=STREAMS), min_size=1, max_size=6)
sounds = frames.map(lambda codes: np.array(codes, np.int32))
roles, tags = st.sampled_from(Role), st.sampled_from(["audio", "speech"])
messages = st.one_of(
    st.builds(Message, roles, st.just(Modality.TEXT), texts),
    st.builds(Message, roles, st.just(Modality.AUDIO), sounds, tags),
    st.builds(Message, roles, st.just(Modality.CLIP), st.integers(480, 3200), tags),  # samples
)
conversations = st.lists(messages, min_size=1, max_size=4).map(tuple)


def record_of(messages) -> Record:
    counts = [message.content for message in messages if message.modality == Modality.CLIP]
    clips = [to_flac(np.random.default_rng(count).uniform(-0.5, 0.5, count).astype(np.float32)) for count in counts]
    return Record("1", "any", messages, caption="", scene=None, length=0, clips=tuple(clips))


@settings(deadline=None)
@given(conversations)
def test_any_conversation_keeps_its_grid_through_bytes(conversation):
    back = from_bytes(to_bytes(record_of(conversation), STREAMS), STREAMS)
    grid = build_grid(with_frames(back.messages, FRONT_END), VOCABULARY)
    tokens, weights, heard = arrays(oracle(conversation))
    np.testing.assert_array_equal(grid.tokens, tokens)
    np.testing.assert_array_equal(grid.loss_weights, weights)
    places = [np.arange(clip.start, clip.start + clip.length) for clip in grid.clips]
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *places]), np.flatnonzero(heard))


class Sizes:
    def __init__(self, conversations):
        self.sizes = [
            Size(len(oracle(messages)), sum(message.modality == "continuous_audio" for message in messages))
            for messages in conversations
        ]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Size:
        return self.sizes[index]


def pack(dataset, sources, dropout: float, count: int):
    """The plan, and the first `count` rows with what was planned for them. dataset: any, its records are not read."""
    supplies = [Supply(str(number), 1 / len(sources), Sizes(each)) for number, each in enumerate(sources)]
    plan = Planner(supplies, seed=0, seq_len=CONFIG.seq_len, audio_slots=CONFIG.audio_slots, bins=3)
    infos = [dataclasses.replace(dataset, records=len(each)) for each in sources]
    builder = RowBuilder(dataclasses.replace(CONFIG, cfg_dropout=dropout), VOCABULARY, infos, FRONT_END)
    builder._records = [[record_of(messages) for messages in each] for each in sources]
    return plan, [(items, builder(items)) for items in itertools.islice(plan, count)]


mixtures = st.lists(st.lists(conversations, min_size=1, max_size=4), min_size=1, max_size=2)


@settings(deadline=None, max_examples=20)
@given(sources=mixtures)
def test_packed_rows_hold_every_conversation_drawn_whole_and_once(dataset, sources):
    plan, rows = pack(dataset, sources, dropout=0.0, count=4)
    given_out = defaultdict(list)
    for items, row in rows:
        positions, segments, counted, records = [], [], [], []
        for segment, item in enumerate(items, start=1):
            given_out[item.source].append(item.position)
            layout = oracle(sources[item.source][item.index])
            positions += layout
            segments += [segment] * len(layout)
            counted += range(len(layout))
            records += [sum(map(len, sources[: item.source])) + item.index] * len(layout)
        room = CONFIG.seq_len - len(positions)
        tokens, weights, heard = arrays(positions + [Position([0], 0.0)] * room)
        np.testing.assert_array_equal(row.tokens, tokens)
        np.testing.assert_array_equal(row.loss_weights, weights)
        np.testing.assert_array_equal(row.feature_index >= 0, heard)
        np.testing.assert_array_equal(row.segment_ids, segments + [0] * room)
        np.testing.assert_array_equal(row.positions, counted + [0] * room)
        np.testing.assert_array_equal(row.records, records + [-1] * room)
    for _, waiting in plan.get_state()["bins"]:
        for source, position in waiting:
            given_out[source].append(position)
    for source, (_, drawn, *_) in enumerate(plan.get_state()["sources"]):
        assert sorted(given_out[source]) == list(range(drawn))


@settings(deadline=None, max_examples=20)
@given(sources=mixtures)
def test_without_its_condition_a_conversation_keeps_one_sound_with_its_weights(dataset, sources):
    _, rows = pack(dataset, sources, dropout=1.0, count=3)
    for items, row in rows:
        for segment, item in enumerate(items, start=1):
            conversation = sources[item.source][item.index]
            made = [n for n, m in enumerate(conversation) if (m.role, m.modality) == ("assistant", "discrete_audio")]
            where = row.segment_ids == segment
            found = row.tokens[where], row.loss_weights[where], row.feature_index[where] >= 0
            layouts = [arrays(oracle(conversation, kept)) for kept in made or [None]]
            assert any(all(map(np.array_equal, found, layout)) for layout in layouts)
