"""What an audio encoder is to the language model."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch


@runtime_checkable
class AudioEncoder(Protocol):
    """A Flax `nnx` module. `front_end` is the half that needs no JAX; the encoder's config has it too."""

    @property
    def front_end(self) -> MelFrontEnd:
        """Waveform to mel windows; how many positions a clip takes, 25 a second."""

    @property
    def output_width(self) -> int:
        """Width of its embeddings, which the adapter brings to the decoder's."""

    def __call__(
        self, mels: Float[Array, "N F M"], lengths: Int[Array, "N"]
    ) -> tuple[Float[Array, "N C A"], Int[Array, "N"]]:
        """Windows and their mel frames to embeddings, C = M // 4, and how many are real; the others are zero.

        A window's embeddings do not depend on the other windows of the batch.
        """


def encode_audio(encoder: AudioEncoder | None, batch: Batch) -> Batch:
    """`batch` with the features of its mel windows."""
    if batch.mels is None:
        return batch
    if encoder is None:
        raise ValueError("the batch holds mel windows, but there is no audio encoder")
    features = encode_rows(encoder, batch.mels, batch.mel_frames)
    return batch._replace(features=features, mels=None, mel_frames=None)


def encode_rows(
    encoder: AudioEncoder, mels: Float[Array, "B W F M"], lengths: Int[Array, "B W"]
) -> Float[Array, "B C A"]:
    """Audio features of a batch (`Batch.features`): a row's W windows one after the other, C = W * (M // 4).

    `ualm_jax.audio.mel.feature_indices` says which of the C are real.
    """
    rows, windows, bins, frames = mels.shape
    mels = mels.reshape((rows * windows, bins, frames), out_sharding=spec("batch", None, None))
    lengths = lengths.reshape((rows * windows,), out_sharding=spec("batch"))
    embeddings, _ = encoder(mels, lengths)
    return embeddings.reshape((rows, -1, embeddings.shape[-1]), out_sharding=spec("batch", None, None))
