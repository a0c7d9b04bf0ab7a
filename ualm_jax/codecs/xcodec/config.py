"""The shape of an X-codec, as `config.json` of an HF directory states it."""

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from ualm_jax.errors import UserError

# What the code computes; an HF config may ask for something else, and then it is refused.
_HUBERT_FIXED = {
    "model_type": "hubert",
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "feat_proj_layer_norm": True,
    "conv_bias": False,
    "conv_pos_batch_norm": False,
    "do_stable_layer_norm": False,
}
_DAC_FIXED = {"model_type": "dac"}
_XCODEC = "xcodec"
_FACTORIZED = "xcodec_factorized"  # a name of its own: HF's X-codec has no such codes and is not to open it
MODEL_TYPES = (_XCODEC, _FACTORIZED)


@dataclass(frozen=True)
class HubertConfig:
    """HuBERT, the semantic feature extractor. Field names and defaults are those of HF's `HubertConfig`."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-5
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16

    def __post_init__(self):
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel):
            raise UserError(
                f"semantic_model_config: conv_dim, conv_stride and conv_kernel must be equally long, found "
                f"{len(self.conv_dim)}, {len(self.conv_stride)} and {len(self.conv_kernel)} entries"
            )
        for divisor in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, divisor):
                raise UserError(
                    f"semantic_model_config: hidden_size {self.hidden_size} must be a multiple of {divisor} "
                    f"{getattr(self, divisor)}"
                )


@dataclass(frozen=True)
class DacConfig:
    """The DAC encoder and decoder. Names are those of HF's `DacConfig`, defaults those X-codec gives it."""

    encoder_hidden_size: int = 64
    downsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)
    hidden_size: int = 256
    decoder_hidden_size: int = 1024
    upsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)

    def __post_init__(self):
        if math.prod(self.downsampling_ratios) != math.prod(self.upsampling_ratios):
            raise UserError(
                f"acoustic_model_config: downsampling_ratios {self.downsampling_ratios} and "
                f"upsampling_ratios {self.upsampling_ratios} must have one product, or sound would change its length"
            )
        if self.decoder_hidden_size % 2 ** len(self.upsampling_ratios):
            raise UserError(
                f"acoustic_model_config: decoder_hidden_size {self.decoder_hidden_size} is halved at each of "
                f"{len(self.upsampling_ratios)} upsampling steps and must be divisible that often"
            )


