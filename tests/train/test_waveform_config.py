"""Configurations of codecs and enhancers: what can not be trained is one sentence before any work begins."""

import functools

import jax
import numpy as np
import pytest
from helpers.config_files import ROOT

from ualm_jax.cli.config_file import load_config
from ualm_jax.codecs.enhance.parameters import init_enhancer
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.enhance_config import EnhanceRunConfig
from ualm_jax.train.waveform_identity import waveform_identity

KINDS = {"codec_small": CodecRunConfig, "enhance_small": EnhanceRunConfig}


@pytest.fixture(scope="module", params=KINDS)
def name(request):
    return request.param


@functools.cache
def loaded(name: str):
    return load_config(str(ROOT / "configs" / f"{name}.py"), [])


def changed(name: str, fields: dict):
    values = loaded(name).copy_and_resolve_references()
    values.update_from_flattened_dict(fields)
    return from_mapping(KINDS[name], values.to_dict())


def test_small_ones_are_small(name):
    config = changed(name, {})
    if name == "codec_small":
        trainable = config.codec.trainable()
        params, millions = trainable.narrowed(init_random(trainable.config, 0)), 1.76
    else:
        params, millions = init_enhancer(config.enhancer, 0), 1.37
    assert sum(map(np.size, jax.tree.leaves(params))) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"loss.log": -1.0}, "loss.log must be at least 0, got -1.0"),
        ({"loss.windows": (256, 130)}, r"loss.windows must be .* multiples of 4 .*, got \(256, 130\)"),
        ({"loss.windows": ()}, r"loss.windows must be one or more"),
        ({"adversarial.begin": -1}, "adversarial.begin must be at least 0, got -1"),
        ({"adversarial.share": 0.0}, "adversarial.share must be above 0, got 0"),
        ({"adversarial.discriminators.width": 0}, "adversarial.discriminators.width must be at least 1, got 0"),
        ({"adversarial.discriminators.periods": (2, 1)}, "adversarial.discriminators.periods must be at least 2"),
        ({"adversarial.discriminators.windows": (12,)}, "adversarial.discriminators.windows .* at least 16 samples"),
        ({"optimizer.kind": "muon"}, "optimizer.kind must be adamw"),
        ({"judges_optimizer.ema_decay": 0.9}, "judges_optimizer.ema_decay None, .* train.averaging is the average"),
    ],
)
def test_what_both_have_is_checked(name, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        changed(name, fields)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"codec.num_codebooks": 0}, "codec.num_codebooks must be at least 1, got 0"),
        ({"codec.codebook_size": 1}, "codec.codebook_size must be at least 2, got 1"),
        ({"codec.hidden_size": 0}, "codec.hidden_size must be at least 1, got 0"),
        ({"codec.downsampling_ratios": (20, 16, 0)}, "codec.downsampling_ratios must be at least 1"),
        ({"codec.downsampling_ratios": (10, 4, 2, 2)}, r"downsampling_ratios must have the product 320, .* got \(10,"),
        ({"quantizer.dropout": 2.0}, "quantizer.dropout must be at least 0 and at most 1, got 2.0"),
        ({"quantizer.kmeans_frames": 127}, r"kmeans_frames \(127\) must be at least codec.codebook_size \(128\)"),
        ({"adversarial.begin": 100}, "must not lie before quantizer.begin"),
    ],
)
def test_what_a_codec_has_is_checked(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        changed("codec_small", fields)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"loss.mel_bands": (160, 80, 0)}, "loss.mel_bands must be at least 1"),
        ({"loss.mel_windows": (2048, 512)}, "mel_windows and loss.mel_bands must be as many"),
        ({"loss.mel_windows": (2048, 512, 16)}, "loss.mel_windows must be .* at least 32 samples"),
        ({"data.language": 1}, "data.language must be 2"),
    ],
)
def test_what_an_enhancer_has_is_checked(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        changed("enhance_small", fields)


def test_what_is_not_named_as_free_is_identity(name):
    same = waveform_identity(changed(name, {}), {})
    for field, value in {"mesh.data": 8, "eval.every": 7, "train.steps": 7, "optimizer.peak_lr": 1e-5}.items():
        assert waveform_identity(changed(name, {field: value}), {}) == same
    for field, value in {"train.seed": 1, "train.averaging": 0.5, "optimizer.beta1": 0.5, "data.frames": 9}.items():
        assert waveform_identity(changed(name, {field: value}), {}) != same
    moved = changed(name, {"data.folder": "sounds", "data.soundscript": 9})
    assert waveform_identity(moved, {"data": {"sounds": "a"}}) != waveform_identity(moved, {"data": {"sounds": "b"}})
    assert waveform_identity(moved, {}) == same
