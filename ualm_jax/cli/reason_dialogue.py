"""`ualm reason dialogue`: see reason.py."""

import functools

from ualm_jax.cli.reason import think

main = functools.partial(think, "dialogue")
