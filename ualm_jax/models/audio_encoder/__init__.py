"""Audio encoders: a clip's mel frames in, embeddings for the language model out, 25 a second."""

from ualm_jax.models.audio_encoder.config import AFWhisperConfig as AFWhisperConfig
from ualm_jax.models.audio_encoder.config import OmniConfig as OmniConfig
from ualm_jax.models.audio_encoder.config import read_settings as read_settings
from ualm_jax.models.audio_encoder.encoder import AudioEncoder as AudioEncoder
from ualm_jax.models.audio_encoder.encoder import encode_audio as encode_audio
from ualm_jax.models.audio_encoder.encoder import encode_rows as encode_rows
from ualm_jax.models.audio_encoder.weights import abstract_encoder as abstract_encoder
from ualm_jax.models.audio_encoder.weights import build as build
from ualm_jax.models.audio_encoder.weights import load_state as load_state
