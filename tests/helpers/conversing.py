"""Short conversations with a model."""

import numpy as np

from ualm_jax.generate.session import Session

SHORT = dict(min_frames=12, max_frames=12, max_tokens=8, text_temperature=2.0)


def noise() -> np.ndarray:
    """What a user lets the model hear."""
    return np.random.default_rng(3).normal(size=9000).astype(np.float32) * 0.1


def tokens(answer) -> list:
    return (answer.ids if answer.modality == "text" else answer.codes).tolist()


def first(session: Session, modality: str, **settings):
    """The first segment of a reply; the rest of it is not waited for."""
    return next(session.reply(modality, **SHORT | settings))
