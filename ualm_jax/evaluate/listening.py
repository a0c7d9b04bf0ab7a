"""A model that listens as the judge of sounds: how sure it is that they hold what they should."""

import os
from collections.abc import Sequence

import jax
import numpy as np
from scipy.special import expit

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip
from ualm_jax.generate.parts import Parts
from ualm_jax.generate.score import score
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Role
from ualm_jax.weights.audio_tower import load_encoder
from ualm_jax.weights.opener import open_weights

QUESTION = "Does this audio contain the sound events described by the text: {caption}? Please only answer yes or no."
"""The question of Resonate (arXiv 2603.11661), which takes the answers as rewards in online preference learning."""


class ListeningJudge:
    """A scorer of clips (generate/scorers.py): the probability of "yes", where "yes" and "no" are all it can say.

    It is sigmoid(log P(yes) - log P(no)) of the two whole answers, their ends included, so nothing is drawn.

    parts: model, encoder and tokenizer. question: {caption} is filled in.
    """

    def __init__(self, parts: Parts, question: str = QUESTION):
        for name in ("model", "encoder", "tokenizer"):
            parts.part(name)
        self.parts, self._question = parts, question

    def __call__(self, prompt: str, clip: Clip) -> float:
        return self.batch([prompt], [clip])[0]

    def batch(self, prompts: Sequence[str], clips: Sequence[Clip]) -> list[float]:
        parts, answers = self.parts, ("yes", "no")
        conversations, heard = [], []
        for prompt, clip in zip(prompts, clips, strict=True):
            question = parts.text_message(self._question.format(caption=prompt))
            sound, features = parts.sound_message(clip)
            for answer in answers:
                conversations.append((question, sound, parts.text_message(answer, Role.ASSISTANT)))
                heard.append(features)
        with jax.set_mesh(parts.mesh):
            found = score(parts.model, conversations, heard=heard, encoder=parts.encoder)
        vocabulary = parts.model.architecture.vocabulary
        weights = [build_grid(messages, vocabulary).loss_weights for messages in conversations]
        sums = [float(np.sum(x * w, dtype=np.float64)) for x, w in zip(found, weights, strict=True)]
        return [float(expit(yes - no)) for yes, no in zip(sums[::2], sums[1::2], strict=True)]


def opened(path: str | os.PathLike) -> ListeningJudge:
    """The judge of a run that listens, or of a converted checkpoint with an encoder, on the current mesh; of several
    processes, where the first one judges by itself, on one of its own devices.

    Raises UserError where a part is missing.
    """
    weights = open_weights(path)
    missing = [name for name in ("encoder", "tokenizer") if name not in weights.parts]
    missing += ["language model"] if weights.architecture is None else []
    if missing:
        raise UserError(f"judge:{path} has no {' and no '.join(missing)}; name a model that listens.")
    current = jax.sharding.get_mesh()
    alone = current.empty or jax.process_count() > 1
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1]) if alone else current
    with jax.set_mesh(mesh):
        encoder = load_encoder(weights.parts["encoder"])
        tokenizer = load_tokenizer(weights.parts["tokenizer"])
        return ListeningJudge(Parts(mesh=mesh, model=weights.load_model(mesh), encoder=encoder, tokenizer=tokenizer))
