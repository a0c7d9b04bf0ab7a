"""`ualm VERB ...`: finds the verb's module and runs it. Imports nothing heavy, so that help is instant."""

import importlib
import logging
import sys

import ualm_jax
from ualm_jax.errors import UserError

VERBS = {
    "data prepare": ("ualm_jax.cli.data_prepare", "texts, sounds and dialogues to shards of tokens"),
    "data tokenize": ("ualm_jax.cli.data_tokenize", "sounds of a dataset to codes, on every device of every host"),
    "data inspect": ("ualm_jax.cli.data_inspect", "what a dataset holds: counts, lengths, examples, packed rows"),
    "convert": ("ualm_jax.cli.convert", "foreign weights in and out, and the proof of a conversion"),
    "train": ("ualm_jax.cli.train", "train a model, or go on where a run stopped"),
    "compile": ("ualm_jax.cli.compile", "does a run fit machines that are not here, and how fast can it be?"),
    "bench": ("ualm_jax.cli.bench", "how fast the parts are on this machine"),
    "env": ("ualm_jax.cli.env", "versions, devices, and the settings that apply here"),
    "generate": ("ualm_jax.cli.generate", "sound from a caption"),
}


def main() -> int:
    """Entry point. What the user can mend is one sentence on stderr and exit status 1."""
    return run(sys.argv[1:])


def run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"ualm {ualm_jax.__version__}")
        return 0
    verb = _find(argv)
    if verb is None:
        print(f"ualm: there is no verb {argv[0]!r}; `ualm --help` lists them.", file=sys.stderr)
        return 2
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING)
    logging.getLogger("ualm_jax").setLevel(logging.INFO)
    module = importlib.import_module(VERBS[verb][0])
    try:
        return module.main(argv[len(verb.split()) :])
    except UserError as error:
        print(f"ualm {verb}: {error}", file=sys.stderr)
        return 1


def _find(argv: list[str]) -> str | None:
    for words in (2, 1):
        verb = " ".join(argv[:words])
        if verb in VERBS:
            return verb
    return None


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  ualm {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "UALM in JAX: one language model that understands and makes audio.",
            "",
            *lines,
            "",
            "`ualm VERB --help` explains a verb.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
