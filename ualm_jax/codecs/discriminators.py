"""Networks that tell decoded sound from real: multi-period and multi-resolution spectrogram discriminators.

Periods as in HiFi-GAN (Kong et al. 2020), complex spectrograms in bands as in DAC (Kumar et al. 2023). The second kind
stands where BigVGAN-v2 has its sub-band constant-Q discriminator: both look at bands at several resolutions.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ualm_jax.codecs.losses import check_windows
from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, check_fields

BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # bounds, in shares of the spectrum
PERIOD_STRIDES = (3, 3, 3, 1)  # of all layers but the last
BAND_STRIDES = (1, 2, 2, 1, 1)
SLOPE = 0.1  # of the leaky rectifier


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """periods: samples at which waveforms are folded. windows: of the spectrograms, in samples. width: channels of the
    first layer; those of periods double with each layer up to 16 times as many.
    """

    periods: tuple[Annotated[int, Bounds(at_least=2)], ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = (2048, 1024, 512)
    width: Count = 32

    def __post_init__(self):
        check_fields(self, "adversarial.discriminators")
        if not self.periods and not self.windows:
            raise UserError("adversarial.discriminators.periods and windows are both empty; name at least one.")
        if self.windows:
            check_windows(self.windows, "adversarial.discriminators.windows", least=16)  # no band is empty


def init_discriminators(config: DiscriminatorConfig, channels: int, seed: int) -> dict:
    """Parameters for waveforms of `channels` channels: numpy arrays, the same on every machine."""
    draws = np.random.default_rng(seed)

    def conv(height: int, breadth: int, into: int, out: int) -> dict:
        bound = 1.0 / np.sqrt(height * breadth * into)
        return {
            "kernel": draws.uniform(-bound, bound, (height, breadth, into, out)).astype(np.float32),
            "bias": np.zeros(out, np.float32),
        }

    def period() -> list[dict]:
        widths = [channels, *(config.width * min(2**i, 16) for i in range(len(PERIOD_STRIDES)))]
        layers = [conv(5, 1, a, b) for a, b in zip(widths, widths[1:], strict=False)]
        return [*layers, conv(3, 1, widths[-1], 1)]

    def band() -> list[dict]:
        into, width = 2 * channels, config.width
        return [
            conv(3, 9, into, width),
            *(conv(3, 9, width, width) for _ in range(2)),
            conv(3, 3, width, width),
            conv(3, 3, width, 1),
        ]

    return {
        "periods": [period() for _ in config.periods],
        "spectrograms": [[band() for _ in BANDS[1:]] for _ in config.windows],
    }


def discriminate(params: dict, config: DiscriminatorConfig, wav: Float[Array, "B N C"]) -> list[list[Array]]:
    """What the layers of every discriminator return; the last layer's is the verdict (1 real, 0 made)."""
    found = [_period(layers, wav, p) for layers, p in zip(params["periods"], config.periods, strict=True)]
    for bands, window in zip(params["spectrograms"], config.windows, strict=True):
        spectrum = _complex_spectrogram(wav, window)
        bounds = [round(b * spectrum.shape[2]) for b in BANDS]
        for layers, first, stop in zip(bands, bounds, bounds[1:], strict=False):
            found.append(_layers(layers, spectrum[:, :, first:stop], BAND_STRIDES))
    return found


def _period(layers: list[dict], wav: Float[Array, "B N C"], period: int) -> list[Array]:
    batch, samples, channels = wav.shape
    x = jnp.pad(wav, ((0, 0), (0, -samples % period), (0, 0)), mode="reflect")
    x = jnp.swapaxes(x.reshape(batch, -1, period, channels), 1, 2)
    layers = [layer | {"kernel": jnp.swapaxes(layer["kernel"], 0, 1)} for layer in layers]
    return _layers(layers, x, (*PERIOD_STRIDES, 1))


