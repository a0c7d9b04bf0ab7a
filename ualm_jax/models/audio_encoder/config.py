"""Sizes of the audio encoders, and how to read them from Hugging Face's config.json."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ualm_jax.audio.mel import MEL_BINS, MelFrontEnd
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping
from ualm_jax.models.config import DTYPES


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What both encoders share: a Whisper-type transformer. The defaults are the released models' sizes.

    param_dtype, compute_dtype: of the stored parameters and of the arithmetic ("float32" or "bfloat16");
        layer norms and softmax are float32 whatever they say.
    normalize: bring a clip's waveform to zero mean and unit variance before the mel, as the reference trains;
        the encoders' own processors do not.
    max_seconds: the longest clip taken.

    Raises:
        UserError: a size that is not positive, does not divide, or an unknown dtype.
    """

    num_layers: int = 32
    width: int = 1280
    num_heads: int = 20
    mlp_dim: int = 5120
    param_dtype: str = "float32"
    compute_dtype: str = "bfloat16"
    normalize: bool = True
    max_seconds: float = 600.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float) and value <= 0:
                raise UserError(f"model.audio_encoder.{field.name} must be positive, got {value}.")
        if self.width % self.num_heads or self.width % 2:
            raise UserError(
                f"model.audio_encoder.width ({self.width}) must be even and a multiple of num_heads ({self.num_heads})."
            )
        for name in ("param_dtype", "compute_dtype"):
            if getattr(self, name) not in DTYPES:
                options, found = ", ".join(DTYPES), getattr(self, name)
                raise UserError(f"model.audio_encoder.{name} must be one of {options}, got {found!r}.")

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class OmniConfig(EncoderConfig):
    """Audio tower of Qwen2.5-Omni. A chunk is 2 * `half_chunk` mel frames; nothing attends across chunks."""

    half_chunk: int = 100
    output_width: int = 3584
    max_seconds: float = 30.0

    @property
    def front_end(self) -> MelFrontEnd:
        return MelFrontEnd(2 * self.half_chunk, windowed=False, normalize=self.normalize, max_seconds=self.max_seconds)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], **ours) -> "OmniConfig":
        """From a config.json of Qwen2.5-Omni, of its thinker, or of the audio tower alone.

        `ours` sets the fields that file does not know: dtypes, normalize, max_seconds.
        """
        found = _audio_part(config, ("thinker_config", "audio_config"), "qwen2_5_omni_audio_encoder")
        names = {
            "num_layers": "encoder_layers",
            "width": "d_model",
            "num_heads": "encoder_attention_heads",
            "mlp_dim": "encoder_ffn_dim",
            "half_chunk": "n_window",
            "output_width": "output_dim",
        }
        return cls(**_sizes(found, names), **ours)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AFWhisperConfig(EncoderConfig):
    """AF-Whisper, the encoder of Audio Flamingo 3. A window is 2 * `num_positions` mel frames (30 s)."""

    num_positions: int = 1500

    def __post_init__(self):
        super().__post_init__()
        if self.num_positions % 2:
            raise UserError(f"model.audio_encoder.num_positions must be even, got {self.num_positions}.")

    @property
    def output_width(self) -> int:
        return self.width

    @property
    def front_end(self) -> MelFrontEnd:
        return MelFrontEnd(
            2 * self.num_positions, windowed=True, normalize=self.normalize, max_seconds=self.max_seconds
        )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], **ours) -> "AFWhisperConfig":
        """From a config.json of Audio Flamingo 3, or of its audio tower alone.

        `ours` sets the fields that file does not know: dtypes, normalize, max_seconds.
        """
        found = _audio_part(config, ("audio_config",), "audioflamingo3_encoder")
        names = {
            "num_layers": "num_hidden_layers",
            "width": "hidden_size",
            "num_heads": "num_attention_heads",
            "mlp_dim": "intermediate_size",
            "num_positions": "max_source_positions",
        }
        return cls(**_sizes(found, names), **ours)


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """`settings.json` in an encoder's folder: what Hugging Face's config.json beside it does not say.

    Fields as in `EncoderConfig`; None leaves its default. Whoever hears with the encoder, training or generating, takes
    them from here and nowhere else.
    """

    normalize: bool | None = None
    max_seconds: float | None = None
    compute_dtype: str | None = None


def read_settings(directory: pathlib.Path) -> dict[str, Any]:
    """The settings in an encoder's folder that are not left to their defaults, for `from_hf`.

    Raises UserError where settings.json is damaged or has other fields.
    """
    path = directory / "settings.json"
    if not path.is_file():
        return _settings_of_0_1(directory)
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); mend it, or remove it for the defaults.") from None
    settings = from_mapping(EncoderSettings, values, str(path))
    return {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}


def _settings_of_0_1(directory: pathlib.Path) -> dict[str, Any]:
    """Version 0.1 kept them in the configuration of a run, whose folder is the one above."""
    try:
        data = json.loads((directory.parent / "config.json").read_text())["data"]
        found = {"normalize": data["normalize_clips"]}
        if data["audio_encoder"] == "omni":
            found["max_seconds"] = data["window_frames"] / 100
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _audio_part(config: Mapping[str, Any], nesting: tuple[str, ...], model_type: str) -> Mapping[str, Any]:
    """The audio tower's own section: `config` itself, or what lies under the keys of `nesting`."""
    for key in nesting:
        config = config.get(key, config)
    if config.get("model_type") != model_type:
        raise UserError(
            f"audio encoder config: expected a section with model_type {model_type!r} at the top or under "
            f"{'.'.join(nesting)}, got model_type {config.get('model_type')!r}."
        )
    for key, expected in (("activation_function", "gelu"), ("num_mel_bins", MEL_BINS)):
        if config.get(key, expected) != expected:
            raise UserError(f"audio encoder config: {key} must be {expected!r}, got {config[key]!r}.")
    return config


def _sizes(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, int]:
    """Our fields from theirs. A field the file leaves out has Hugging Face's default, which is ours too."""
    return {ours: config[theirs] for ours, theirs in names.items() if theirs in config}
