"""The X-codec's network while it learns: what is trained, how it begins, and the whole codec that comes of it.

The semantic branch of X-codec learns where the codec has one; the HuBERT that it hears with does not. A codec without
keeps the layout of X-codec all the same: it is stored with the smallest HuBERT there is, whose features have the weight
zero (`NO_SEMANTICS`), and learns without computing that.

Linear ends: the layers at the sample rate cost more than all others together and narrow ones run badly on CPUs. Where
`linear_ends` is set they hold no snake and no residual unit, so that the first convolution and the first strided one
are one linear map, and the last two likewise. Those maps are trained as they are; the layout's layers that
compute the same (a delta, residual units of zero, snakes with alpha 0) are written when the codec is stored.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ualm_jax.codecs.xcodec import dac, network
from ualm_jax.codecs.xcodec.config import HubertConfig, XCodecConfig
from ualm_jax.codecs.xcodec.hubert import hubert_mean
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.layers import linear

SMALLEST_ALPHA = 1e-3  # of snakes that learn: they divide by it

NO_SEMANTICS = HubertConfig(
    hidden_size=1,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=1,
    conv_dim=(1,) * 7,
    num_conv_pos_embeddings=2,
    num_conv_pos_embedding_groups=1,
)


@dataclasses.dataclass(frozen=True)
class Trainable:
    """Which parts of a codec of this `config` are trained, and how they are computed.

    linear_ends: of a codec without a semantic branch.
    """

    config: XCodecConfig
    linear_ends: bool

    @property
    def semantic(self) -> bool:
        """Whether the codec has a semantic branch."""
        return self.config.semantic != NO_SEMANTICS

    def hear(self, hubert: dict, wav: Float[Array, "B N"]) -> Float[Array, "B T S"]:
        """What HuBERT hears in waveforms of whole frames, as `XCodec.encode` pads them."""
        half = self.config.hop // 2
        padded = jnp.pad(wav, ((0, 0), (half, half)))
        return hubert_mean(hubert, self.config.semantic, padded, jnp.full(len(wav), padded.shape[1]))

    def vectors(
        self, params: dict, wav: Float[Array, "B N"], heard: Float[Array, "B T S"] | None = None
    ) -> Float[Array, "B T D"]:
        """What is quantised, of waveforms of whole frames. heard: see `hear`; None without a semantic branch."""
        features = dac.encode(params["acoustic_encoder"], self.config.acoustic, wav, None)
        if heard is not None:
            semantic = network.semantic_encoder(params["semantic_encoder"], self.config, heard, None)
            features = jnp.concatenate([features, semantic], axis=-1)
        return linear(features, **params["fc"])

    def heard_again(self, params: dict, vectors: Float[Array, "B T D"]) -> Float[Array, "B T S"]:
        """An estimate of HuBERT's features from the quantised `vectors`."""
        return network.semantic_decoder(params["semantic_decoder"], self.config, linear(vectors, **params["fc1"]))

    def waveform(self, params: dict, vectors: Float[Array, "B T D"]) -> Float[Array, "B N"]:
        """The inverse of `vectors`, as far as it is learnt."""
        return network.waveform(params, self.config, vectors, None)

    def with_alphas(self, params: dict, change: Callable[[Array], Array]) -> dict:
        """`params` with the alphas of its snakes changed."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: change(leaf) if "alpha" in jax.tree_util.keystr(path[-1:]) else leaf, params
        )

    def narrowed(self, full: dict) -> dict:
        """What is trained, of a whole codec's `params`; the inverse of `widened` where nothing is lost."""
        params = {name: full[name] for name in ("acoustic_encoder", "acoustic_decoder", "fc", "fc2")}
        if "projections" in full:
            params["projections"] = full["projections"]
        if self.semantic:
            return params | {name: full[name] for name in ("semantic_encoder", "semantic_decoder", "fc1")}
        width = self.config.acoustic.hidden_size
        params["fc"] = params["fc"] | {"kernel": params["fc"]["kernel"][:width]}
        if self.linear_ends:
            encoder, decoder = params["acoustic_encoder"], params["acoustic_decoder"]
            down, up = encoder["blocks"][0]["down"], decoder["blocks"][-1]["up"]
            params["acoustic_encoder"] = encoder | {
                "first": {"kernel": down["kernel"][:, :1], "bias": down["bias"]},
                "blocks": encoder["blocks"][1:],
            }
            params["acoustic_decoder"] = decoder | {
                "blocks": decoder["blocks"][:-1],
                "alpha": decoder["blocks"][-1]["alpha"],
                "last": {"kernel": up["kernel"][:, :, :1], "bias": up["bias"][:1]},
            }
        return params

    def widened(
        self,
        params: dict,
        codebooks: Float[Array, "Q V d"] | Float[np.ndarray, "Q V d"],
        hubert: dict | None = None,
    ) -> dict:
        """The whole codec, as `weights.save_directory` stores it. hubert: of a codec with a semantic branch."""
        trained = jax.tree.map(np.asarray, params)
        if self.semantic:
            return trained | {"codebooks": np.asarray(codebooks), "hubert": hubert}
        full = jax.tree.map(np.copy, init_random(self.config, seed=0))
        full |= {name: trained[name] for name in trained} | {"codebooks": np.asarray(codebooks)}
        missing = np.zeros((1, full["fc"]["kernel"].shape[1]), np.float32)
        full["fc"] = full["fc"] | {"kernel": np.concatenate([full["fc"]["kernel"], missing])}
        full["semantic_encoder"] = jax.tree.map(np.zeros_like, full["semantic_encoder"])
        if self.linear_ends:
            blank = init_random(self.config, seed=0)
            full["acoustic_encoder"] = _linear_beginning(blank["acoustic_encoder"], trained["acoustic_encoder"])
            full["acoustic_decoder"] = _linear_end(blank["acoustic_decoder"], trained["acoustic_decoder"])
        return full


def _linear_beginning(blank: dict, trained: dict) -> dict:
    """The layers whose product is the encoder's linear map: only their first channel carries sound."""
    blank = jax.tree.map(np.zeros_like, blank)
    blank["first"]["kernel"][3, 0, 0] = 1.0
    block = blank["blocks"][0]
    block["down"]["kernel"][:, :1] = trained["first"]["kernel"]
    block["down"]["bias"][:] = trained["first"]["bias"]
    return trained | {"first": blank["first"], "blocks": [block, *trained["blocks"]]}


def _linear_end(blank: dict, trained: dict) -> dict:
    blank = jax.tree.map(np.zeros_like, blank)
    block = blank["blocks"][-1] | {"alpha": trained["alpha"]}
    block["up"]["kernel"][:, :, :1] = trained["last"]["kernel"]
    block["up"]["bias"][:1] = trained["last"]["bias"]
    blank["last"]["kernel"][3, 0, 0] = 1.0
    return trained | {"blocks": [*trained["blocks"], block], "alpha": blank["alpha"], "last": blank["last"]}