def _layers(layers: list[dict], x: Float[Array, "B H W C"], strides: tuple[int, ...]) -> list[Array]:
    found = []
    for layer, stride in zip(layers, strides, strict=True):
        x = conv2d(x, layer["kernel"], stride) + layer["bias"]
        if len(found) < len(layers) - 1:
            x = jax.nn.leaky_relu(x, SLOPE)
        found.append(x)
    return found


def conv2d(x: Float[Array, "B H W C"], kernel: Float[Array, "K L C D"], stride: int) -> Float[Array, "B H R D"]:
    """The convolution with zeros around, whose windows lie `stride` apart along W; K and L are odd, R is W / stride,
    rounded up.

    The first layers have few channels, which leaves every processor idle, and gradients of strided convolutions are
    slow on CPUs. So neighbours in W count as channels of one place, and `together` outputs are one place: what is
    computed has no stride, and its kernel holds the given one `together` times, each `stride` further on among zeros.
    The bounds on `together` are measured (docs/codec.md); beyond them there are more zeros than it saves.
    """
    (height, length, into, out), width = kernel.shape, x.shape[2]
    together = min(4, max(-(-16 // out), -(-8 // (stride * into))))
    step = stride * together
    places = (width - 1) // stride + 1
    blocks, made = -(-width // step), -(-places // together)
    before = -(-(length // 2) // step)
    first = before * step - length // 2
    taps = -(-(first + step - stride + length) // step)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, blocks * step - width), (0, 0)))
    x = x.reshape(*x.shape[:2], blocks, step * into)
    starts = range(first, first + step, stride)
    pads = [((0, 0), (start, taps * step - start - length), (0, 0), (0, 0)) for start in starts]
    y = jax.lax.conv_general_dilated(
        x,
        jnp.concatenate([jnp.pad(kernel, pad) for pad in pads], -1).reshape(height, taps, step * into, together * out),
        (1, 1),
        [(height // 2, height // 2), (before, made - 1 + taps - before - blocks)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*y.shape[:2], made * together, out)[:, :, :places]


def _complex_spectrogram(wav: Float[Array, "B N C"], window: int) -> Float[Array, "B T F C2"]:
    """Real and imaginary parts as channels, of windows a quarter of their length apart."""
    batch, samples, channels = wav.shape
    hop = window // 4
    x = jnp.pad(wav, ((0, 0), (window // 2, window // 2 + -samples % hop), (0, 0)))
    blocks = jnp.moveaxis(x, 2, 1).reshape(batch, channels, -1, hop)
    count = blocks.shape[2] - 3
    frames = jnp.concatenate([blocks[:, :, i : i + count] for i in range(4)], axis=-1)
    hann = np.hanning(window + 1)[:-1].astype(np.float32)
    spectrum = jnp.fft.rfft(frames * (hann / np.sqrt(np.sum(hann**2))))
    return jnp.moveaxis(jnp.concatenate([spectrum.real, spectrum.imag], axis=1), 1, 3)


def verdict_loss(found: list[list[Array]], real: bool) -> Float[Array, ""]:
    """Least squares (Mao et al. 2017): mean squared distance of the verdicts from 1 (real) or 0."""
    return sum(jnp.mean((layers[-1] - float(real)) ** 2) for layers in found) / len(found)


def feature_matching(made: list[list[Array]], real: list[list[Array]], axes: tuple[str, ...] = ()) -> Float[Array, ""]:
    """Mean absolute difference of all layers but the verdicts, each divided by its mean magnitude on real sound, as in
    EnCodec (Défossez et al. 2022).

    axes: of the mesh that rows are split over, inside `jax.shard_map`; the magnitude is that of all rows.
    """

    def magnitude(layer: Array) -> Array:
        mean = jnp.mean(jnp.abs(layer))
        return jax.lax.pmean(mean, axes) if axes else mean

    terms = [
        jnp.mean(jnp.abs(a - b)) / (magnitude(b) + 1e-4)
        for mine, theirs in zip(made, real, strict=True)
        for a, b in zip(mine[:-1], theirs[:-1], strict=True)
    ]
    return sum(terms) / len(terms)
