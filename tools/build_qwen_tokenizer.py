#!/usr/bin/env python3
"""Build the Qwen2.5 tokenizer without a hub: python tools/build_qwen_tokenizer.py --out tokenizer

Its vocabulary, `qwen.tiktoken`, comes in the wheel `dashscope` (Apache-2.0): `pip install --no-deps dashscope`, or
`pip install --no-deps --target DIR dashscope` and --resource DIR/dashscope/resources/qwen.tiktoken. The folder written
is one that `transformers.AutoTokenizer` and `ualm convert qwen2 --tokenizer` read.
"""

import base64
import hashlib
import importlib.util
import sys
from pathlib import Path

from ualm_jax.cli.arguments import Parser, input_file, output_directory
from ualm_jax.errors import UserError

PACKAGE, RESOURCE = "dashscope", "resources/qwen.tiktoken"
SHA256 = "b2b1b8df"  # how it begins, of the file that Qwen, Qwen2 and Qwen2.5 share
# In the order of their ids, which follow the vocabulary's; the second half is text to a decoder.
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
ADDED = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("build_qwen_tokenizer.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, required=True, help="folder to write")
    parser.add_argument("--resource", type=input_file, help="qwen.tiktoken; default: of the installed dashscope")
    args = parser.parse_args(arguments)
    resource = args.resource or installed_resource()
    content = resource.read_bytes()
    if not hashlib.sha256(content).hexdigest().startswith(SHA256):
        raise UserError(f"{resource}: its SHA-256 does not begin with {SHA256}; it is not Qwen2.5's vocabulary.")
    save(read_ranks(content), args.out)
    print(f"{args.out}: the Qwen2.5 tokenizer")


def installed_resource() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise UserError(f"{PACKAGE} is not installed; `pip install --no-deps {PACKAGE}`, or give --resource FILE.")
    return Path(spec.submodule_search_locations[0]) / RESOURCE


def read_ranks(content: bytes) -> dict[bytes, int]:
    """Token to id, of tiktoken's format: a line is the token in base64 and its id, which is its rank in merging."""
    lines = (line.split() for line in content.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def save(ranks: dict[bytes, int], out: Path) -> None:
    """Writes the tokenizer with these tokens, and Qwen2.5's added ones behind them."""
    import transformers

    alphabet = byte_alphabet()

    def spell(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    vocab = {spell(token): rank for token, rank in ranks.items()}
    merges = [
        tuple(map(spell, halves(token, ranks))) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1
    ]
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocab, merges=merges)
    added = [transformers.AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    added += [transformers.AddedToken(token, special=False, normalized=False) for token in ADDED]
    tokenizer.add_tokens(added)
    tokenizer.save_pretrained(out)


def halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge makes `token`: what is left when only earlier merges are done."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, sys.maxsize) for left, right in zip(parts, parts[1:], strict=False)]
        at = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[at] >= ranks[token]:
            raise UserError(f"qwen.tiktoken: token {token!r} cannot be made of earlier ones.")
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def byte_alphabet() -> list[str]:
    """A printable character for every byte, as GPT-2's byte-level BPE spells them."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    spelt = {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return [spelt[byte] for byte in range(256)]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"build_qwen_tokenizer: {error}")
