"""Every tensor of an X-codec: where it sits in `params`, how HF names and shapes it.

One tree, read by the loader, the writer and the random initialiser. The semantic decoder, which only training uses,
is part of it on request.
"""

from dataclasses import dataclass

from ualm_jax.codecs.xcodec.config import DacConfig, HubertConfig, XCodecConfig
from ualm_jax.codecs.xcodec.dac import UNIT_KERNEL


@dataclass(frozen=True)
class Tensor:
    """A leaf of the tree.

    name: HF's name. With `count`, "{}" in it is the index of one of `count` tensors, stacked here on a new
        first axis.
    shape: HF's shape (of one of them).
    axes: our axis i is HF's axis axes[i].
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    count: int | None = None

    @property
    def names(self) -> list[str]:
        return [self.name] if self.count is None else [self.name.format(i) for i in range(self.count)]


# Tensors that HF stores and that are never read here.
UNUSED = (
    r"semantic_model\.masked_spec_embed",
    r"quantizer\.quantizers\.\d+\.codebook\.(inited|cluster_size|embed_avg)",
)
# Those that encoding and decoding never read.
SEMANTIC_DECODER = (r"decoder_semantic\..*", r"fc1\..*")


def specification(config: XCodecConfig, semantic_decoder: bool = False) -> dict:
    """The tree of `Tensor`s, in the structure of `params`."""
    tree = _coding(config)
    if semantic_decoder:
        tree |= {
            "fc1": _linear("fc1", config.hidden_size, config.semantic.hidden_size),
            "semantic_decoder": _semantic_decoder(config),
        }
    return tree


def _coding(config: XCodecConfig) -> dict:
    acoustic, semantic, width = config.acoustic, config.semantic, config.hidden_size
    return {
        "hubert": _hubert(semantic),
        "semantic_encoder": _semantic_encoder(config),
        "acoustic_encoder": _acoustic_encoder(acoustic),
        "fc": _linear("fc", width, width),
        **_quantizer(config),
        "fc2": _linear("fc2", width, acoustic.hidden_size),
        "acoustic_decoder": _acoustic_decoder(acoustic),
    }


def _quantizer(config: XCodecConfig) -> dict:
    """As HF's X-codec has it; of factorised codes as its DAC does, whose kernels have one tap more."""
    root, books = "quantizer.quantizers.{}", config.num_quantizers
    width, numbers = config.hidden_size, config.codebook_dim
    if numbers is None:
        return {"codebooks": Tensor(f"{root}.codebook.embed", (config.codebook_size, width), (0, 1), books)}
    return {
        "codebooks": Tensor(f"{root}.codebook.weight", (config.codebook_size, numbers), (0, 1), books),
        "projections": {
            "in_proj": _linear(f"{root}.in_proj", width, numbers, books),
            "out_proj": _linear(f"{root}.out_proj", numbers, width, books),
        },
    }


def _kernel(name: str, out_width: int, in_width: int, taps: int) -> Tensor:
    return Tensor(f"{name}.weight", (out_width, in_width, taps), (2, 1, 0))


def _conv(name: str, out_width: int, in_width: int, taps: int) -> dict:
    return {
        "kernel": _kernel(name, out_width, in_width, taps),
        "bias": Tensor(f"{name}.bias", (out_width,), (0,)),
    }


def _linear(name: str, in_width: int, out_width: int, count: int | None = None) -> dict:
    return {
        "kernel": Tensor(f"{name}.weight", (out_width, in_width), (1, 0), count),
        "bias": Tensor(f"{name}.bias", (out_width,), (0,), count),
    }


def _norm(name: str, width: int, count: int | None = None) -> dict:
    return {
        "scale": Tensor(f"{name}.weight", (width,), (0,), count),
        "bias": Tensor(f"{name}.bias", (width,), (0,), count),
    }


def _alpha(name: str, width: int) -> Tensor:
    return Tensor(f"{name}.alpha", (1, width, 1), (0, 2, 1))