@dataclass(frozen=True)
class XCodecConfig:
    """The whole codec. Names and defaults are those of HF's `XcodecConfig`, as `hf-audio/xcodec-hubert-general`.

    codebook_dim: numbers of a codeword where codes are factorised (`rvq`); None for codewords as wide as what is
        quantised, which alone are HF's.
    """

    sample_rate: int = 16000
    target_bandwidths: tuple[int | float, ...] = (0.5, 1, 1.5, 2, 4)  # kbit/s
    codebook_size: int = 1024
    codebook_dim: int | None = field(default=None, repr=False)  # fingerprints of codecs without it stay as they were
    kernel_size: int = 3
    unit_kernel_size: int = 3
    block_dilations: tuple[int, ...] = (1, 1)
    channel_ratios: tuple[int, ...] = (1, 1)
    strides: tuple[int, ...] = (1, 1)
    acoustic: DacConfig = field(default_factory=DacConfig)
    semantic: HubertConfig = field(default_factory=HubertConfig)

    def __post_init__(self):
        if set(self.channel_ratios) != {1} or set(self.strides) != {1} or len(self.channel_ratios) != len(self.strides):
            raise UserError(
                f"config: the semantic encoder must keep width and rate (channel_ratios and strides all 1, "
                f"equally many), found {self.channel_ratios} and {self.strides}"
            )
        if self.hop % 2 or math.prod(self.semantic.conv_stride) != self.hop:
            raise UserError(
                f"config: acoustic and semantic hops must be one even number of samples, found {self.hop} "
                f"and {math.prod(self.semantic.conv_stride)}"
            )
        if not self.target_bandwidths or self.target_bandwidths[-1] != max(self.target_bandwidths):
            raise UserError(f"config: target_bandwidths must end with the largest, found {self.target_bandwidths}")
        if self.num_quantizers < 1:
            raise UserError(
                f"config: bandwidth {self.target_bandwidths[-1]} kbit/s is too small for one codebook of "
                f"{self.codebook_size}"
            )
        if self.codebook_dim is not None and not 2 <= self.codebook_dim <= self.hidden_size:
            raise UserError(
                f"config: codebook_dim must be 2 to {self.hidden_size}, the width that is quantised, found "
                f"{self.codebook_dim}"
            )

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.acoustic.downsampling_ratios)

    @property
    def frame_rate(self) -> int:
        """Frames per second, rounded up as HF does."""
        return math.ceil(self.sample_rate / self.hop)

    @property
    def hidden_size(self) -> int:
        """Width of the vectors that are quantised: acoustic and semantic features side by side."""
        return self.acoustic.hidden_size + self.semantic.hidden_size

    @property
    def num_quantizers(self) -> int:
        """Codebooks that the largest bandwidth pays for (HF `XcodecConfig.num_quantizers`)."""
        bits = math.ceil(math.log2(self.codebook_size))
        return int(1000 * self.target_bandwidths[-1] // (self.frame_rate * bits))


def bandwidths(num_quantizers: int, codebook_size: int, hop: int, sample_rate: int = 16000) -> tuple[float, ...]:
    """`target_bandwidths` of a codec with that many codebooks: what 1, 2, ... of them take, in kbit/s.

    `transformers` divides by what one codebook takes and drops the remainder, so each is the smallest number that gives
    back its count of codebooks.
    """
    each = math.ceil(math.log2(codebook_size)) * math.ceil(sample_rate / hop) / 1000
    found = []
    for number in range(1, num_quantizers + 1):
        bandwidth = number * each
        while bandwidth / each < number or 1000 * bandwidth // (1000 * each) < number:
            bandwidth = math.nextafter(bandwidth, math.inf)
        found.append(bandwidth)
    return tuple(found)


def read_config(path: Path) -> XCodecConfig:
    """Read an HF `config.json`. Absent fields take HF's defaults; training-only fields are ignored.

    Raises UserError when the file is missing, is no JSON, or describes a codec this code does not compute.
    """
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: expected the config.json of an HF X-codec directory, found no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found a file that does not parse ({error})") from None
    if not isinstance(raw, dict) or "model_type" not in raw:
        raise UserError(f"{path}: expected the configuration of an X-codec, with its model_type, found another one")
    kind = _FACTORIZED if raw["model_type"] == _FACTORIZED else _XCODEC
    width = raw.get("codebook_dim")
    if kind == _XCODEC:
        raw = {name: value for name, value in raw.items() if name != "codebook_dim"}
    try:
        config = _from_hf(
            XCodecConfig,
            raw,
            {"model_type": kind},
            acoustic=_from_hf(DacConfig, raw.get("acoustic_model_config") or {}, _DAC_FIXED),
            semantic=_from_hf(HubertConfig, raw.get("semantic_model_config") or {}, _HUBERT_FIXED),
        )
        if kind == _XCODEC and width not in (None, config.hidden_size):
            raise UserError(f"codebook_dim must be {config.hidden_size}, found {width}")
        if kind == _FACTORIZED and width is None:
            raise UserError("codebook_dim must be the numbers of a codeword, found none")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def write_config(config: XCodecConfig, path: Path) -> None:
    """Write the `config.json` that `read_config` reads, and `transformers` where codes are not factorised."""
    if config.codebook_dim is None:
        kind = {"model_type": _XCODEC, "architectures": ["XcodecModel"], "codebook_dim": config.hidden_size}
    else:
        kind = {"model_type": _FACTORIZED}
    raw = _to_hf(config, kind) | {
        "acoustic_model_config": _to_hf(config.acoustic, _DAC_FIXED) | {"hop_length": config.hop},
        "semantic_model_config": _to_hf(config.semantic, _HUBERT_FIXED),
    }
    path.write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")


def _from_hf(kind: type, raw: dict, fixed: dict, **parts):
    """A `kind` from the fields of `raw`: positive numbers, or lists of them where the default is a list."""
    for name, value in fixed.items():
        if raw.get(name, value) != value:
            raise UserError(f"{name} must be {value!r}, found {raw[name]!r}")
    values = {}
    for f in fields(kind):
        if f.name in parts or f.name not in raw:
            continue
        value = raw[f.name]
        several = isinstance(f.default, tuple)
        numbers = tuple(value) if isinstance(value, list) and several else (value,)
        if not all(type(n) in (int, float) and n > 0 for n in numbers):
            raise UserError(f"{f.name} must be {'positive numbers' if several else 'positive'}, found {value!r}")
        values[f.name] = numbers if several else value
    return kind(**values, **parts)


def _to_hf(config, fixed: dict) -> dict:
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in ("acoustic", "semantic")}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()} | fixed
