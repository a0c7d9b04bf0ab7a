"""A run with adapters over 8-bit kernels: resumed bit for bit, opened merged, exported to PEFT and begun from it."""

import json

import numpy as np
import pytest
from flax import nnx
from helpers.runs import command, saved, stopped_at
from safetensors.numpy import load_file

from ualm_jax.cli.main import run
from ualm_jax.convert_weights.qwen2 import export_peft
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.weights.opener import open_weights

pytestmark = pytest.mark.usefixtures("as_many_devices_as_the_mesh_has")

LORA = [
    "--config.lora.rank=2",
    "--config.lora.alpha=8.0",
    "--config.lora.targets=('attention.q_kernel', 'attention.o_kernel', 'mlp.down')",
    "--config.lora.int8_base=True",
    "--config.train.trainable=('*.lora_a', '*.lora_b')",
    "--config.optimizer.peak_lr=0.05",
    "--config.optimizer.warmup_steps=0",
    "--config.optimizer.weight_decay=0.1",
]


def changed(*arguments: str) -> list[str]:
    """LORA with other values of some fields."""
    fields = tuple(argument.split("=")[0] + "=" for argument in arguments)
    return [word for word in LORA if not word.startswith(fields)] + list(arguments)


@pytest.fixture(scope="module")
def folders(dataset, tmp_path_factory):
    """`whole` took four steps; `resumed` was stopped after two and went on; `peft` holds what `whole` exported."""
    folder = tmp_path_factory.mktemp("lora")
    steps = ["--config.train.steps=4", "--config.train.save_interval=2"]
    for name in ("whole", "resumed"):
        if name == "resumed":
            stopped_at(2, folder / "whole", folder / name)
        assert run(command(dataset, folder / name, *steps, *LORA)) == 0
    export_peft(open_weights(folder / "whole"), folder / "peft")
    return folder


def test_only_adapters_have_moved_and_a_resumed_run_ends_as_one_that_was_not(folders):
    whole, resumed, before = saved(folders / "whole", 4), saved(folders / "resumed", 4), saved(folders / "resumed", 2)
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
        if name.startswith("['params']"):
            assert ("lora_" in name) == (array != before[name]).any(), name
    assert not any("opt_state" in name and array.ndim and "lora_" not in name for name, array in whole.items())


def test_what_is_opened_and_what_is_exported_have_the_adapters_merged(folders):
    arrays = saved(folders / "whole", 4)
    attention = "['params']['decoder']['layers']['attention']['o_kernel']"
    part = {
        name: arrays[f"{attention}{keys}['value']"].astype(np.float64)
        for name, keys in (
            ("values", "['base']['values']"),
            ("scale", "['base']['scale']"),
            ("a", "['lora_a']"),
            ("b", "['lora_b']"),
        )
    }
    expected = part["values"] * part["scale"] + 8.0 / 2 * np.einsum("lkghr,lrd->lkghd", part["a"], part["b"])
    weights = open_weights(folders / "whole")
    params, store = weights.load_params(make_mesh(MeshConfig())), weights.arrays()
    np.testing.assert_allclose(params["decoder"]["layers"]["attention"]["o_kernel"][...], expected, atol=1e-6)
    for index in ((), (1,), (slice(0, 1), slice(None), 0)):
        np.testing.assert_allclose(store.read("decoder.layers.attention.o_kernel", index), expected[index], atol=1e-6)
    flat = {".".join(path): leaf[...] for path, leaf in nnx.to_flat_state(params)}
    assert flat.keys() == store.paths
    for path, array in flat.items():
        np.testing.assert_allclose(store.read(path), array, atol=1e-6, err_msg=path)


def test_adapters_come_back_from_peft_as_they_went(folders, dataset, tmp_path):
    still = changed("--config.optimizer.peak_lr=1e-30", "--config.optimizer.end_lr=0.0")
    words = command(dataset, tmp_path / "run", "--config.train.steps=1", *still)
    assert run([*words, f"--config.train.init_lora={folders / 'peft'}"]) == 0
    begun, whole = saved(tmp_path / "run", 1), saved(folders / "whole", 4)
    names = [name for name in whole if name.startswith("['params']") and "lora_" in name]
    assert len(names) == 6
    for name in names:
        np.testing.assert_array_equal(begun[name], whole[name], err_msg=name)


def test_what_is_exported_has_pefts_layout(folders):
    config = json.loads((folders / "peft" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 8.0)
    assert config["target_modules"] == ["q_proj", "o_proj", "down_proj"]
    arrays = load_file(folders / "peft" / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.1.mlp.down_proj"
    assert arrays[f"{prefix}.lora_A.weight"].shape == (2, 64) and arrays[f"{prefix}.lora_B.weight"].shape == (32, 2)
    assert len(arrays) == 2 * 3 * 2


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--config.train.trainable=('*',)"], "would train the kernels themselves"),
        (["--config.lora.rank=4"], "r is 2, but 4 is needed here"),
        (["--config.lora.targets=('attention.q_kernel',)"], "lora.targets leaves out what it holds"),
        (["--config.lora.targets=('attention',)"], "has no array base_model.model.model.layers.0.self_attn.k_proj"),
    ],
)
def test_adapters_that_do_not_fit_are_one_sentence(folders, dataset, tmp_path, capsys, arguments, sentence):
    words = command(dataset, tmp_path / "run", *changed(*arguments))
    assert run([*words, f"--config.train.init_lora={folders / 'peft'}"]) == 1
    assert sentence in capsys.readouterr().err
