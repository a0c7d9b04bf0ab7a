"""Options of each part of `ualm bench`; apart from the parts, which import JAX, so that help is instant."""

from ualm_jax.bench.sizes import SIZES
from ualm_jax.cli.arguments import Parser, add_device_arguments, integer, number
from ualm_jax.models.config import ATTENTION, DECODE_ATTENTION, DTYPES, LAYER_PRODUCTS, REMAT_POLICIES

_count = integer(at_least=1)


def _documents(value: str) -> str:
    return value if value == "mixture" else str(_count(value))


def machine(parser: Parser) -> None:
    """None: what a device can do depends on nothing else."""


def train(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("--rows", type=_count, default=4, help="rows of the batch (default %(default)s)")
    parser.add_argument("--length", type=_count, default=512, help="positions of a row (default %(default)s)")
    parser.add_argument("--documents", type=_count, default=1, help="packed into a row (default %(default)s)")
    parser.add_argument("--remat", choices=REMAT_POLICIES, default="none", help="policy (default %(default)s)")
    parser.add_argument("--unroll", action="store_true", help="the layers one after the other instead of a loop")
    parser.add_argument(
        "--products",
        choices=LAYER_PRODUCTS,
        default=LAYER_PRODUCTS[0],
        help="what layers multiply: numbers of --dtype, or of 8 bits (default %(default)s)",
    )
    parser.add_argument(
        "--params", choices=DTYPES, default="float32", help="of parameters and moments (default %(default)s)"
    )
    parser.add_argument("--steps", type=_count, default=20, help="counted steps (default %(default)s)")


def decode(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("--batch", type=_count, nargs="+", default=[1], help="prompts at once (default 1)")
    parser.add_argument(
        "--prompt", type=integer(at_least=6), default=64, help="positions of a prompt (default %(default)s)"
    )
    parser.add_argument("--steps", type=_count, default=128, help="of a run after its prompt (default %(default)s)")
    parser.add_argument("--repeats", type=_count, default=5, help="counted runs (default %(default)s)")
    parser.add_argument("--int8", action="store_true", help="ours with 8-bit layers, as `ualm generate --int8`")
    parser.add_argument(
        "--decode-attention", choices=DECODE_ATTENTION, default="xla", help="of a step (default %(default)s)"
    )


def serve(parser: Parser) -> None:
    _add_model(parser, against=False)
    parser.set_defaults(against=None)
    parser.add_argument(
        "--concurrency", type=_count, nargs="+", default=[1, 8, 16, 32, 64], help="listeners (default 1 8 16 32 64)"
    )
    parser.add_argument("--requests", type=_count, default=32, help="least sounds of each (default %(default)s)")
    parser.add_argument("--slots", type=_count, default=16, help="of the job and of a batch (default %(default)s)")
    parser.add_argument("--prompts", type=_count, default=512, help="of the job (default %(default)s)")
    parser.add_argument("--int8", action="store_true", help="with 8-bit layers, as `ualm generate --int8`")


def attention(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("--rows", type=_count, default=4, help="rows of the batch (default %(default)s)")
    parser.add_argument("--length", type=_count, default=512, help="positions of a row (default %(default)s)")
    parser.add_argument(
        "--documents",
        type=_documents,
        nargs="+",
        default=["4"],
        metavar="N",
        help='packed into a row, of one length, or "mixture": of lengths as they come (default 4)',
    )
    parser.add_argument("--repeats", type=_count, default=20, help="counted runs (default %(default)s)")


def loss(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("--rows", type=_count, default=4, help="rows of the batch (default %(default)s)")
    parser.add_argument("--length", type=_count, default=512, help="positions of a row (default %(default)s)")
    parser.add_argument("--repeats", type=_count, default=5, help="counted runs (default %(default)s)")


def data(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("--workers", type=_count, default=2, help="processes that load (default %(default)s)")
    parser.add_argument("--records", type=_count, default=16_384, help="of the dataset made (default %(default)s)")
    parser.add_argument("--rows", type=_count, default=400, help="counted in a round (default %(default)s)")
    parser.add_argument("--steps", type=_count, default=5, help="counted rounds (default %(default)s)")
    parser.add_argument(
        "--step-rows", type=_count, default=1, help="in the training step's batch (default %(default)s)"
    )
    parser.add_argument(
        "--read", type=integer(at_least=10), default=200_000, help="records read to see memory (default %(default)s)"
    )
    parser.add_argument("--index", type=_count, default=30_000_000, help="of the large index (default %(default)s)")


def codec(parser: Parser) -> None:
    parser.add_argument(
        "--training",
        nargs="?",
        type=_codec_config,
        const="configs/codec_small.py",
        metavar="FILE",
        help="time the steps that train a codec of this config (default configs/codec_small.py) instead",
    )
    parser.add_argument(
        "--against", choices=("torch",), help="the same work in PyTorch, from the same weights, in turn"
    )
    parser.add_argument(
        "--seconds",
        type=number(at_least=0.1, at_most=600),
        help="of each clip (default 10, of a training step the config's)",
    )
    parser.add_argument(
        "--batch", type=_count, nargs="+", help="clips at once (default 1 8, of a training step the config's)"
    )
    parser.add_argument("--repeats", type=_count, default=5, help="counted rounds (default %(default)s)")


def end_to_end(parser: Parser) -> None:
    parser.add_argument("--count", type=_count, default=48, help="sounds to learn from (default %(default)s)")
    parser.add_argument("--steps", type=integer(at_least=4), default=100, help="of training (default %(default)s)")


def _codec_config(path: str):
    """The `CodecRunConfig` of a config file."""
    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.train.codec_config import CodecRunConfig

    return from_mapping(CodecRunConfig, load_config(path, []).to_dict())


def _add_model(parser: Parser, against: bool = True) -> None:
    """The model, its numbers, and the devices it runs on."""
    parser.add_argument("--size", choices=tuple(SIZES), default="tiny", help="of the model (default %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the computation (default %(default)s)")
    parser.add_argument("--attention", choices=ATTENTION, default="auto", help="backend (default %(default)s)")
    parser.add_argument("--mesh", default="", metavar="AXIS=N,...", help="such as data=2,fsdp=4; data takes the rest")
    add_device_arguments(parser, distributed=False)
    if against:
        parser.add_argument("--against", choices=("torch",), help="the same work in PyTorch, in turn")
