"""Floating-point operations and bytes, by formula. A multiplication and an addition are two operations.

Training, per position (D width, L layers, N heads of width H, rows of T positions):

    forward = 2 P + 2 D (V + Q W) + 4 L N H (T + 1) / 2
    step    = 3 * forward * positions

P: parameters of the layers (matrices and biases; not embeddings, not norms), which every position multiplies once.
D (V + Q W): the head. Stream 0 needs the text columns V and the codebooks' columns Q W; streams 1 and up need the
codebooks' columns of h + e_s, which are those of h plus a vector that is the same for all positions, so the codebooks'
columns are multiplied once for all streams. Looking up embeddings costs nothing.
Attention: a query meets (T + 1) / 2 keys on average when causal, in Q K' and in the weighted sum: 4 N H (T + 1) / 2.
T is of a document, not of a row: keys of other documents in the row are not seen and not counted. A step that knows how
many keys its queries see counts those; a prediction is told how many documents lie in a row.
The backward pass costs twice the forward one. Recomputation (remat) is not counted: it is not useful work.
"""

import dataclasses

from ualm_jax.models.config import Architecture

FORMULA = (
    "MFU counts 3 x (2 P_layers + 2 D (V_text + Q W) + 2 L N H (n + 1)) per position of a document of n; "
    "no embeddings, no remat"
)


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """Operations of one training step, over all devices."""

    layers: float
    heads: float
    attention: float

    @property
    def total(self) -> float:
        return self.layers + self.heads + self.attention


def forward_per_position(architecture: Architecture, length: int | float) -> StepFlops:
    """Operations of the forward pass for one position of a causal document of `length` positions."""
    decoder, vocabulary = architecture.decoder, architecture.vocabulary
    D, L, N, H = decoder.width, decoder.num_layers, decoder.num_heads, decoder.head_dim
    return StepFlops(
        layers=2.0 * layer_params(architecture),
        heads=2.0 * D * (vocabulary.audio_start + vocabulary.num_codebooks * vocabulary.stream_size),
        attention=2.0 * L * N * H * (length + 1),
    )


def train_step(architecture: Architecture, rows: int, length: int, documents: int = 1) -> StepFlops:
    """Operations of a training step on `rows` rows of `length` positions, `documents` of one length in each."""
    forward = forward_per_position(architecture, length / documents)
    factor = 3 * rows * length
    return StepFlops(forward.layers * factor, forward.heads * factor, forward.attention * factor)


def packed_step(architecture: Architecture, tokens: float, attended: float) -> float:
    """Operations of a training step on packed documents, all of them together.

    tokens: positions that are no padding. attended: keys inside documents that all queries see together.
    """
    forward, decoder = forward_per_position(architecture, 0), architecture.decoder
    attention = 4.0 * decoder.num_layers * decoder.num_heads * decoder.head_dim * attended
    return 3 * ((forward.layers + forward.heads) * tokens + attention)


def layer_params(architecture: Architecture) -> int:
    """Parameters of all layers that positions are multiplied with: everything but norms."""
    decoder = architecture.decoder
    return decoder.num_params() - (2 * decoder.num_layers + 1) * decoder.width


def decode_weight_bytes(architecture: Architecture, bytes_per_param: int = 2) -> int:
    """Bytes of weights that decoding reads for one step of sound: all layers, the codebooks' columns, two ends (eos,
    eot), norms.

    The rows of the embedding that are looked up are too few to count.
    """
    decoder, vocabulary = architecture.decoder, architecture.vocabulary
    head = decoder.width * (vocabulary.num_codebooks * vocabulary.stream_size + 2)
    return (decoder.num_params() + head) * bytes_per_param


def decode_cache_bytes(architecture: Architecture, rows: int, length: int, bytes_per_value: int = 2) -> int:
    """Bytes of keys and values that one step reads when every row holds `length` positions."""
    decoder = architecture.decoder
    return 2 * decoder.num_layers * rows * length * decoder.num_kv_heads * decoder.head_dim * bytes_per_value
