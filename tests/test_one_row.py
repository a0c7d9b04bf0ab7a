"""Every compiled program takes one row, and models whose axes are 1: from jax 0.11 on, a slice of size 1 loses its
sharding. Needs no torch, so that `make test-newest` runs it with the newest jax, slow ones included."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.audio_encoders import OMNI, random_encoder
from helpers.audio_encoders import run as encode

from ualm_jax.bench.sizes import SizedModel
from ualm_jax.bench.workload import caption, packed_batch
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.generate import SamplingParams, generate
from ualm_jax.generate.decode import Settings, decode_segment
from ualm_jax.generate.score import _log_probabilities, score
from ualm_jax.generate.weights import make_weights
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.models.config import QWEN2_5, Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.types import Batch, Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.config import RunConfig, TrainConfig
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer
from ualm_jax.train.stages.run import lower_step
from ualm_jax.train.step import init_state, make_eval_step, make_train_step

EXECUTION = Execution(compute_dtype="float32", loss_chunk=64)
VOCABULARY = Vocabulary(64, 16)
MODELS = {
    "grouped": DecoderConfig(num_layers=2, width=32, num_heads=4, num_kv_heads=2, mlp_dim=64),
    "ones": DecoderConfig(num_layers=1, width=32, num_heads=1, num_kv_heads=1, mlp_dim=64),
}
MESHES = {"ones": MeshConfig(1, 1, 1), "grouped": MeshConfig(1, 1, 2)}


def model_and_mesh(name: str) -> tuple[SizedModel, jax.sharding.Mesh]:
    sizes = MESHES[name]
    return SizedModel(Architecture(MODELS[name], VOCABULARY), EXECUTION), make_mesh(
        sizes, jax.devices()[: sizes.tensor]
    )


GROUPED = pytest.param("grouped", marks=pytest.mark.slow)  # here only the row is one; "ones" has that too


@pytest.mark.parametrize("name", [GROUPED, "ones"])
def test_a_row_alone_has_its_part_of_the_sums_and_trains(name):
    config, mesh = model_and_mesh(name)
    both = packed_batch(config, 2, 48, 2)
    rows = [jax.tree.map(lambda array, row=row: array[row : row + 1], both) for row in range(2)]
    optimizer = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=0))
    with jax.set_mesh(mesh):
        evaluate = make_eval_step(abstract_model(*config)[0], next_token)
        state = init_state(lambda: UALM(*config, nnx.Rngs(0)), optimizer)
        sums = [evaluate(state.params, shard_batch(one, mesh, microbatches=1)) for one in (both, *rows)]
        whole, *parts = jax.device_get(sums)
        both_in_turn = evaluate(state.params, shard_batch(both, mesh, microbatches=2))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, both_in_turn)
        jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-5, atol=1e-6), whole, *parts)
        step = make_train_step(abstract_model(*config)[0], next_token, optimizer)
        losses = []
        for _ in range(3):
            state, metrics = step(state, shard_batch(rows[0], mesh, microbatches=1))
            losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(float(parts[0]["loss"].value()), rel=1e-5) and losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize(
    "name, modality, cfg_scale",
    [
        ("ones", "audio", 3.0),
        ("ones", "audio", 1.0),
        ("ones", "auto", 1.0),
        ("ones", "text", 1.0),
        pytest.param("grouped", "audio", 1.0, marks=pytest.mark.slow),
    ],
)
def test_a_prompt_alone_is_answered_as_beside_another(name, modality, cfg_scale):
    config, mesh = model_and_mesh(name)
    rng = np.random.default_rng(0)
    prompts = [build_prompt([caption(rng, VOCABULARY, length)], VOCABULARY) for length in (7, 12)]
    params = SamplingParams(min_frames=3, max_frames=6, max_tokens=6, top_k=5, cfg_scale=cfg_scale)
    each = [dataclasses.replace(params, seed=seed) for seed in range(2)]
    with jax.set_mesh(mesh):
        model = jax.jit(lambda: UALM(*config, nnx.Rngs(0)))()
        together = generate(model, prompts, each, modality=modality)
        alone = generate(model, prompts[1:], each[1:], modality=modality)
    assert alone[0].tokens.tolist() == together[1].tokens.tolist() != []


def test_a_clip_alone_is_heard_and_coded_as_beside_another(tmp_path):
    encoder = random_encoder(OMNI)
    rng = np.random.default_rng(0)
    mels, lengths = rng.normal(size=(2, 128, 40)).astype(np.float32), [40, 20]
    together, alone = encode(encoder, mels, lengths), encode(encoder, mels[1:], lengths[1:])
    np.testing.assert_allclose(together[0][1], alone[0][0], atol=1e-5)
    save_directory(init_random(tiny_config(), 0), tiny_config(), tmp_path / "codec")
    codec = XCodec.from_directory(tmp_path / "codec")
    wavs = [rng.normal(0, 0.1, codec.sample_rate // 4).astype(np.float32) for _ in range(2)]
    codes = codec.encode_batch(wavs)
    np.testing.assert_array_equal(codes[1], codec.encode_batch(wavs[1:])[0])
    np.testing.assert_allclose(codec.decode_batch(codes)[1], codec.decode_batch(codes[1:])[0], atol=1e-5)


def test_answers_alone_have_the_log_probabilities_that_they_have_in_company():
    config, mesh = model_and_mesh("ones")
    rng = np.random.default_rng(0)
    answer = Message(Role.ASSISTANT, Modality.TEXT, rng.integers(0, VOCABULARY.text_size, 9))
    both = [[caption(rng, VOCABULARY, length), answer] for length in (7, 12)]
    with jax.set_mesh(mesh):
        model = jax.jit(lambda: UALM(*config, nnx.Rngs(0)))()
        together, alone = score(model, both), score(model, both[1:])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)
    assert alone[0].min() < 0


@pytest.mark.parametrize(
    "groups",
    [
        {"train": dict(steps=1, objective="preference"), "preference": dict(reference="none is read")},
        {"train": dict(steps=1, trainable=("*.lora_a", "*.lora_b")), "lora": dict(rank=2)},
        {
            "train": dict(steps=1, objective="grpo", init_from="none is read", grad_accum_steps=2),
            "grpo": dict(prompts="none are read", scorer="soundscript", group_size=2),
        },
    ],
    ids=lambda groups: [*groups][-1],
)
def test_a_step_of_every_objective_is_traced_with_one_row(groups):
    source = dict(batch_size=2) if "grpo" in groups else dict(batch_size=1, directory="none is read")
    values = {
        "data": to_mapping(DataConfig(seq_len=64, cfg_dropout=0.0, **source)),
        "execution": to_mapping(EXECUTION),
        "train": dict(steps=1),
        "optimizer": {},
    }
    values["model"] = to_mapping(Architecture(MODELS["ones"], VOCABULARY))
    config = from_mapping(RunConfig, values | groups)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        assert "main" in lower_step(config, mesh).as_text()[:4000]


@pytest.mark.parametrize("size", QWEN2_5)
def test_a_training_step_of_every_size_is_traced_with_one_row(size):
    """Shapes and shardings alone, which is where a lost sharding shows."""
    data = DataConfig(directory="none is read", seq_len=256, batch_size=1)
    model = Architecture(QWEN2_5[size], Vocabulary(151_936, 1024))
    config = RunConfig(model, data, OptimizerConfig(), TrainConfig(steps=1), execution=Execution(remat="full"))
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        assert "main" in lower_step(config, mesh).as_text()[:4000]


@pytest.mark.parametrize("size", QWEN2_5)
def test_evaluating_scoring_and_decoding_of_every_size_are_traced_with_one_row(size):
    config = SizedModel(Architecture(QWEN2_5[size], Vocabulary(151_936, 1024)), Execution())
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])

    def array(*shape, dtype="int32"):
        sharding = jax.NamedSharding(mesh, spec("batch", *[None] * (len(shape) - 1)))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    with jax.set_mesh(mesh):
        row = Batch(array(1, 16, 8), array(1, 16, 8, dtype="float32"), array(1, 16), array(1, 16))
        structure, params = abstract_model(*config)[:2]
        microbatch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (1, *leaf.shape), leaf.dtype, sharding=jax.NamedSharding(mesh, jax.P(None, *leaf.sharding.spec))
            ),
            row,
        )
        assert make_eval_step(structure, next_token).trace(params, microbatch).out_info
        model = jax.eval_shape(lambda: UALM(*config, nnx.Rngs(0)))
        assert _log_probabilities.trace(model, row, None).out_info.shape == (1, 16, 8)
        real, number = array(1, dtype="float32"), array(1)
        of_streams = array(1, 8, dtype="float32"), array(1, 8)
        rest = array(1, dtype="uint32"), number, number, number, array(1, dtype="bool")
        flags = dict(num_steps=4, text=False, guided=False, enforce=True, greedy=False)
        weights = jax.eval_shape(lambda: make_weights(UALM(*config, nnx.Rngs(0))))
        assert decode_segment.trace(weights, row, Settings(number, *of_streams, real, *rest), None, **flags).out_info
