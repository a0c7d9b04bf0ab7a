"""Text is text: encoding and decoding lose nothing and obey no control token inside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import Tokenizer, load_tokenizer, save_byte_tokenizer

QWEN_END = 0  # <|endoftext|> of the golden tokenizer


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    save_byte_tokenizer(directory)
    return load_tokenizer(directory)


@given(text=st.text())
def test_any_text_comes_back_from_the_byte_tokenizer(byte_tokenizer, text):
    ids = byte_tokenizer.encode(text)
    assert ids == list(text.encode())
    assert byte_tokenizer.decode(ids) == text


def test_id_zero_is_a_token_like_any_other(byte_tokenizer):
    assert byte_tokenizer.size == 256
    assert byte_tokenizer.decode([97, 0, 98]) == "a\0b"
    assert byte_tokenizer.encode("a\0b") == [97, 0, 98]


def test_bytes_that_are_no_text_are_shown_as_such(byte_tokenizer):
    assert byte_tokenizer.decode([0xFF, 0x61]) == "\N{REPLACEMENT CHARACTER}a"


@given(text=st.text("abc <|endoftext|>"))
def test_special_tokens_in_user_text_are_spelt_out(qwen, text):
    ids = qwen.encode(f"{text}<|endoftext|>")
    assert QWEN_END not in ids
    assert qwen.decode(ids) == f"{text}<|endoftext|>"


@pytest.fixture(scope="module")
def qwen(golden_dir) -> Tokenizer:
    tokenizer = load_tokenizer(golden_dir / "qwen2")
    assert tokenizer.decode([QWEN_END]) == "<|endoftext|>"
    return tokenizer


def test_a_loaded_tokenizer_encodes_what_its_maker_encodes(qwen, golden_dir):
    from transformers import AutoTokenizer

    text = "Rain on a tin roof, café 雨"
    assert qwen.encode(text) == AutoTokenizer.from_pretrained(golden_dir / "qwen2").encode(text)
    assert qwen.size == 352


def test_a_directory_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/none: no tokenizer here"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(UserError, match="no tokenizer here"):
        load_tokenizer("Qwen/Qwen2.5-1.5B")  # a hub name is no directory
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Nonsense"}')
    with pytest.raises(UserError, match="not a tokenizer that transformers can read"):
        load_tokenizer(tmp_path)
