"""From the reference's waveforms to its token grids, with nothing borrowed on the way."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary


@pytest.mark.parametrize("name", ["gen", "reason"])
def test_a_waveform_and_its_words_become_the_references_grid(name, golden, expected, golden_dir):
    codec = XCodec.from_directory(golden_dir / "xcodec")
    tokenizer = AutoTokenizer.from_pretrained(golden_dir / "qwen2")
    wav = golden[f"{name}/waveform"][0]
    codes = codec.encode(wav[: len(wav) // codec.hop * codec.hop])
    messages = [
        Message(Role(role), Modality(kind), np.array(tokenizer.encode(content)) if kind == "text" else codes)
        for role, kind, content in expected[name]["messages"]
    ]
    vocabulary = Vocabulary(expected["vocab_intervals"]["text"][0][1] - 256, codec.codebook_sizes[0])
    grid = build_grid(messages, vocabulary)
    np.testing.assert_array_equal(grid.tokens, golden[f"{name}/sequence"])
    np.testing.assert_array_equal(grid.loss_weights, golden[f"{name}/loss_mask"])
