"""Generation: a prompt in, one segment of audio codes or text out."""

from ualm_jax.generate.request import Generated as Generated
from ualm_jax.generate.sampling import SamplingParams as SamplingParams
from ualm_jax.generate.segment import generate as generate
