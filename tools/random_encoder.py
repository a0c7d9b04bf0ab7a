#!/usr/bin/env python3
"""A tiny audio encoder with random weights, to try a model that listens: what it makes of a sound is a fixed random
mixture of the spectrogram, from which the adapter can learn.

python tools/random_encoder.py --out weights/tiny-encoder
"""

import json
import sys

import numpy as np
from safetensors.numpy import save_file

from ualm_jax.cli.arguments import Parser, integer, output_directory
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder import OmniConfig
from ualm_jax.outputs import check_new_folder
from ualm_jax.weights.audio_tower import encoder_shapes

CONFIG = {
    "model_type": "qwen2_5_omni_audio_encoder",
    "encoder_layers": 2,
    "d_model": 64,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "n_window": 100,
    "output_dim": 64,
}


def main() -> None:
    parser = Parser("random_encoder.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--seed", type=integer(at_least=0), default=0, help="default %(default)s")
    args = parser.parse_args()
    try:
        out = check_new_folder(args.out)
    except UserError as error:
        sys.exit(f"random_encoder.py: {error}")
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    shapes = encoder_shapes(OmniConfig.from_hf(CONFIG))
    save_file({name: tensor(rng, name, shape) for name, shape in shapes.items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (out / "settings.json").write_text(json.dumps({"compute_dtype": "float32"}) + "\n")
    print(f"{out}: features of width {CONFIG['output_dim']}, for model.feature_width")


def tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels [out, in, ...] keep the variance of what they are given; norms and biases do nothing."""
    if len(shape) > 1:
        return rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
    return np.full(shape, 1.0 if "norm.weight" in name or name == "ln_post.weight" else 0.0, np.float32)


if __name__ == "__main__":
    main()
