#!/usr/bin/env python3
"""Makes an audio encoder with random weights, to try a model that listens or to train an encoder (docs/train.md, "An
encoder of one's own"). Left as it is, it is a fixed random mixture of a spectrogram, from which an adapter learns.

python tools/random_encoder.py --out weights/tiny-encoder
python tools/random_encoder.py --out weights/small-encoder --layers 4 --width 128 --mlp-dim 512 --max-seconds 10
"""

import json
import sys

import numpy as np
from safetensors.numpy import save_file

from ualm_jax.cli.arguments import Parser, integer, number, output_directory
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder import OmniConfig
from ualm_jax.outputs import check_new_folder
from ualm_jax.weights.audio_tower import encoder_shapes


def main() -> None:
    parser = Parser("random_encoder.py", description=__doc__)
    parser.add_argument("--out", type=output_directory, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--seed", type=integer(at_least=0), default=0, help="default %(default)s")
    for name, default, what in (
        ("layers", 2, "transformer layers"),
        ("width", 64, "of the layers and of the features, a multiple of --heads"),
        ("heads", 4, "attention heads"),
        ("mlp-dim", 128, "width inside an MLP"),
    ):
        parser.add_argument(f"--{name}", type=integer(at_least=1), default=default, help=f"{what}; default %(default)s")
    parser.add_argument(
        "--max-seconds",
        type=number(above=0, at_most=600),
        default=30.0,
        help="longest clip that it hears; batches hold windows of this length; default %(default)g",
    )
    parser.add_argument(
        "--no-normalize", action="store_true", help="hear clips as they are; default: with zero mean and unit variance"
    )
    args = parser.parse_args()
    config = {
        "model_type": "qwen2_5_omni_audio_encoder",
        "encoder_layers": args.layers,
        "d_model": args.width,
        "encoder_attention_heads": args.heads,
        "encoder_ffn_dim": args.mlp_dim,
        "n_window": 100,
        "output_dim": args.width,
    }
    settings = {"normalize": not args.no_normalize, "max_seconds": args.max_seconds, "compute_dtype": "float32"}
    try:
        out = check_new_folder(args.out)
        shapes = encoder_shapes(OmniConfig.from_hf(config, **settings))
    except UserError as error:
        sys.exit(f"random_encoder.py: {error}")
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    save_file({name: tensor(rng, name, shape) for name, shape in shapes.items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "settings.json").write_text(json.dumps(settings) + "\n")
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    print(f"{out}: {count:,} parameters, features of width {args.width}, for model.feature_width")


def tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels [out, in, ...] keep the variance of what they are given; norms and biases do nothing."""
    if len(shape) > 1:
        return rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
    return np.full(shape, 1.0 if "norm.weight" in name or name == "ln_post.weight" else 0.0, np.float32)


if __name__ == "__main__":
    main()