def _hubert(config: HubertConfig) -> dict:
    root, width = "semantic_model", config.hidden_size
    features = f"{root}.feature_extractor.conv_layers"
    layer, layers = f"{root}.encoder.layers.{{}}", config.num_hidden_layers
    widths = (1, *config.conv_dim)
    groups = config.num_conv_pos_embedding_groups
    return {
        "convs": [
            _kernel(f"{features}.{i}.conv", widths[i + 1], widths[i], taps) for i, taps in enumerate(config.conv_kernel)
        ],
        "group_norm": _norm(f"{features}.0.layer_norm", widths[1]),
        "feature_norm": _norm(f"{root}.feature_projection.layer_norm", widths[-1]),
        "project": _linear(f"{root}.feature_projection.projection", widths[-1], width),
        "position": _conv(
            f"{root}.encoder.pos_conv_embed.conv", width, width // groups, config.num_conv_pos_embeddings
        ),
        "norm": _norm(f"{root}.encoder.layer_norm", width),
        "layers": {
            "query": _linear(f"{layer}.attention.q_proj", width, width, layers),
            "key": _linear(f"{layer}.attention.k_proj", width, width, layers),
            "value": _linear(f"{layer}.attention.v_proj", width, width, layers),
            "out": _linear(f"{layer}.attention.out_proj", width, width, layers),
            "attention_norm": _norm(f"{layer}.layer_norm", width, layers),
            "up": _linear(f"{layer}.feed_forward.intermediate_dense", width, config.intermediate_size, layers),
            "down": _linear(f"{layer}.feed_forward.output_dense", config.intermediate_size, width, layers),
            "output_norm": _norm(f"{layer}.final_layer_norm", width, layers),
        },
    }


def _semantic_encoder(config: XCodecConfig) -> dict:
    root, width = "encoder_semantic", config.semantic.hidden_size
    return {
        "first": {"kernel": _kernel(f"{root}.conv", width, width, config.kernel_size)},
        "blocks": _semantic_blocks(root, "last", config),
    }


def _semantic_decoder(config: XCodecConfig) -> dict:
    root, width = "decoder_semantic", config.semantic.hidden_size
    return {
        "first": {"kernel": _kernel(f"{root}.conv1", width, width, config.kernel_size)},
        "blocks": _semantic_blocks(root, "first", config),
        "last": {"kernel": _kernel(f"{root}.conv2", width, width, config.kernel_size)},
    }


def _semantic_blocks(root: str, conv: str, config: XCodecConfig) -> list[dict]:
    """conv: what to call the convolution that stands beside a block's residual units."""
    width = config.semantic.hidden_size
    return [
        {
            "units": [
                {
                    f"conv_{j}": {
                        "kernel": _kernel(f"{root}.conv_blocks.{b}.res_units.{u}.conv{j}", width, width, taps)
                    }
                    for j, taps in ((1, config.unit_kernel_size), (2, 1))
                }
                for u in range(len(config.block_dilations))
            ],
            conv: _conv(f"{root}.conv_blocks.{b}.conv", width, width, 3),
        }
        for b in range(len(config.strides))
    ]


def _acoustic_encoder(config: DacConfig) -> dict:
    root, width = "acoustic_encoder", config.encoder_hidden_size
    deepest = width * 2 ** len(config.downsampling_ratios)
    return {
        "first": _conv(f"{root}.conv1", width, 1, 7),
        "blocks": [
            {
                "units": _residual_units(f"{root}.block.{i}", width * 2**i),
                "alpha": _alpha(f"{root}.block.{i}.snake1", width * 2**i),
                "down": _conv(f"{root}.block.{i}.conv1", width * 2 ** (i + 1), width * 2**i, 2 * stride),
            }
            for i, stride in enumerate(config.downsampling_ratios)
        ],
        "alpha": _alpha(f"{root}.snake1", deepest),
        "last": _conv(f"{root}.conv2", config.hidden_size, deepest, 3),
    }


def _acoustic_decoder(config: DacConfig) -> dict:
    root, width = "acoustic_decoder", config.decoder_hidden_size

    def up(i: int, stride: int) -> dict:
        name, narrow = f"{root}.block.{i}.conv_t1", width // 2 ** (i + 1)
        kernel = Tensor(f"{name}.weight", (2 * narrow, narrow, 2 * stride), (2, 0, 1))
        return {"kernel": kernel, "bias": Tensor(f"{name}.bias", (narrow,), (0,))}

    thinnest = width // 2 ** len(config.upsampling_ratios)
    return {
        "first": _conv(f"{root}.conv1", width, config.hidden_size, 7),
        "blocks": [
            {
                "alpha": _alpha(f"{root}.block.{i}.snake1", width // 2**i),
                "up": up(i, stride),
                "units": _residual_units(f"{root}.block.{i}", width // 2 ** (i + 1)),
            }
            for i, stride in enumerate(config.upsampling_ratios)
        ],
        "alpha": _alpha(f"{root}.snake1", thinnest),
        "last": _conv(f"{root}.conv2", 1, thinnest, 7),
    }


def _residual_units(name: str, width: int) -> list[dict]:
    return [
        {
            "alpha_1": _alpha(f"{name}.res_unit{u}.snake1", width),
            "conv_1": _conv(f"{name}.res_unit{u}.conv1", width, width, UNIT_KERNEL),
            "alpha_2": _alpha(f"{name}.res_unit{u}.snake2", width),
            "conv_2": _conv(f"{name}.res_unit{u}.conv2", width, width, 1),
        }
        for u in (1, 2, 3)
    ]
