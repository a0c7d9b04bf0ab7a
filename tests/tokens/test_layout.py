"""The chat layout against the reference's grids, and the deliberate corrections."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from ualm_jax.tokens.layout import build_grid, build_prompt, drop_condition
from ualm_jax.tokens.tasks import TASKS
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary(text_size=384, codebook_size=32, num_codebooks=8)


@pytest.fixture(scope="module")
def conversations(expected, golden, golden_dir):
    """The golden conversations as messages; codes are read back from the reference's own grids."""
    tokenizer = AutoTokenizer.from_pretrained(golden_dir / "qwen2")
    result = {}
    for name in ("gen", "und", "txt", "reason"):
        spans = iter(expected[name]["audio_spans"])
        messages = []
        for role, modality, content in expected[name]["messages"]:
            if modality == "text":
                content = np.array(tokenizer.encode(content))
            else:
                _, start, length = next(spans)
                if modality == "continuous_audio":
                    content = length
                else:
                    rows = golden[f"{name}/sequence"][start : start + length]
                    pads = np.array([VOCABULARY.audio_pad(q) for q in range(8)])
                    content = np.stack([rows[q : q + length - 7, q] for q in range(8)], axis=1) - pads - 1
            messages.append(Message(Role(role), Modality(modality), content))
        result[name] = tuple(messages)
    return result


def test_the_vocabulary_is_the_references(expected):
    assert VOCABULARY.size == expected["vocab_size"]
    intervals = {name: [list(pair) for pair in pairs] for name, pairs in VOCABULARY.intervals().items()}
    assert intervals == expected["vocab_intervals"]
    assert [VOCABULARY.name(i) for i in range(len(SPECIAL_TOKENS))] == expected["special_tokens"][:13]


@pytest.mark.parametrize("text_size, base", [(151_936, 152_192), (152_064, 152_320)])
def test_audio_begins_where_the_published_sizes_put_it(text_size, base):
    vocabulary = Vocabulary(text_size, 1024)
    assert vocabulary.audio_pad(0) == base
    assert vocabulary.audio_pad(3) == base + 1025 * 3


@pytest.mark.parametrize("name", ["gen", "und", "txt", "reason"])
def test_grids_and_weights_equal_the_references(name, conversations, golden, expected):
    grid = build_grid(conversations[name], VOCABULARY)
    np.testing.assert_array_equal(grid.tokens, golden[f"{name}/sequence"])
    np.testing.assert_array_equal(grid.loss_weights, golden[f"{name}/loss_mask"])
    clips = [[span[1], span[2]] for span in expected[name]["audio_spans"] if span[0] == "continuous_audio"]
    assert [[clip.start, clip.length] for clip in grid.clips] == clips


def test_a_prompt_is_the_references_and_opens_the_answer(conversations, golden):
    prompt = build_prompt(conversations["gen"][:1], VOCABULARY)
    np.testing.assert_array_equal(prompt.tokens[:-1], golden["greedy/gen_cfg3/prompt"])
    assert VOCABULARY.name(int(prompt.tokens[-1, 0])) == "<|assistant|>"


def test_text_id_zero_keeps_its_meaning():
    """The reference turns text id 0 (`!`) into padding, which has no embedding and no loss."""
    grid = build_grid([Message(Role.ASSISTANT, Modality.TEXT, np.array([5, 0, 7]))], VOCABULARY)
    np.testing.assert_array_equal(grid.tokens[3:6, 0], [261, 256, 263])
    np.testing.assert_array_equal(grid.loss_weights[3:6, 0], 1)


def test_delay_tails_hold_pads_whatever_stands_beside():
    """The reference fills the tail of the shorter clips of a batch with codes of padding silence."""
    codes = np.ones((3, 8), np.int32)
    grid = build_grid([Message(Role.ASSISTANT, Modality.AUDIO, codes)], VOCABULARY)
    audio = grid.tokens[3:-1]
    assert audio.shape == (10, 8)
    for q in range(8):
        inside = np.zeros(10, bool)
        inside[q : q + 3] = True
        np.testing.assert_array_equal(audio[inside, q], VOCABULARY.audio_pad(q) + 2)
        np.testing.assert_array_equal(audio[~inside, q], VOCABULARY.audio_pad(q))


