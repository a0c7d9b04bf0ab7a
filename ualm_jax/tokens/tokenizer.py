"""Text to token ids and back, through a Hugging Face tokenizer that lies in a local directory."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ualm_jax.errors import UserError

_RULES = "tokenizer.json"


class Tokenizer:
    """Ids as the text vocabulary counts them, from 0. `load_tokenizer` makes one."""

    def __init__(self, hf_tokenizer: Any):
        self._hf = hf_tokenizer
        self.size: int = max(hf_tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: nothing is added, and `<|endoftext|>` in it is spelt out, not obeyed."""
        return self._hf.encode(text, add_special_tokens=False, split_special_tokens=True)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def is_unicode(text: str) -> bool:
    """Whether it can be written in UTF-8: bytes that are none were read as halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def is_tokenizer(directory: str | os.PathLike) -> bool:
    """Whether a Hugging Face tokenizer lies in `directory`."""
    return any((Path(directory) / name).is_file() for name in (_RULES, "tokenizer_config.json"))


def load_tokenizer(directory: str | os.PathLike) -> Tokenizer:
    """The tokenizer saved in `directory`; the network is never asked. Raises UserError if there is none.

    tokenizer.json decides where there is one. `AutoTokenizer` would let the config.json of a model beside it choose
    another class, which can add tokens that the model has no rows for.
    """
    directory = Path(directory)
    if not is_tokenizer(directory):
        raise UserError(
            f"{directory}: no tokenizer here, expected a local Hugging Face tokenizer directory "
            f"with {_RULES} or tokenizer_config.json"
        )
    transformers = _transformers()
    try:
        if (directory / _RULES).is_file():
            return Tokenizer(transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / _RULES)))
        return Tokenizer(transformers.AutoTokenizer.from_pretrained(str(directory), local_files_only=True))
    except Exception as error:  # the Rust below raises plain Exception for a file that it cannot parse
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{directory}: not a tokenizer that transformers can read ({reason})") from error


def tokenizer_rules(directory: str | os.PathLike) -> dict[str, Any]:
    """What decides the ids of a text, ready for JSON, the same whichever version of a library saved it."""
    file = Path(directory) / _RULES
    try:
        content = json.loads(
            file.read_text() if file.is_file() else load_tokenizer(directory)._hf.backend_tokenizer.to_str()
        )
        # Fields at their defaults may be written or not, and merges as "a b" or as ["a", "b"].
        model = {name: value for name, value in content["model"].items() if value}
        if "merges" in model:
            model["merges"] = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        # Special tokens in a text are spelt out, see `Tokenizer.encode`.
        added = {token["content"]: token["id"] for token in content.get("added_tokens", ()) if not token["special"]}
        return {"model": model, "added": added} | {key: content.get(key) for key in ("normalizer", "pre_tokenizer")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory}: not a tokenizer that can be read ({error!r})") from error


def save_byte_tokenizer(directory: str | os.PathLike) -> None:
    """Write the smallest tokenizer that knows every text: one id per UTF-8 byte, equal to that byte."""
    import tokenizers

    transformers = _transformers()
    # The byte-level alphabet (GPT-2): visible latin-1 stands for itself, other bytes for code points >= 256.
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = {chr(byte): byte for byte in visible} | {chr(256 + n): byte for n, byte in enumerate(hidden)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)


def _transformers() -> Any:
    """The library, which is slow to import: only those who read text need it."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch: none is needed
    import transformers

    return transformers
