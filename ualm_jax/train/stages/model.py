"""The model of a run: its structure, what of it is trained, and the state that a run begins or goes on with."""

import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, Mesh

from ualm_jax.buckets import Folder
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder import AudioEncoder, abstract_encoder
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.lora import LoraConfig, adapted_params, with_lora
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.sharding import MESH_AXES, on_host
from ualm_jax.train.averaging import evaluated_params, optimizer_of
from ualm_jax.train.batches import Batches
from ualm_jax.train.checkpoint import Checkpoints
from ualm_jax.train.config import RunConfig
from ualm_jax.train.init_from import initial_params
from ualm_jax.train.step import Frozen, TrainState, state_from
from ualm_jax.train.trainable import Trainable, choose
from ualm_jax.train.workdir import Parts, encoder_at
from ualm_jax.weights.audio_tower import load_encoder, read_encoder_config, write_encoder
from ualm_jax.weights.peft import put_adapters, read_adapters

log = logging.getLogger(__name__)


def model_of(config: RunConfig, encoder: AudioEncoder | None) -> Frozen:
    model = shapes_of_model(config)
    model.encoder = encoder
    trained = nnx.Param if config.train.trains_encoder else nnx.Not(nnx.PathContains("encoder"))
    structure, _, constants = nnx.split(model, trained, ...)
    return Frozen(structure, constants, None if encoder is None else encoder.front_end)


def maker_of(config: RunConfig) -> Callable[[], UALM]:
    """A function that makes the language model, without an encoder."""
    return _maker(config.model, config.execution, config.lora, config.train.seed)


@functools.cache
def _maker(architecture: Architecture, execution: Execution, lora: LoraConfig, seed: int) -> Callable[[], UALM]:
    """The same function for the same model: JAX then traces it once, for its shapes and for its first values."""

    def make() -> UALM:
        rngs = nnx.Rngs(seed)
        model = UALM(architecture, execution, rngs)
        return with_lora(model, lora, rngs) if lora.rank else model

    return make


def shapes_of_model(config: RunConfig) -> UALM:
    """The language model, with shapes, dtypes and shardings in the place of arrays."""
    return jax.eval_shape(maker_of(config))


def encoder_of(config: RunConfig, parts: Parts) -> AudioEncoder | None:
    """The run's audio encoder on the current mesh, None for a run that does not listen.

    Raises UserError where it does not fit the model's adapter.
    """
    if "encoder" not in parts:
        return None
    encoder = load_encoder(parts["encoder"])
    if encoder.output_width != config.model.feature_width:
        raise UserError(
            f"model.feature_width is {config.model.feature_width}, but the encoder's features are "
            f"{encoder.output_width} wide; set it to that."
        )
    return encoder


def shapes_of_encoder(config: RunConfig) -> AudioEncoder | None:
    """Shapes of an encoder that is trained; None where it is not, or where there is none."""
    if not config.train.trains_encoder:
        return None
    folder = encoder_at(config.train.encoder) or pathlib.Path(config.train.encoder)
    return abstract_encoder(read_encoder_config(folder / "config.json"))


def shapes_of_params(config: RunConfig, encoder: AudioEncoder | None) -> nnx.State:
    """Parameter shapes of the language model, and of the encoder if it is trained."""
    params = nnx.state(shapes_of_model(config), nnx.Param)
    if not config.train.trains_encoder:
        return params
    shapes = jax.eval_shape(lambda state: state, nnx.state(encoder, nnx.Param))
    return nnx.merge_state(params, nnx.State({"encoder": shapes}))


def optimizer_for(config: RunConfig, encoder: AudioEncoder | None) -> tuple[optax.GradientTransformation, Trainable]:
    params = shapes_of_params(config, encoder)
    trainable = choose(config.train.trainable, params, config.model.vocabulary)
    return optimizer_of(config.optimizer, trainable, params), trainable


