"""The one opener of weights: a run, a converted checkpoint, or a folder of Hugging Face.

Training begins with what it opens, `ualm_jax.load` and `ualm generate` use it, `ualm convert export` gives it away.
"""

import dataclasses
import os
import pathlib
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from ualm_jax.buckets import Folder, in_bucket
from ualm_jax.codecs.xcodec.config import MODEL_TYPES
from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture, Execution, read_model
from ualm_jax.models.hf_names import our_shapes
from ualm_jax.models.lora import LoraConfig, merged_params
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.tokens.tokenizer import is_tokenizer
from ualm_jax.weights.adapted_arrays import AdaptedStore
from ualm_jax.weights.arrays import ArrayStore, averaged_paths
from ualm_jax.weights.converted import CARD, check_files, read_card
from ualm_jax.weights.hf_config import read_qwen2
from ualm_jax.weights.hf_folder import read_json
from ualm_jax.weights.hf_qwen2 import Qwen2Plan, plan_qwen2
from ualm_jax.weights.hf_to_ours import assemble
from ualm_jax.weights.restore import restore_arrays
from ualm_jax.weights.run_folder import check_step, choose_step, parts_at, read_lora, read_notes, read_run
from ualm_jax.weights.shipped import located


@dataclasses.dataclass(frozen=True)
class Weights:
    """What lies at `path`: descriptions are read and checked, arrays are not read yet.

    architecture, execution: of the language model and how it was computed last; None where there is only a codec or
        an encoder.
    step: optimiser steps behind the weights of a run, 0 for others.
    parts: folders of "tokenizer", "codec" and "encoder", those that are there.
    notes: what an export needs to give a foreign source back.
    lora: the low-rank adapters of a run; they are merged where parameters or arrays are read.
    """

    path: Folder
    architecture: Architecture | None = None
    execution: Execution | None = None
    step: int = 0
    parts: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    lora: LoraConfig | None = None

    def load_params(self, mesh: Mesh, execution: Execution | None = None) -> nnx.State:
        """Parameters on `mesh`, cast to `param_dtype` of `execution`, by default as they were.

        Raises UserError where there is no language model, or its arrays are damaged.
        """
        if self.architecture is None:
            raise UserError(f"{self.path} holds no language model, only: {', '.join(self.parts)}.")
        with jax.set_mesh(mesh):
            _, abstract = abstract_model(self.architecture, execution or self.execution)
        return self._read(abstract, mesh)

    def load_model(self, mesh: Mesh) -> UALM:
        """The language model on `mesh`, computed as it was last but for what is of use in training alone, or on the
        devices that it was trained on."""
        params, plain = self.load_params(mesh), Execution()
        names = ("layer_products", "unroll_layers", "attention", "decode_attention")
        execution = dataclasses.replace(self.execution, **{name: getattr(plain, name) for name in names})
        with jax.set_mesh(mesh):
            structure, _ = abstract_model(self.architecture, execution)
            return nnx.merge(structure, params)

    def arrays(self) -> ArrayStore:
        """The stored arrays of a run or a converted checkpoint, to be read piece by piece."""
        raise UserError(f"{self.path}: expected a converted checkpoint ({CARD}) or the --workdir of a run.")

    def _read(self, abstract: nnx.State, mesh: Mesh) -> nnx.State:
        raise NotImplementedError


class _Stored(Weights):
    """Arrays that Orbax stored."""

    def arrays(self) -> ArrayStore:
        store = ArrayStore(self._directory)
        store.check(our_shapes(self.architecture))
        return store


