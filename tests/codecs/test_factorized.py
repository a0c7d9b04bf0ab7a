"""Factorised codes: directions of a few numbers between two linear maps.

The independent implementation is the quantiser of DAC in `transformers`. It keeps the lengths of what it projects, so
gradients are compared with a chain of its parts in torch that does not.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.sounds import sounds
from helpers.waveform_runs import steps_of, tiny_codec
from jax.sharding import PartitionSpec
from transformers import AutoConfig, DacConfig
from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer

from ualm_jax.codecs.xcodec.config import read_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.quantizer import kmeans, quantize_learning
from ualm_jax.codecs.xcodec.rvq import dequantize, quantize
from ualm_jax.codecs.xcodec.weights import read_directory
from ualm_jax.convert_weights.codec_and_encoder import export_xcodec
from ualm_jax.convert_weights.ualm_reference import export_reference
from ualm_jax.errors import UserError
from ualm_jax.evaluate.codec import with_codebooks
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.codec import CodecNetwork
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.waveform import waveform_run
from ualm_jax.weights.opener import open_weights

BOOKS, SIZE, WIDTH, NUMBERS, ROWS, FRAMES = 3, 16, 12, 4, 8, 6
KEY = jax.random.key(0)
ALL = jnp.full(ROWS, BOOKS)
# Compiled whole, and once for all that ask for these shapes.
learn = jax.jit(quantize_learning, static_argnames="axes")
chosen, summed = jax.jit(quantize), jax.jit(dequantize)


@pytest.fixture(scope="module")
def dac():
    torch.manual_seed(0)
    config = DacConfig(n_codebooks=BOOKS, codebook_size=SIZE, codebook_dim=NUMBERS)
    config.hidden_size = WIDTH
    made = DacResidualVectorQuantizer(config).eval()
    for quantizer in made.quantizers:
        quantizer.codebook.weight.data = torch.nn.functional.normalize(quantizer.codebook.weight.data)
    return made


@pytest.fixture(scope="module")
def given(dac):
    """Codewords, projections and vectors."""

    def stacked(name):
        return jnp.asarray(np.stack([q.get_parameter(name).detach().numpy() for q in dac.quantizers]))

    projections = {
        name: {"kernel": stacked(f"{name}.weight")[..., 0].transpose(0, 2, 1), "bias": stacked(f"{name}.bias")}
        for name in ("in_proj", "out_proj")
    }
    x = np.random.default_rng(0).standard_normal((ROWS, FRAMES, WIDTH)).astype(np.float32)
    return stacked("codebook.weight"), projections, jnp.asarray(x)


def test_codes_and_vectors_are_those_of_transformers(dac, given):
    embed, projections, x = given
    with torch.no_grad():
        vectors, codes, *_ = dac(torch.tensor(np.asarray(x)).transpose(1, 2))
    mine = chosen(embed, x, projections)
    np.testing.assert_array_equal(mine, codes.numpy().transpose(0, 2, 1))
    np.testing.assert_allclose(summed(embed, mine, projections), vectors.numpy().transpose(0, 2, 1), atol=1e-5)
    learning = learn(embed, x, ALL, KEY, projections=projections)
    np.testing.assert_array_equal(learning.codes, mine)
    np.testing.assert_allclose(learning.vectors, vectors.numpy().transpose(0, 2, 1), atol=1e-5)


def test_gradients_pass_straight_through_each_direction_as_in_torch(dac, given):
    embed, projections, x = given
    weight = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    theirs = torch.tensor(np.asarray(x)).transpose(1, 2).requires_grad_()
    left, total = theirs, 0.0
    for quantizer in dac.quantizers:
        low = torch.nn.functional.normalize(quantizer.in_proj(left), dim=1)
        added = quantizer.out_proj(low + (quantizer.decode_latents(low)[0] - low).detach())
        left, total = left - added, total + added
    (total * torch.tensor(weight).transpose(1, 2)).sum().backward()

    def weighted(x, projections):
        return jnp.sum(weight * quantize_learning(embed, x, ALL, KEY, projections=projections).vectors)

    to_x, to_projections = jax.jit(jax.grad(weighted, (0, 1)))(x, projections)
    np.testing.assert_allclose(to_x, theirs.grad.numpy().transpose(0, 2, 1), atol=1e-5)
    for name, made in to_projections.items():
        for q, quantizer in enumerate(dac.quantizers):
            layer = getattr(quantizer, name)
            np.testing.assert_allclose(made["kernel"][q], layer.weight.grad[..., 0].T, atol=1e-4)
            np.testing.assert_allclose(made["bias"][q], layer.bias.grad, atol=1e-4)


def test_only_the_direction_of_a_codeword_matters(given):
    embed, projections, x = given
    longer, codes = embed * jnp.linspace(0.1, 10, SIZE)[:, None], chosen(embed, x, projections)
    np.testing.assert_array_equal(chosen(longer, x, projections), codes)
    sounds = (summed(each, codes, projections) for each in (embed, longer))
    np.testing.assert_allclose(*sounds, atol=1e-5)


def test_commitment_is_the_distance_of_directions_and_pulls_them_together(given):
    embed, projections, x = given
    one = jax.tree.map(lambda leaf: leaf[:1], (embed, projections))

    @jax.jit
    def found(x):
        return quantize_learning(one[0], x, jnp.ones(ROWS, int), KEY, projections=one[1])

    low = np.asarray(x) @ np.asarray(projections["in_proj"]["kernel"][0]) + np.asarray(
        projections["in_proj"]["bias"][0]
    )
    word = np.asarray(embed[0])[np.asarray(found(x).codes)[..., 0]]
    low, word = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (low, word))
    assert found(x).commitment == pytest.approx(np.mean(np.sum((low - word) ** 2, axis=-1)), rel=1e-5)
    pull = jax.jit(jax.grad(lambda x: found(x).commitment))(x)
    assert found(x - pull).commitment < found(x).commitment


def test_a_row_that_uses_few_codebooks_is_the_sum_of_those(given):
    embed, projections, x = given
    layers = jnp.array([1, 2, 3, 1, 2, 3, 1, 2])
    found = learn(embed, x, layers, KEY, projections=projections)
    for row, number in enumerate(layers):
        kept = jax.tree.map(lambda leaf, number=number: leaf[:number], (embed, projections))
        want = summed(kept[0], found.codes[row : row + 1, :, :number], kept[1])[0]
        np.testing.assert_allclose(found.vectors[row], want, atol=1e-5)


def test_codebooks_begin_where_each_leaves_less_and_loudness_is_not_lost():
    rng = np.random.default_rng(2)
    loudness = 10.0 ** rng.uniform(-1.5, 0.5, (4000, 1))
    frames = jnp.asarray(loudness * rng.standard_normal((4000, WIDTH)), jnp.float32)
    books, projections, left = kmeans(frames, BOOKS, SIZE, 10, KEY, NUMBERS)
    assert books.embed.shape == (BOOKS, SIZE, NUMBERS) and np.all(np.diff(left) < 0) and left[0] < 0.95
    made = summed(books.embed, chosen(books.embed, frames[None], projections), projections)[0]
    length, wanted = (np.linalg.norm(np.asarray(each), axis=1) for each in (made, frames))
    assert np.corrcoef(np.log(length + 1e-3), np.log(wanted))[0, 1] > 0.8


def test_eight_devices_learn_what_one_learns(given):
    embed, projections, x = given
    alone = learn(embed, x, ALL, KEY, projections=projections)
    axes = ("data", "fsdp")

    def learnt(embed, projections, x):
        found = quantize_learning(embed, x, ALL[:1], KEY, axes, projections)
        return jax.lax.pmean(found.commitment, axes), *found[3:]

    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2), jax.devices()[:8])):
        whole, rows = PartitionSpec(), PartitionSpec(axes)
        compute = jax.shard_map(learnt, in_specs=(whole, whole, rows), out_specs=whole, check_vma=False)
        placed = jax.device_put(np.asarray(x), rows)
        spread = jax.device_get(jax.jit(compute)(*jax.tree.map(np.asarray, (embed, projections)), placed))
    for mine, theirs in zip(alone[2:], spread, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps with codes: the config, the states and the folder."""
    values = to_mapping(tiny_codec(steps=2))
    values["codec"]["codebook_dim"] = 3
    values["quantizer"]["begin"], values["adversarial"]["begin"] = 0, None
    values["mesh"] = {"data": 1, "fsdp": 2, "tensor": 1}
    config, workdir = from_mapping(CodecRunConfig, values), tmp_path_factory.mktemp("factorized")
    mesh = make_mesh(config.mesh, jax.devices()[:2])
    states = [state for state, _ in steps_of(lambda: waveform_run(CodecNetwork(config), workdir, mesh), mesh)]
    return config, states, workdir / "codec"


