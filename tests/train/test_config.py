"""Configurations: made from the dataclasses, changed by files and by the command line, checked field by field."""

import dataclasses
import typing

import pytest
from helpers.config_files import ROOT
from helpers.run_config import get_config

from ualm_jax.cli.config_file import load_config
from ualm_jax.cli.main import run
from ualm_jax.errors import UserError
from ualm_jax.mapping import config_dict, from_mapping, to_mapping
from ualm_jax.train.config import RunConfig
from ualm_jax.train.enhance_config import EnhanceRunConfig


def changed(field: str, value) -> dict:
    values = get_config().to_dict()
    values["data"]["directory"] = "some"
    *groups, name = field.split(".")
    group = values
    for key in groups:
        group = group[key]
    group[name] = value
    return values


def test_a_config_dict_has_every_field_and_its_default():
    values = config_dict(RunConfig).to_dict()

    def compare(kind, group):
        assert group.keys() == {field.name for field in dataclasses.fields(kind)}
        for field in dataclasses.fields(kind):
            if isinstance(group[field.name], dict):
                compare(typing.get_type_hints(kind)[field.name], group[field.name])
            elif field.default is not dataclasses.MISSING:
                assert group[field.name] == field.default

    compare(RunConfig, values)


def test_a_mapping_and_its_configuration_are_one():
    config = from_mapping(RunConfig, changed("train.steps", 7))
    assert from_mapping(RunConfig, to_mapping(config)) == config and config.train.steps == 7


def test_a_field_that_was_never_set_is_named():
    with pytest.raises(UserError, match="config.model.decoder.num_layers is missing; set it in the config file or"):
        from_mapping(RunConfig, config_dict(RunConfig).to_dict())


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        ("optimizer.peak_lr", float("nan"), "config.optimizer.peak_lr must be a finite number, got nan"),
        ("optimizer.peak_lr", float("inf"), "config.optimizer.peak_lr must be a finite number, got inf"),
        ("optimizer.peak_lr", -1.0, "optimizer.peak_lr must be above 0, got -1.0"),
        ("optimizer.beta1", 2.0, "optimizer.beta1 must be at least 0 and below 1, got 2.0"),
        ("optimizer.weight_decay", -1.0, "optimizer.weight_decay must be at least 0"),
        ("optimizer.state_dtype", "int8", "optimizer.state_dtype must be one of float32, bfloat16, got 'int8'"),
        ("optimizer.kind", "sgd", "optimizer.kind must be one of adamw, muon, got 'sgd'"),
        ("data.stream_weights", (1.0, 2.0), "data.stream_weights must be a weight for each of the model's"),
        ("data.stream_weights", (0.0,) * 8, "data.stream_weights must be above 0, got (0.0, "),
        ("train.steps", 0, "train.steps must be at least 1, got 0"),
        ("train.steps", 1.5, "config.train.steps must be int, got 1.5"),
        ("train.seed", -1, "train.seed must be at least 0"),
        ("eval.seconds", 1e9, "eval.seconds must be above 0 and at most 600"),
        ("eval.prompts", ("",), "eval.prompts must be captions"),
        ("model.vocabulary.codebook_size", 0, "model.vocabulary.codebook_size must be at least 1"),
        ("model.decoder.rope_theta", 0.0, "model.decoder.rope_theta must be above 0"),
        ("model.feature_width", 0, "model.feature_width must be at least 1"),
        ("execution.remat", "some", "execution.remat must be one of none, full"),
    ],
)
def test_a_value_out_of_bounds_is_one_sentence(field, value, sentence):
    with pytest.raises(UserError) as refused:
        from_mapping(RunConfig, changed(field, value))
    assert sentence in str(refused.value)


def test_fields_are_listed_as_they_are_set(capsys):
    arguments = ["train", "--config", "configs/tiny.py", "--print-config", "--config.data.seq_len", "640"]
    assert run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "--config.data.seq_len=640" in lines and "--config.model.decoder.rope_theta=1000000.0" in lines
    assert "--config.data.directory=None" in lines


def test_a_field_that_may_be_empty_is_emptied():
    """Words, numbers, and numbers that a config sets; the last word counts."""
    names = ("train.init_from", "adversarial.begin", "enhancer.crossover_hz", "data.folder")
    overrides = [f"--config.{name}=None" for name in names] + ["--config.data.folder=sounds"]
    values = load_config("configs/enhance_full.py", overrides)
    assert values.train.init_from is values.adversarial.begin is values.enhancer.crossover_hz is None
    assert from_mapping(EnhanceRunConfig, values.to_dict()).data.folder == "sounds"
    with pytest.raises(UserError, match="config.train.seed must be int, got None"):
        from_mapping(EnhanceRunConfig, load_config("configs/enhance_full.py", ["--config.train.seed=None"]).to_dict())


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--config", "configs/tiny.py", "--config.train.stepz=None"], "'stepz', did you mean \"steps\"; `ualm train"),
        (["--config", "/no/such/tiny.py"], "There is no config file /no/such/tiny.py; the package has configs/"),
        (["--config", "configs/tiny.py", "--config.train.stepz=1"], "'stepz', did you mean \"steps\"; `ualm train"),
    ],
)
def test_a_config_that_is_not_there_is_not_another_one(arguments, sentence, tmp_path, capsys):
    assert run(["train", "--workdir", str(tmp_path / "run"), *arguments]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("workdir", ["", "gs:/bucket/run", "s3://bucket/run", str(ROOT / "README.md")])
def test_a_work_folder_that_can_not_be_is_refused_before_anything_starts(workdir, capsys):
    with pytest.raises(SystemExit):
        run(["train", "--config", "configs/tiny.py", "--workdir", workdir, "--config.data.directory=none"])
    assert "--workdir" in capsys.readouterr().err


def test_fields_that_do_not_go_together_are_one_sentence():
    """Of what is computed: adapters with products of 8 bits, and layers without a loop that are split."""
    values = changed("execution.layer_products", "fp8")
    values["lora"]["rank"], values["train"]["trainable"] = 4, ("*.lora_a", "*.lora_b")
    with pytest.raises(UserError, match="rounds away an adapter .* leave it out where lora.rank is set"):
        from_mapping(RunConfig, values)
    config = from_mapping(RunConfig, changed("execution.unroll_layers", True))
    config.check_mesh(data=2, fsdp=1, tensor=1)
    with pytest.raises(UserError, match="unroll_layers is set and mesh.fsdp is 2"):
        config.check_mesh(data=1, fsdp=2, tensor=1)
