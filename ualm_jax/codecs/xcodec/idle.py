"""Layers of a codec that change nothing are not computed.

A codec trained here stores identities where the layout wants layers that it does not have (`trainable.py`): residual
units that add zero, at the rate of samples where they cost most, and a semantic branch that is multiplied by zero.
Leaving them out gives the same numbers: what is added is exactly zero.
"""

import jax
import numpy as np


def without_idle(params: dict) -> dict:
    """`params` with None in the place of residual units and of the semantic branch where they add zero."""
    params = dict(params)
    for part in ("acoustic_encoder", "acoustic_decoder"):
        blocks = [block | {"units": [_kept(unit) for unit in block["units"]]} for block in params[part]["blocks"]]
        params[part] = params[part] | {"blocks": blocks}
    features = params["acoustic_encoder"]["last"]["kernel"].shape[-1]
    if not np.any(params["fc"]["kernel"][features:]):
        params |= {"hubert": None, "semantic_encoder": None}
    return params


def _kept(unit: dict | None) -> dict | None:
    return unit if unit is not None and any(np.any(leaf) for leaf in jax.tree.leaves(unit["conv_2"])) else None
