"""The unified vocabulary: 256 special slots, then text, then for each codebook one pad and its codes.

The order is the reference's (NVIDIA/audio-intelligence UALM, `ualm_job.py`), so its weights fit row by row.
"""

import dataclasses

from ualm_jax.fields import Count, check_fields

SPECIAL_TOKENS = (
    "pad",
    "bos",
    "eos",
    "eot",
    "system",
    "user",
    "assistant",
    "text",
    "audio",
    "speech",
    "image",
    "video",
    "toolcall",
)
NUM_SPECIAL = 256

PAD, BOS, EOS, EOT, SYSTEM, USER, ASSISTANT, TEXT, AUDIO, SPEECH = range(10)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Sizes of the three parts, and where each begins.

    text_size: ids of the text tokenizer (its table size, not the number of used ids).
    codebook_size: codes per codebook, without the pad.
    num_codebooks: codebooks Q, which is also the number of streams S.
    """

    text_size: Count
    codebook_size: Count
    num_codebooks: Count = 8

    def __post_init__(self):
        check_fields(self, "model.vocabulary")

    @property
    def num_streams(self) -> int:
        return self.num_codebooks

    @property
    def text_start(self) -> int:
        return NUM_SPECIAL

    @property
    def audio_start(self) -> int:
        """First id of the audio part, which is also the number of special and text ids."""
        return NUM_SPECIAL + self.text_size

    @property
    def stream_size(self) -> int:
        """Ids of one codebook: its pad and its codes."""
        return 1 + self.codebook_size

    @property
    def size(self) -> int:
        return self.audio_start + self.num_codebooks * self.stream_size

    def audio_pad(self, stream: int) -> int:
        """Id that stands where the delay pattern leaves a stream empty."""
        return self.audio_start + stream * self.stream_size

    def intervals(self) -> dict[str, list[tuple[int, int]]]:
        """Half-open id ranges by kind, in the reference's form."""
        starts = [self.audio_pad(stream) for stream in range(self.num_codebooks)]
        return {
            "special_token": [(0, NUM_SPECIAL)],
            "text": [(self.text_start, self.audio_start)],
            "discrete_audio": [(start, start + self.stream_size) for start in starts],
        }

    def name(self, token: int) -> str:
        """What an id is, for people: `<|bos|>`, `text:17`, `audio0:pad`, `audio3:512`."""
        if not 0 <= token < self.size:
            raise ValueError(f"token {token} lies outside the vocabulary of {self.size}")
        if token < NUM_SPECIAL:
            label = SPECIAL_TOKENS[token] if token < len(SPECIAL_TOKENS) else f"unused_{token}"
            return f"<|{label}|>"
        if token < self.audio_start:
            return f"text:{token - self.text_start}"
        stream, code = divmod(token - self.audio_start, self.stream_size)
        return f"audio{stream}:{code - 1 if code else 'pad'}"