class Trained(NamedTuple):
    """params: how many parameters are trained; the others have no gradient. state_bytes: of the optimiser."""

    params: int
    state_bytes: int


def trained_part(config: RunConfig) -> Trained:
    """How many parameters a run trains, and what its optimiser holds. No mesh must be set."""
    one = AbstractMesh((1, 1, 1), MESH_AXES, axis_types=(AxisType.Explicit,) * 3)
    with jax.sharding.use_abstract_mesh(one):
        encoder = shapes_of_encoder(config)
        optimizer, trainable = optimizer_for(config, encoder)
        state = shapes_of_state(config, encoder, optimizer)
        trained = jax.tree.leaves(jax.eval_shape(trainable.take, state.params))
        kept = jax.tree.leaves(state.opt_state)
    return Trained(sum(leaf.size for leaf in trained), sum(leaf.size * leaf.dtype.itemsize for leaf in kept))


def shapes_of_state(config: RunConfig, encoder: AudioEncoder | None, optimizer: Any) -> TrainState:
    return jax.eval_shape(lambda params: state_from(params, optimizer), shapes_of_params(config, encoder))


def starting_params(config: RunConfig, encoder: AudioEncoder | None, mesh: Mesh) -> nnx.State:
    """The parameters that a run begins with, those of an encoder that is trained among them."""
    adapters = {}
    if config.train.init_lora is not None:  # read before parameters are made, so that what does not fit is told at once
        adapters = read_adapters(pathlib.Path(config.train.init_lora), config.lora, nnx.state(shapes_of_model(config)))
    if config.train.init_from is None:
        params = nnx.state(jax.jit(maker_of(config))(), nnx.Param)
    else:
        described, seed = (config.model, config.execution), config.train.seed
        read = functools.partial(initial_params, config.train.init_from, *described, mesh, seed)
        params = adapted_params(read, *described, config.lora, seed) if config.lora.rank else read()
        log.info("parameters from %s", config.train.init_from)
    put_adapters(adapters, params)
    if config.train.trains_encoder:
        params = nnx.merge_state(params, nnx.State({"encoder": nnx.state(encoder, nnx.Param)}))
    return params


def state_of(
    config: RunConfig,
    encoder: AudioEncoder | None,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    batches: Batches,
    mesh: Mesh,
) -> TrainState:
    """The newest checkpoint's, where `batches` then stand too, or a fresh one."""
    newest = checkpoints.latest_step()
    if newest is not None:
        if newest > config.train.steps:
            raise UserError(
                f"The run is at step {newest} already, train.steps is {config.train.steps}; raise it, or choose "
                "another --workdir."
            )
        state = checkpoints.restore(shapes_of_state(config, encoder, optimizer), batches, mesh)
        log.info("resumed from step %d", int(state.step))
        return state
    state = state_from(starting_params(config, encoder, mesh), optimizer)
    parts = nnx.to_pure_dict(state.params).items()
    sizes = [f"{name} {sum(leaf.size for leaf in jax.tree.leaves(part)):,}" for name, part in sorted(parts)]
    log.info("parameters: %s", ", ".join(sizes))
    return state


def checkpoints_of(config: RunConfig, parts: Parts, directory: Folder, identity: dict[str, Any]) -> Checkpoints:
    """In `directory`. A trained encoder lies in each as a folder of its own (weights/run_folder.py)."""

    def write(state: TrainState, out: pathlib.Path) -> None:
        judged = evaluated_params(state.params, state.opt_state)["encoder"]
        arrays = {".".join(path): on_host(leaf[...]) for path, leaf in nnx.to_flat_state(judged)}
        if jax.process_index() == 0:
            write_encoder(parts["encoder"], arrays, out)

    return Checkpoints(
        directory,
        every=config.train.save_interval,
        keep=config.train.max_to_keep,
        identity=identity,
        folders={"encoder": write} if config.train.trains_encoder else {},
    )
