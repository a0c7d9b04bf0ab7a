"""Generation: prompts in, sounds and texts out; conversations; and below them the engine that makes their segments."""

from ualm_jax.generate.clip import Clip as Clip
from ualm_jax.generate.clip import Text as Text
from ualm_jax.generate.inputs import Prompt as Prompt
from ualm_jax.generate.pipeline import Pipeline as Pipeline
from ualm_jax.generate.request import Generated as Generated
from ualm_jax.generate.sampling import SamplingParams as SamplingParams
from ualm_jax.generate.segment import generate as generate
from ualm_jax.generate.session import Session as Session
from ualm_jax.generate.session import replies as replies
