"""The shape of an enhancer: what its weights are."""

import dataclasses
from typing import Annotated

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, check_fields

RATE_IN, RATE_OUT = 16000, 48000  # Hz: mono in, stereo out
FACTOR = RATE_OUT // RATE_IN
HIGHEST_CROSSOVER = 7600  # Hz; beyond it the filter that parts the bands grows long
OVERLAP = 4  # frames in a window


@dataclasses.dataclass(frozen=True)
class EnhancerConfig:
    """frame: samples between spectra at 16 kHz, three times as many at 48 kHz; a window holds four frames.

    width, mlp_dim: of the ConvNeXt blocks; encoder_blocks, decoder_blocks: how many; kernel_size: frames that the
        depthwise convolution of a block sees.
    latent_width: numbers in a latent; latent_stride: frames for which one stands.
    noise_bands: points of a spectrum at which the level of the noise part is given, evenly spaced.
    causal: no block sees later frames: 25 ms of latency with these frames and latents.
    crossover_hz: below it the mid signal is the input, exactly; from 8 kHz on all is made. None: all is made, as in the
        UALM paper.
    mid_side: the two signals that are made are mid and what the side signal has besides a share of the mid signal;
        otherwise left and right.
    """

    frame: Count = 80
    width: Count = 256
    mlp_dim: Count = 768
    encoder_blocks: Count = 4
    decoder_blocks: Count = 8
    kernel_size: Count = 7
    latent_width: Count = 64
    latent_stride: Count = 2
    noise_bands: Annotated[int, Bounds(at_least=2)] = 61
    causal: bool = False
    crossover_hz: int | None = 7000
    mid_side: bool = True

    def __post_init__(self):
        check_fields(self, "enhancer")
        if self.frame % 2 or not self.kernel_size % 2:
            raise UserError(
                f"enhancer.frame must be even and enhancer.kernel_size odd, got {self.frame} and {self.kernel_size}."
            )
        if self.crossover_hz is not None and not 0 < self.crossover_hz <= HIGHEST_CROSSOVER:
            raise UserError(
                f"enhancer.crossover_hz must lie between 1 and {HIGHEST_CROSSOVER} or be None, got {self.crossover_hz}."
            )

    @property
    def hop(self) -> int:
        """Samples at 16 kHz for which a latent stands: inputs are multiples of it."""
        return self.frame * self.latent_stride

    @property
    def bins_in(self) -> int:
        return self.frame * OVERLAP // 2 + 1

    @property
    def bins_out(self) -> int:
        return FACTOR * self.frame * OVERLAP // 2 + 1
