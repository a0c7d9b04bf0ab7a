"""A run's configuration: an ml-collections ConfigDict outside, frozen dataclasses that check themselves inside."""

import dataclasses
import pathlib
from typing import Annotated

from ualm_jax.data.loading.config import DataConfig
from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, OneOf, check_fields
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.lora import TRAINED, LoraConfig
from ualm_jax.parallel.mesh import MeshConfig
from ualm_jax.train.objectives.policy_gradient import GrpoConfig
from ualm_jax.train.objectives.preference_losses import PreferenceConfig
from ualm_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop.

    steps: optimiser steps of the whole run; seed: of the initial parameters.
    objective: "next_token", from conversations; "preference", from pairs, as the group `preference` says; or "grpo",
        from rewards of the model's own answers, as the group `grpo` says.
    init_from: a converted checkpoint or another run's work folder to begin with instead of random parameters.
    init_lora: a folder in PEFT's layout whose low-rank adapters to begin with.
    trainable: what is trained, see `train/trainable.py`.
    encoder: what hears the data's audio clips: a folder that `ualm convert omni-audio` or `af-whisper` made, or a run
        that trained one. It stays as it is unless `trainable` names it.
    grad_accum_steps: microbatches per step; data.batch_size rows are split evenly between them.
    save_interval, max_to_keep: steps between checkpoints, and how many of the newest stay.
    log_every: steps between lines of metrics.
    """

    steps: Count
    seed: Natural = 0
    objective: Annotated[str, OneOf(("next_token", "preference", "grpo"))] = "next_token"
    init_from: str | None = None
    init_lora: str | None = None
    trainable: tuple[str, ...] = ("*",)
    encoder: str | None = None
    grad_accum_steps: Count = 1
    log_every: Count = 10
    save_interval: Count = 1000
    max_to_keep: Count = 3

    def __post_init__(self):
        check_fields(self, "train")
        if self.trains_encoder and self.encoder is None:
            raise UserError(
                f"train.trainable = {self.trainable!r} names an encoder, but train.encoder is None; set it."
            )

    @property
    def trains_encoder(self) -> bool:
        """A filter must name it: "*" alone does not mean it."""
        return any(entry.startswith("encoder") for entry in self.trainable)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What is measured and made on the way.

    every: steps between evaluations. prompts: captions to generate sound from, `seconds` long each.
    directory, batches: a prepared dataset held out, and how many batches of it are scored; None for none.
    """

    every: Count = 1000
    prompts: tuple[str, ...] = ()
    seconds: Annotated[float, Bounds(above=0, at_most=600)] = 4.0
    cfg_scale: Annotated[float, Bounds(at_least=0, at_most=100)] = 3.0
    directory: str | None = None
    batches: Count = 8

    def __post_init__(self):
        check_fields(self, "eval")
        if not all(prompt.strip() for prompt in self.prompts):
            raise UserError(f"eval.prompts must be captions, got an empty one in {self.prompts!r}.")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a training run needs to be repeated."""

    model: Architecture
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    execution: Execution = Execution()
    lora: LoraConfig = LoraConfig()
    mesh: MeshConfig = MeshConfig()
    eval: EvalConfig = EvalConfig()
    preference: PreferenceConfig = PreferenceConfig()
    grpo: GrpoConfig = GrpoConfig()

    def __post_init__(self):
        if self.lora.rank and self.train.trainable == ("*",):
            raise UserError(
                f"lora.rank is {self.lora.rank}, but train.trainable = ('*',) would train the kernels themselves; say "
                f'--config.train.trainable="{TRAINED}".'
            )
        if self.lora.rank and self.execution.layer_products == "fp8":
            raise UserError(
                "execution.layer_products is 'fp8', which rounds away an adapter that is small beside its kernel: "
                "leave it out where lora.rank is set."
            )
        if self.train.init_lora is not None and not self.lora.rank:
            raise UserError(f"train.init_lora is {self.train.init_lora}, but lora.rank is 0; set the adapters' rank.")
        self._check_stream_weights()
        if self.train.objective == "preference":
            self.preference.check(self.model.vocabulary.num_streams)
            if self.data.cfg_dropout:
                raise UserError(
                    f"data.cfg_dropout is {self.data.cfg_dropout:g}, but the answers of a pair are compared as answers "
                    "to their prompt; set it to 0."
                )
        if self.online:
            self._check_online()
        else:
            self.data.check_sources()
        if self.data.batch_size % self.train.grad_accum_steps:
            raise UserError(
                f"data.batch_size ({self.data.batch_size}) must be a multiple of train.grad_accum_steps "
                f"({self.train.grad_accum_steps})."
            )
        if (self.train.encoder is None) != (self.data.audio_slots == 0):
            raise UserError(
                f"train.encoder is {self.train.encoder!r} but data.audio_slots is {self.data.audio_slots}: a model "
                f"that listens needs both, one that does not needs neither."
            )

    @property
    def online(self) -> bool:
        """Whether it learns from its own answers, not from a dataset."""
        return self.train.objective == "grpo"

    def _check_stream_weights(self) -> None:
        weights, streams = self.data.stream_weights, self.model.vocabulary.num_streams
        if weights and len(weights) != streams:
            raise UserError(
                f"data.stream_weights must be a weight for each of the model's {streams} streams, got {len(weights)}."
            )
        if weights and self.train.objective != "next_token":
            raise UserError(
                f"data.stream_weights is {weights}, but train.objective = {self.train.objective!r} has a field of its "
                "own for that; leave it out."
            )

    def _check_online(self) -> None:
        self.grpo.check(self.model.vocabulary.num_streams, self.data.batch_size)
        if self.train.init_from is None:
            raise UserError(
                "train.init_from is missing: what train.objective = 'grpo' begins with must answer already."
            )
        for field, value in (("data.directory", self.data.directory), ("data.sources", self.data.sources)):
            if value:
                raise UserError(
                    f"{field} is {value!r}, but train.objective = 'grpo' reads grpo.prompts alone; leave it out."
                )
        if self.eval.directory is not None:
            raise UserError(
                f"eval.directory is {self.eval.directory}, but train.objective = 'grpo' has no loss of data; leave it "
                "out, and look at the rewards."
            )
        if self.train.encoder is not None:
            raise UserError(
                f"train.encoder is {self.train.encoder}, but prompts of train.objective = 'grpo' are texts; omit it."
            )

    @property
    def reference(self) -> pathlib.Path | None:
        """The folder of reference log-probabilities that the run reads, if it reads some."""
        if self.train.objective != "preference" or not self.preference.needs_reference:
            return None
        return pathlib.Path(self.preference.reference)

    def with_remat(self, policy: str) -> "RunConfig":
        return dataclasses.replace(self, execution=dataclasses.replace(self.execution, remat=policy))

    def check_mesh(self, data: int, fsdp: int, tensor: int) -> None:
        """Raises UserError where an array can not be split evenly over a mesh of this shape."""
        if self.execution.unroll_layers and fsdp > 1:
            raise UserError(
                f"execution.unroll_layers is set and mesh.fsdp is {fsdp}: each device could gather the weights of all "
                "layers at once; leave unroll_layers out, or set mesh.fsdp to 1."
            )
        rows = self.data.batch_size // self.train.grad_accum_steps
        if rows % (data * fsdp):
            raise UserError(
                f"data.batch_size / train.grad_accum_steps = {rows} rows can not be split over mesh data x fsdp = "
                f"{data} x {fsdp}; make it a multiple of their product."
            )
        decoder, vocabulary = self.model.decoder, self.model.vocabulary
        for field, size, axes, parts in (
            ("model.decoder.width", decoder.width, "fsdp x tensor", fsdp * tensor),
            ("model.decoder.num_kv_heads", decoder.num_kv_heads, "tensor", tensor),
            ("model.decoder.mlp_dim", decoder.mlp_dim, "tensor", tensor),
            ("model.vocabulary.text_size + 256", vocabulary.audio_start, "tensor", tensor),
            ("model.vocabulary.num_codebooks", vocabulary.num_codebooks, "tensor", tensor),
        ):
            if size % parts:
                raise UserError(f"{field} = {size} can not be split over mesh {axes} = {parts}; choose another mesh.")