class _Run(_Stored):
    @property
    def _directory(self) -> Folder:
        return self.path / "checkpoints" / str(self.step) / "state"

    def arrays(self) -> ArrayStore:
        if self.lora is None:
            return super().arrays()
        store = AdaptedStore(self._directory, self.lora)
        store.check(our_shapes(self.architecture))
        return store

    def _read(self, abstract: nnx.State, mesh: Mesh) -> nnx.State:
        if self.lora is None:
            return self._restore(abstract, mesh)
        with jax.set_mesh(mesh):
            execution = Execution(param_dtype=str(abstract["embed"].dtype))
            return merged_params(lambda adapted: self._restore(adapted, mesh), self.architecture, execution, self.lora)

    def _restore(self, abstract: nnx.State, mesh: Mesh) -> nnx.State:
        leaves, names = dict(nnx.to_flat_state(abstract)), averaged_paths(self._directory)
        averaged = {path: leaf for path, leaf in leaves.items() if ".".join(path) in names}
        wanted = {"params": nnx.from_flat_state({path: leaves[path] for path in leaves.keys() - averaged.keys()})}
        if averaged:
            wanted["opt_state"] = {"average": nnx.from_flat_state(averaged)}
        found = restore_arrays(self._directory, wanted, mesh)
        parts = found["params"], found.get("opt_state", {}).get("average", nnx.State({}))
        return nnx.merge_state(*parts)


class _Converted(_Stored):
    @property
    def _directory(self) -> Folder:
        return self.path / "params"

    def _read(self, abstract: nnx.State, mesh: Mesh) -> nnx.State:
        nnx.replace_by_pure_dict(abstract, restore_arrays(self._directory, nnx.to_pure_dict(abstract), mesh))
        return abstract


@dataclasses.dataclass(frozen=True)
class _Qwen2(Weights):
    plan: Qwen2Plan | None = None

    def _read(self, abstract: nnx.State, mesh: Mesh) -> nnx.State:
        leaves = {".".join(key): leaf for key, leaf in nnx.to_flat_state(abstract)}
        for name, value in assemble(self.plan.infos, self.plan.pieces):
            leaf, value = leaves[name], value.astype(leaves[name].dtype, copy=False)
            sharding = NamedSharding(mesh, leaf.sharding.spec)
            # Every process has read it whole and keeps its own shards.
            leaf.set_value(jax.make_array_from_callback(value.shape, sharding, lambda index, value=value: value[index]))
        return abstract


def open_weights(path: str | os.PathLike, step: int | None = None) -> Weights:
    """What lies at `path`: the --workdir of a run, what `ualm convert` made, a Hugging Face folder, or a shipped model.

    path: of a run or a converted checkpoint also a URL gs://BUCKET/PATH.
    step: of a run; by default the newest. Raises UserError where `path` is none of these, or damaged.
    """
    path = located(path)
    if (path / "checkpoints").is_dir():
        return _open_run(path, step)
    if step is not None:
        raise UserError(f"{path} is not the --workdir of a run, so it has no step {step} to choose.")
    if (path / CARD).is_file():
        card = read_card(path)
        check_files(path, card)
        parts = parts_at(path, None)
        if "model" not in card:
            return Weights(path, parts=parts)
        return _Converted(path, *read_model(card["model"]), parts=parts, notes=card["source"])
    return _open_hugging_face(path)


def notes_of(path: str | os.PathLike) -> dict[str, Any]:
    """The notes of what `open_weights` would open, without its checks."""
    path = located(path)
    if (path / "checkpoints").is_dir():
        return read_notes(path)
    return read_card(path)["source"] if (path / CARD).is_file() else read_qwen2(path).kept


def _open_run(path: Folder, step: int | None) -> Weights:
    step = choose_step(path, step)
    check_step(path, step)
    return _Run(path, *read_run(path, step), step, parts_at(path, step), read_notes(path), read_lora(path, step))


def _open_hugging_face(path: Folder) -> Weights:
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path}: expected the --workdir of a run, a converted checkpoint or a Hugging Face folder, found none."
        )
    values = read_json(path / "config.json")
    if "train" in values:  # a run that has saved nothing yet
        choose_step(path, None)
    if in_bucket(path):
        raise UserError(
            f"{path}: expected the --workdir of a run or a converted checkpoint; a Hugging Face folder must lie on "
            "this machine."
        )
    kind = values.get("model_type")
    if kind == "qwen2":
        plan = plan_qwen2(path)
        parts = {"tokenizer": path} if is_tokenizer(path) else {}
        execution = Execution(param_dtype=plan.param_dtype)
        return _Qwen2(path, plan.architecture, execution, parts=parts, notes=plan.kept, plan=plan)
    return Weights(path, parts={"codec" if kind in MODEL_TYPES else "encoder": path})