@pytest.mark.parametrize("task", TASKS)
def test_every_reference_task_has_a_layout(task):
    contents = {"text1": np.array([1, 2]), "text2": np.array([3]), "audio1": np.zeros((4, 8), np.int32)}
    hears = all(role != Role.ASSISTANT for role, entry in TASKS[task].turns if entry == "audio1")
    contents["audio1"] = 6 if hears else contents["audio1"]
    messages = []
    for role, entry in TASKS[task].turns:
        sound = Modality.CLIP if hears else Modality.AUDIO
        modality = sound if entry == "audio1" else Modality.TEXT
        messages.append(Message(role, modality, contents[entry], TASKS[task].audio_tag))
    grid = build_grid(messages, VOCABULARY)
    names = [VOCABULARY.name(token) for token in grid.tokens[:, 0].tolist()]
    assert names[0] == "<|bos|>" and names[-1] == "<|eos|>"
    assert ("<|speech|>" in names) == ("speech" in task)
    assert ("<|eot|>" in names) == (len(TASKS[task].turns) == 3)


def test_dropping_the_condition_keeps_one_audio_answer_and_its_marks(conversations):
    messages = conversations["reason"]
    full = build_grid(messages, VOCABULARY)
    dropped = drop_condition(messages, VOCABULARY, probability=1.0, rng=np.random.default_rng(0))
    assert dropped.tokens.shape == full.tokens.shape
    kept = np.arange(26, 56)  # [assistant][audio] 27 rows [eot]
    rest = np.setdiff1d(np.arange(len(full.tokens)), kept)
    np.testing.assert_array_equal(dropped.tokens[kept], full.tokens[kept])
    np.testing.assert_array_equal(dropped.loss_weights[kept], full.loss_weights[kept])
    assert not dropped.tokens[rest].any() and not dropped.loss_weights[rest].any()


def test_dropping_the_condition_forgets_the_clips_and_spares_conversations_without_audio(conversations):
    spoken = (*conversations["und"][:2], conversations["gen"][1])
    dropped = drop_condition(spoken, VOCABULARY, probability=1.0, rng=np.random.default_rng(0))
    assert dropped.clips == ()
    grid = drop_condition(conversations["und"], VOCABULARY, probability=1.0, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(grid.tokens, build_grid(conversations["und"], VOCABULARY).tokens)


def test_conditions_are_dropped_as_often_as_asked(conversations):
    rng = np.random.default_rng(0)
    grids = [drop_condition(conversations["gen"], VOCABULARY, probability=0.05, rng=rng) for _ in range(4000)]
    share = np.mean([grid.tokens[0, 0] == 0 for grid in grids])
    assert 0.04 < share < 0.06


def test_content_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"text must be ids \[n\] in \[0, 384\)"):
        build_grid([Message(Role.USER, Modality.TEXT, np.array([384]))], VOCABULARY)
    with pytest.raises(ValueError, match="codes must lie in"):
        build_grid([Message(Role.ASSISTANT, Modality.AUDIO, np.full((2, 8), 32, np.int32))], VOCABULARY)
    with pytest.raises(ValueError, match="at least one message"):
        build_grid([], VOCABULARY)


def _said(role, content, **learn) -> Message:
    modality = Modality.TEXT if np.ndim(content) == 1 else Modality.AUDIO
    return Message(role, modality, np.array(content, np.int32), **learn)


def test_what_is_learnt_is_said_by_the_message_and_changes_no_token():
    """Reflection: a first attempt and its critique are read, the second attempt is learnt."""
    attempt, critique, second = np.full((3, 8), 5), [7, 8], np.full((2, 8), 9)
    turns = [(Role.USER, [1, 2]), (Role.ASSISTANT, attempt), (Role.ASSISTANT, critique), (Role.ASSISTANT, second)]
    usual = build_grid([_said(*turn) for turn in turns], VOCABULARY)
    learn = [True, False, False, None]
    grid = build_grid([_said(*turn, learn=one) for turn, one in zip(turns, learn, strict=True)], VOCABULARY)
    np.testing.assert_array_equal(grid.tokens, usual.tokens)
    lengths = [1, 3 + 2, 3 + 3 + 7, 3 + 2, 3 + 2 + 7]
    weights = np.split(grid.loss_weights, np.cumsum(lengths))
    assert not weights[0].any() and not weights[2].any() and not weights[3].any()
    assert (weights[1][:, 0] == 1).all() and not weights[1][:, 1:].any()
    np.testing.assert_array_equal(weights[4], usual.loss_weights[-12:])


def test_only_sound_that_is_learnt_is_made_without_its_condition():
    turns = [_said(Role.USER, [1]), _said(Role.ASSISTANT, np.full((3, 8), 5), learn=False)]
    turns.append(_said(Role.ASSISTANT, np.full((2, 8), 9)))
    for seed in range(5):
        grid = drop_condition(turns, VOCABULARY, probability=1.0, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(grid.tokens, build_grid(turns, VOCABULARY, only_segment=2).tokens)
    untouched = drop_condition(turns[:2], VOCABULARY, probability=1.0, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(untouched.tokens, build_grid(turns[:2], VOCABULARY).tokens)
