"""`ualm_jax.load`: whatever holds weights, ready to use.

The module is not called `load`, because importing a module of that name would hide the function `ualm_jax.load`.
"""

import dataclasses
import functools
import gc
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ualm_jax.buckets import Folder
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.errors import UserError
from ualm_jax.fields import Count, check_value
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.scorers import load_scorer
from ualm_jax.models.config import Architecture
from ualm_jax.models.int8 import round_layers
from ualm_jax.models.ualm import UALM
from ualm_jax.models.unstacked import take_layers_apart
from ualm_jax.parallel.compilation_cache import keep_programs
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.reason import Asked, Ended, How, Reasoning, Wish
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.weights.audio_tower import load_encoder
from ualm_jax.weights.fingerprints import codec_fingerprint, fingerprints, model_fingerprint
from ualm_jax.weights.opener import Weights, open_weights
from ualm_jax.weights.shipped import language, named

_WINDOW = 2048  # positions: 40 s of audio and a prompt


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Pretrained(Pipeline):
    """What a path held, and what can be made with it; parts that it lacks are None. Arrays lie on `mesh`.

    step: optimiser steps behind the weights of a run, 0 for others. language: what kind of captions a shipped model
    knows, such as "soundscript-2". speech: whether it was trained on any, None where that is not known.
    """

    path: Folder
    step: int = 0
    language: str | None = None
    speech: bool | None = None

    @property
    def architecture(self) -> Architecture | None:
        """The architecture of the model."""
        return None if self.model is None else self.model.architecture

    @property
    def sample_rate(self) -> int | None:
        """The sample rate of the sound that the codec makes, in Hz."""
        return None if self.codec is None else self.codec.sample_rate

    def enrich(self, prompt: str, *, plan: str | None = None, seed: int = 0, **how: Any) -> Ended:
        """A plan of what is asked for (or `plan`, a rich caption), and a sound made from it: `.best.clip`.

        how: fields of `reason.How`; what it does not have is a setting of the sounds, as of `generate`.
        Raises UserError where no sound was made; the same holds for `dialogue` and `reflect`.
        """
        return self.reason(prompt, plan=plan, seed=seed, **{"rounds": 0} | how)

    def dialogue(self, prompt: str, user: Callable[[str], str], *, seed: int = 0, **how: Any) -> Ended:
        """The model asks `user`, who answers, until it knows enough; then a plan and a sound."""
        return self.reason(prompt, user=user, seed=seed, **{"rounds": 0} | how | {"ask": True})

    def reflect(self, prompt: str, *, rounds: int = 1, plan: str | None = None, seed: int = 0, **how: Any) -> Ended:
        """A plan, a sound, what the model hears of it, its critique, and the sound again: `rounds` times at most."""
        return self.reason(prompt, plan=plan, seed=seed, rounds=rounds, **how)

    def reason(
        self,
        prompt: str,
        *,
        user: Callable[[str], str] | None = None,
        plan: str | None = None,
        seed: int = 0,
        **how: Any,
    ) -> Ended:
        """What `enrich`, `dialogue` and `reflect` are made of. `reasoning` gives its steps one by one."""
        reasoning = self.reasoning(prompt, plan=plan, seed=seed, **how)
        for event in reasoning:
            if isinstance(event, Asked) and user is not None:
                reasoning.reply(user(event.text))
        if reasoning.ended.best is None:
            raise UserError(f"No sound was made of {prompt!r}: {reasoning.ended.problem}.")
        return reasoning.ended

    def reasoning(self, prompt: str, *, plan: str | None = None, seed: int = 0, **how: Any) -> Reasoning:
        """Events to show, edit and stop (`reason.Reasoning`). judge: a scorer, or the name of one."""
        own = {field.name: how.pop(field.name) for field in dataclasses.fields(How) if field.name in how}
        if isinstance(own.get("judge"), str):
            own["judge"] = load_scorer(own["judge"], self)
        own["settings"] = dict(own.get("settings", {})) | how
        return Reasoning(self.session(seed=seed), Wish(prompt, plan), How(**own))

    def __repr__(self) -> str:
        said = {
            "model": self.model and f"model of {self.architecture.num_params():,} parameters",
            "codec": self.codec and f"codec of {self.sample_rate} Hz",
            "enhancer": self.enhancer and f"enhancer to {self.enhancer.sample_rate} Hz stereo",
            "encoder": self.encoder and "audio encoder",
            "tokenizer": self.tokenizer and f"tokenizer of {self.tokenizer.size} ids",
        }
        at = f" at step {self.step}" if self.step else ""
        return f"<{self.path}{at}: {', '.join(filter(None, said.values()))}>"