def test_a_run_learns_projections_and_stores_them(run):
    config, states, folder = run
    assert states[-1].rest.embed.shape == (2, 8, 3) and np.all(np.isfinite(states[-1].rest.embed))
    begun, learnt = (state.params["projections"]["in_proj"]["kernel"] for state in states)
    assert begun.shape == (2, 8, 3) and not np.array_equal(begun, learnt)
    stored, params = read_directory(folder)
    assert stored == config.codec.trainable().config and stored.codebook_dim == 3
    for name in ("in_proj", "out_proj"):
        np.testing.assert_array_equal(
            params["projections"][name]["kernel"], states[-1].average["projections"][name]["kernel"]
        )


def test_the_stored_codec_computes_what_training_does(run):
    config, states, folder = run
    network = config.codec.trainable()
    embed, average = jax.tree.map(jnp.asarray, (states[-1].rest.embed, states[-1].average))
    wav = next(iter(sounds(1.0).values()))[: 320 * 40]
    codec = XCodec.from_directory(folder)
    codes = codec.encode(wav)
    wanted = chosen(embed, jax.jit(network.vectors)(average, jnp.asarray(wav[None])), average["projections"])[0]
    assert np.mean(codes != np.asarray(wanted)) < 2e-3  # a near tie
    vectors = summed(embed, jnp.asarray(codes)[None], average["projections"])
    np.testing.assert_allclose(codec.decode(codes), jax.jit(network.waveform)(average, vectors)[0], atol=1e-5)
    first = with_codebooks(codec, 1)
    np.testing.assert_array_equal(first.encode(wav), codes[:, :1])
    assert not np.array_equal(first.decode(codes[:, :1]), codec.decode(codes))


def test_neither_transformers_nor_an_export_takes_it_for_an_x_codec(run, tmp_path):
    with pytest.raises(ValueError, match="xcodec_factorized"):
        AutoConfig.from_pretrained(run[2])
    opened = open_weights(run[2])
    assert opened.parts == {"codec": run[2]}
    for export in (lambda out: export_xcodec(run[2], out), lambda out: export_reference(opened, out)):
        with pytest.raises(UserError, match=r"found factorised codes \(codebook_dim 3\)"):
            export(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"codebook_dim": None}, "codebook_dim must be positive, found None"),
        ({"codebook_dim": 1}, "codebook_dim must be 2 to 8, the width that is quantised, found 1"),
        ({"model_type": "xcodec"}, "codebook_dim must be 8, found 3"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(run, tmp_path, change, message):
    values = json.loads((run[2] / "config.json").read_text()) | change
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        read_config(path)


def test_more_numbers_than_are_quantised_are_refused():
    values = to_mapping(tiny_codec())
    shape = dataclasses.replace(from_mapping(CodecRunConfig, values).codec, codebook_dim=9)
    with pytest.raises(UserError, match="codebook_dim must be 2 to 8"):
        shape.trainable()
