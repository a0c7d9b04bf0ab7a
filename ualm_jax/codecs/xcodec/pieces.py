"""Long clips, a piece at a time: the results are those of the whole clip, and memory hardly grows with its length.

A stack of convolutions depends on a limited number of frames around each of its results. So each piece is computed
together with that context, and the results for the context are thrown away.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LONGEST = 2048  # frames of a clip that is computed in one piece, 41 s of X-codec
PIECE = 1024  # frames of a piece; padded lengths above LONGEST are multiples of it
_SCORES = 1 << 22  # attention scores of a head that exist at the same time


def in_pieces(
    function: Callable[[Float[Array, "B W ..."], Int[Array, "B"]], Float[Array, "B V ..."]],
    x: Float[Array, "B N ..."],
    lengths: Int[Array, "B"] | None,
    *,
    units: tuple[int, int],
    context: int,
) -> Float[Array, "B M ..."]:
    """`function(x, lengths)` of a stack of convolutions, in pieces where x is long.

    units: steps of x, and of the result, in a frame. lengths: of the clips in steps of x; None: all of x.
    context: frames on either side that a frame of the result may depend on.
    """
    taken, made = units
    frames = x.shape[1] // taken
    if frames <= LONGEST:
        return function(x, lengths)
    if lengths is None:
        lengths = jnp.full(x.shape[0], x.shape[1])
    window = PIECE + 2 * context
    padded = jnp.pad(x, [(0, 0), (0, context * taken), *[(0, 0)] * (x.ndim - 2)])

    def piece(index):
        # The first piece begins with the clip, where convolutions must find their zero padding; what is too much of it
        # stands behind.
        start = jnp.maximum(index * PIECE - context, 0)
        part = jax.lax.dynamic_slice_in_dim(padded, start * taken, window * taken, axis=1)
        y = function(part, jnp.clip(lengths - start * taken, 0, window * taken))
        return jax.lax.dynamic_slice_in_dim(y, (index * PIECE - start) * made, PIECE * made, axis=1)

    return join(jax.lax.map(piece, jnp.arange(frames // PIECE)))


def in_windows(
    function: Callable[[Float[Array, "B W"], Int[Array, ""], int], Float[Array, "B ..."]],
    wav: Float[Array, "B N"],
    *,
    hop: int,
    overlap: int,
) -> Float[Array, "P B ..."]:
    """`function(window, start, size)` of each piece of `wav`: a window of `size` samples from sample `start` on.

    hop: samples of a frame. overlap: samples behind the piece that the window holds, too. Where wav is not long, it is
    the one window.
    """
    if wav.shape[1] // hop <= LONGEST:
        return function(wav, jnp.int32(0), wav.shape[1])[None]
    padded, size = jnp.pad(wav, ((0, 0), (0, overlap))), PIECE * hop

    def piece(start):
        return function(jax.lax.dynamic_slice_in_dim(padded, start, size + overlap, axis=1), start, size)

    return jax.lax.map(piece, jnp.arange(0, wav.shape[1], size))


def in_blocks(
    function: Callable[[Float[Array, "B W D"]], Float[Array, "B W D"]], x: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
    """`function` of every frame, in blocks so small that few attention scores over all T exist at a time."""
    batch, frames, width = x.shape
    block = 1 << (_SCORES // frames).bit_length() - 1
    if block >= frames:
        return function(x)
    blocks = jnp.moveaxis(x.reshape(batch, frames // block, block, width), 1, 0)
    return join(jax.lax.map(function, blocks))


def join(pieces: Float[Array, "P B W ..."]) -> Float[Array, "B T ..."]:
    """Pieces of clips, one after the other."""
    batch_first = jnp.moveaxis(pieces, 0, 1)
    return batch_first.reshape(batch_first.shape[0], -1, *batch_first.shape[3:])