def load(
    path: str | os.PathLike,
    *,
    step: int | None = None,
    int8: bool = False,
    enhance: str | os.PathLike | None = None,
    slots: Count = 8,
    sequences: Count | None = None,
    window: Count | None = None,
) -> Pretrained:
    """Model, codec, encoder and tokenizer from a run, a converted checkpoint or a Hugging Face folder.

        model = ualm_jax.load("runs/tiny")
        clips = model.generate(["two beeps, then a drum"], seconds=4, cfg_scale=3.0, seed=0)
        clips[0].save("out.wav")

    path: the --workdir of a run or what `ualm convert` made, here or as a URL gs://BUCKET/PATH; or a local folder of
        Qwen2 (extended by random rows for special tokens and 8 codebooks of 1024), X-codec, Qwen2.5-Omni or Audio
        Flamingo 3 as Hugging Face stores it.
    step: the checkpoint of a run, by default its newest.
    int8: layers with 8-bit weights: half the memory, less exact.
    enhance: folder of an enhancer that `ualm enhance train` left; clips are then saved as 48 kHz stereo.
    slots, sequences, window: see `Parts`; the window is by default what the model was trained with, 2048 at most.

    Arrays are laid out on the current mesh (`jax.set_mesh`), or on this process's first device where none is set.
    Raises UserError where `path` is none of these, or damaged.
    """
    slots, window = check_value(slots, Count, "slots"), check_value(window, Count | None, "window")
    sequences = check_value(sequences, Count | None, "sequences")
    enhancer = None if enhance is None else Enhancer.from_directory(enhance)  # small, so first: it may not be one
    weights = open_weights(path, step)
    keep_programs()
    current = jax.sharding.get_mesh()
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1]) if current.empty else current
    parts = weights.parts
    model = None if weights.architecture is None else _for_generating(weights, mesh, int8)
    with jax.set_mesh(mesh):
        encoder = load_encoder(parts["encoder"]) if "encoder" in parts else None
    if model is not None and encoder is not None and encoder.output_width != weights.architecture.feature_width:
        raise UserError(
            f"{parts['encoder']}: its features are {encoder.output_width} wide, but the model beside it has "
            f"feature_width {weights.architecture.feature_width}; they do not belong together."
        )
    if window is None:
        window = min(weights.notes.get("config", {}).get("max_position_embeddings", _WINDOW), _WINDOW)
    codec = XCodec.from_directory(parts["codec"]) if "codec" in parts else None
    return Pretrained(
        path=weights.path,
        mesh=mesh,
        step=weights.step,
        language=language(weights.path),
        speech=weights.notes.get("speech"),
        audio_defaults=weights.notes.get("sampling", {}),
        model=model,
        codec=codec,
        encoder=encoder,
        tokenizer=load_tokenizer(parts["tokenizer"]) if "tokenizer" in parts else None,
        enhancer=enhancer,
        slots=slots,
        sequences=sequences,
        window=window,
        made_by=MadeBy(
            named(weights.path),
            weights.step,
            int8,
            slots,
            window,
            "" if enhance is None else str(pathlib.Path(enhance).absolute()),
            functools.partial(_fingerprints, model, codec, enhancer, parts),
            sequences,
        ),
    )


def _for_generating(weights: Weights, mesh: Mesh, int8: bool) -> UALM:
    model = weights.load_model(mesh)
    gc.collect()  # cycles within nnx hold what was read, beside the model
    with jax.set_mesh(mesh):
        if int8:
            round_layers(model)
        take_layers_apart(model)
    return model


def _fingerprints(
    model: UALM | None, codec: XCodec | None, enhancer: Enhancer | None, parts: dict[str, pathlib.Path]
) -> dict[str, str]:
    """The fingerprints of everything that makes a sound from a text."""
    found = {} if model is None else {"model": model_fingerprint(model)}
    if codec is not None:
        found["codec"] = codec_fingerprint(codec)
    if enhancer is not None:
        found["enhancer"] = codec_fingerprint(enhancer)
    return found | fingerprints({name: path for name, path in parts.items() if name == "tokenizer"})
