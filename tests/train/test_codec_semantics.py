"""Training with X-codec's semantic branch: what `transformers` computes, trained and stored in its layout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import xcodec_oracle
from helpers.sounds import sounds
from helpers.waveform_runs import steps_of, tiny_codec
from safetensors.numpy import load_file, save_file
from transformers import XcodecModel

from ualm_jax.codecs.xcodec.config import DacConfig
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.rvq import dequantize, quantize
from ualm_jax.codecs.xcodec.trainable import Trainable
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory
from ualm_jax.errors import UserError
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.codec import CodecNetwork
from ualm_jax.train.codec_step import CodecGenerator
from ualm_jax.train.gan import AXES
from ualm_jax.train.waveform import waveform_run

SHAPE = dataclasses.replace(
    tiny_config(),
    target_bandwidths=(0.3, 1.2),  # not each number of codebooks, as in the published codec
    acoustic=DacConfig(4, (40, 8), 32, 16, (8, 40)),
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The folder of an X-codec that holds what encoding and decoding use."""
    folder = tmp_path_factory.mktemp("bare")
    save_directory(init_random(SHAPE, seed=0), SHAPE, folder)
    return folder


@pytest.fixture(scope="module")
def given(bare, tmp_path_factory):
    """The same with all else that `transformers` stores."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("given")
    XcodecModel.from_pretrained(bare).save_pretrained(folder)
    return folder


def fine_tuning(folder, **codec):
    """Two steps with codes, from the X-codec in `folder`; parameters move by their gradients alone."""
    config = tiny_codec(steps=2, save_interval=2, averaging=0.0)
    codec = {"semantic": True, "linear_ends": False} | codec
    return dataclasses.replace(
        config,
        codec=dataclasses.replace(
            config.codec,
            num_codebooks=SHAPE.num_quantizers,
            codebook_size=SHAPE.codebook_size,
            **dataclasses.asdict(SHAPE.acoustic) | codec,
        ),
        train=dataclasses.replace(config.train, init_from=str(folder)),
        optimizer=dataclasses.replace(config.optimizer, warmup_steps=0, weight_decay=0.0),
        data=dataclasses.replace(config.data, soundscript=4, batch_size=2),
        quantizer=dataclasses.replace(config.quantizer, begin=0),
        adversarial=dataclasses.replace(config.adversarial, begin=None),
        eval=dataclasses.replace(config.eval, every=2, sounds=0),
    )


def trained(config, workdir, mesh):
    return steps_of(lambda: waveform_run(CodecNetwork(config), workdir, mesh), mesh)


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, trained(fine_tuning(given), workdir, make_mesh(MeshConfig(), jax.devices()[:1]))


def test_every_part_computes_what_it_does_in_transformers(given):
    theirs = xcodec_oracle.load(given)
    config, full = read_directory(given, semantic_decoder=True)
    network = Trainable(config, linear_ends=False)
    params = network.narrowed(full)
    wavs = np.stack([sounds()[name][:3200] for name in ("melody", "noise")])
    heard = jax.jit(network.hear)(full["hubert"], wavs)
    vectors = jax.jit(network.vectors)(params, wavs, heard)
    embed = jnp.asarray(full["codebooks"])
    quantized = dequantize(embed, quantize(embed, vectors))
    again = jax.jit(network.heard_again)(params, quantized)
    with torch.inference_mode():
        expected = theirs._extract_semantic_features(torch.from_numpy(wavs)[:, None])
        remade = theirs.decoder_semantic(theirs.fc1(torch.tensor(np.array(quantized))).mT).mT
    np.testing.assert_allclose(heard, expected, atol=1e-4)
    np.testing.assert_allclose(again, remade, atol=1e-4)
    for row, wav in zip(vectors, wavs, strict=True):
        np.testing.assert_allclose(row, xcodec_oracle.vectors(theirs, wav), atol=1e-4)


def test_all_but_hubert_learns(run, given):
    workdir, steps = run
    before, after = (load_file(folder / "model.safetensors") for folder in (given, workdir / "codec"))
    moved = {name for name, tensor in after.items() if not np.array_equal(tensor, before[name])}
    assert {name for name in after if name not in moved} == {
        name for name in after if name.startswith("semantic_model.")
    }
    assert {"fc1.weight", "decoder_semantic.conv1.weight", "encoder_semantic.conv.weight", "fc.weight"} <= moved
    first = steps[0][1]
    assert first["semantic"] > 0 and first["loss"] > 100 * first["semantic"]


def test_transformers_loads_what_was_trained(run):
    folder, wav = run[0] / "codec", sounds()["melody"][:6400]
    theirs, report = XcodecModel.from_pretrained(folder, output_loading_info=True)
    unused = ("codebook.inited", "codebook.cluster_size", "codebook.embed_avg", "masked_spec_embed")
    assert not report["unexpected_keys"] and all(name.endswith(unused) for name in report["missing_keys"])
    codec = XCodec.from_directory(folder)
    codes = codec.encode(wav)
    xcodec_oracle.ties(theirs.eval(), wav, codes, xcodec_oracle.encode(theirs, wav))
    np.testing.assert_allclose(codec.decode(codes), xcodec_oracle.decode(theirs, codes), atol=1e-4)
    assert read_directory(folder)[0] == SHAPE


def test_a_run_goes_on_with_its_own_hubert_alone(run, given, tmp_path):
    tensors = load_file(given / "model.safetensors")
    name = "semantic_model.encoder.layer_norm.bias"
    save_file(tensors | {name: tensors[name] + 1}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((given / "config.json").read_bytes())
    config = fine_tuning(tmp_path)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=3))
    with pytest.raises(UserError, match="SHA-256 of HuBERT"):
        trained(config, run[0], make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.mark.parametrize(
    "codec, says",
    [
        ({"linear_ends": True}, "exclude each other"),
        ({"encoder_hidden_size": 16}, "expected an X-codec as config.codec states"),
        ({"semantic": False}, "set codec.semantic to True"),
    ],
)
def test_a_config_that_does_not_fit_the_codec_is_refused(given, tmp_path, codec, says):
    with pytest.raises(UserError, match=says):
        trained(fine_tuning(given, **codec), tmp_path, make_mesh(MeshConfig(), jax.devices()[:1]))


def test_a_codec_without_a_semantic_decoder_is_refused(bare):
    with pytest.raises(UserError, match="expected a tensor fc1"):
        CodecNetwork(fine_tuning(bare))
    config = fine_tuning(bare)
    with pytest.raises(UserError, match=r"set train\.init_from to its folder"):
        dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=None))


def test_fixed_codes_leave_the_acoustic_decoder_alone_to_learn(given, tmp_path):
    """The semantic decoder changes no code and no sound: it would go on learning for nothing."""
    config = fine_tuning(given)
    config = dataclasses.replace(config, quantizer=dataclasses.replace(config.quantizer, fixed=True))
    network = CodecNetwork(config)
    params, rest = network.blank()
    heard = np.zeros((2, 3, SHAPE.semantic.hidden_size), np.float32)
    batch = {"wav": np.zeros((2, 3 * SHAPE.hop), np.float32), "heard": heard}
    generator = CodecGenerator(network.trainable, config.loss, config.quantizer, codes=True)
    make = jax.vmap(generator.make, (None, None, 0, None), axis_name=AXES[0])
    for axis in AXES[1:]:
        make = jax.vmap(make, (None, None, 0, None), axis_name=axis)
    rows = {name: array[(None,) * len(AXES)] for name, array in batch.items()}
    made = jax.eval_shape(make, params, rest, rows, jax.random.key(0))
    assert set(made.metrics) == {"commitment", "perplexity"} and "semantic" not in network.shown
    network.save(jax.tree.map(lambda leaf: leaf + 1, params), rest, 1, tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (given, tmp_path))
    moved = {name.split(".")[0] for name, tensor in after.items() if not np.array_equal(tensor, before[name])}
    assert moved == {"acoustic_decoder", "fc2"}


@pytest.mark.slow
def test_two_devices_and_a_stop_between_change_nothing(run, given, tmp_path):
    config, mesh = fine_tuning(given), make_mesh(MeshConfig(), jax.devices()[:1])
    (tmp_path / "stopped").mkdir()
    once = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1))
    trained(once, tmp_path / "stopped", mesh)
    ((state, _),) = trained(config, tmp_path / "stopped", mesh)
    jax.tree.map(np.testing.assert_array_equal, state, run[1][-1][0])
    (tmp_path / "spread").mkdir()
    spread = trained(config, tmp_path / "spread", make_mesh(MeshConfig(data=2), jax.devices()[:2]))
    for (_, mine), (_, theirs) in zip(run[1], spread, strict=True):
        for name in ("loss", "semantic", "grad_norm"):
            assert theirs[name] == pytest.approx(mine[name], rel=2e-3)
