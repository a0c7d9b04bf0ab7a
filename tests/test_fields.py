"""What enters as a field of a configuration, or as an argument, is checked by its type before any work begins."""

import dataclasses
import functools
import json
import types
from typing import Annotated

import numpy as np
import pytest

import ualm_jax
from ualm_jax.cli import data_prepare
from ualm_jax.data.loading.config import DataConfig, SourceConfig
from ualm_jax.data.loading.pairs import DegradationConfig
from ualm_jax.data.prepare.config import PrepareConfig
from ualm_jax.data.prepare.filters import Filters
from ualm_jax.data.raw.soundscript import SoundScript, SoundScript2
from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, OneOf, Share, check_fields
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.parallel.mesh import MeshConfig
from ualm_jax.train.objectives.policy_gradient import GrpoConfig
from ualm_jax.train.objectives.preference_losses import PreferenceConfig
from ualm_jax.train.waveform_config import CropsConfig, WaveformEvalConfig, WaveformTrainConfig

pytestmark = pytest.mark.usefixtures("as_installed")

NAN, INF = float("nan"), float("inf")
Prepare = functools.partial(PrepareConfig, out="out", tokenizer_dir="tokenizer")
Data = functools.partial(DataConfig, seq_len=8, batch_size=1)
Script = functools.partial(SoundScript, count=1, seed=0)
Script2 = functools.partial(SoundScript2, count=1, seed=0)


@pytest.mark.parametrize(
    "made, arguments, sentence",
    [
        (Prepare, {"shard_size": NAN}, "prepare.shard_size must be a whole number, got nan"),
        (Prepare, {"shard_size": 1.5}, "prepare.shard_size must be a whole number, got 1.5"),
        (Prepare, {"shard_size": "a"}, "prepare.shard_size must be a whole number, got 'a'"),
        (Prepare, {"workers": INF}, "prepare.workers must be a whole number, got inf"),
        (Prepare, {"max_bad_fraction": "x"}, "prepare.max_bad_fraction must be a number, got 'x'"),
        (Prepare, {"max_bad_fraction": 1.01}, "prepare.max_bad_fraction must be at least 0 and at most 1, got 1.01"),
        (Filters, {"min_seconds": NAN}, "filters.min_seconds must be a finite number, got nan"),
        (Filters, {"max_seconds": "a"}, "filters.max_seconds must be a number, got 'a'"),
        (Filters, {"max_seconds": -1}, "filters.max_seconds must be above 0, got -1"),
        (Filters, {"min_seconds": 2, "max_seconds": 1.5}, "filters.max_seconds must be at least 2, got 1.5"),
        (Filters, {"silence_db": -INF}, "filters.silence_db must be a finite number, got -inf"),
        (Filters, {"max_clipped": 7}, "filters.max_clipped must be at least 0 and at most 1, got 7"),
        (Filters, {"max_length": -3}, "filters.max_length must be at least 1, got -3"),
        (Data, {"seq_len": 2.5}, "data.seq_len must be a whole number, got 2.5"),
        (Data, {"cfg_dropout": NAN}, "data.cfg_dropout must be a finite number, got nan"),
        (Data, {"stream_weights": 2.0}, "data.stream_weights must be a tuple of numbers, got 2.0"),
        (Data, {"skip_long": "no"}, "data.skip_long must be True or False, got 'no'"),
        (SourceConfig, {"directory": "a", "weight": INF}, "data.sources[a].weight must be a finite number, got inf"),
        (SamplingParams, {"max_frames": 1.5}, "sampling.max_frames must be a whole number, got 1.5"),
        (SamplingParams, {"top_k": True}, "sampling.top_k must be a whole number, got True"),
        (SamplingParams, {"top_k": (1, 2.0)}, "sampling.top_k must be whole numbers, got (1, 2.0)"),
        (SamplingParams, {"temperature": ["a"]}, "sampling.temperature must be numbers, got ['a']"),
        (SamplingParams, {"temperature": None}, "sampling.temperature must be a number, got None"),
        (SamplingParams, {"seed": 2**32}, "sampling.seed must be at least 0 and at most 4294967295, got 4294967296"),
        (
            PreferenceConfig,
            {"stream_weights": (1.0, INF)},
            "preference.stream_weights must be finite numbers, got (1.0",
        ),
        (PreferenceConfig, {"stream_weights": ("a",)}, "preference.stream_weights must be numbers, got ('a',)"),
        (GrpoConfig, {"stream_weights": (NAN,)}, "grpo.stream_weights must be finite numbers, got (nan,)"),
        (Script, {"seed": NAN}, "soundscript.seed must be a whole number, got nan"),
        (Script, {"max_seconds": INF}, "soundscript.max_seconds must be a finite number, got inf"),
        (Script2, {"count": NAN}, "soundscript.count must be a whole number, got nan"),
        (CropsConfig, {"frames": 2.5}, "data.frames must be a whole number, got 2.5"),
        (CropsConfig, {"gain_db": (NAN, 0.0)}, "data.gain_db must be finite numbers, got (nan, 0.0)"),
        (WaveformTrainConfig, {"steps": True}, "train.steps must be a whole number, got True"),
        (
            WaveformTrainConfig,
            {"steps": 1, "averaging": 1.0},
            "train.averaging must be at least 0 and below 1, got 1.0",
        ),
        (WaveformEvalConfig, {"seconds": INF}, "eval.seconds must be a finite number, got inf"),
        (DegradationConfig, {"equaliser_db": NAN}, "pairs.equaliser_db must be a finite number, got nan"),
        (MeshConfig, {"fsdp": 1.5}, "mesh.fsdp must be a whole number, got 1.5"),
        (ualm_jax.load, {"path": "/nowhere", "window": -1}, "window must be at least 1, got -1"),
        (ualm_jax.load, {"path": "/nowhere", "slots": 0}, "slots must be at least 1, got 0"),
        (ualm_jax.load, {"path": "/nowhere", "slots": 2.0}, "slots must be a whole number, got 2.0"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(made, arguments, sentence):
    with pytest.raises(UserError) as refused:
        made(**arguments)
    assert str(refused.value).startswith(sentence)


def test_numbers_of_numpy_and_lists_become_what_files_hold():
    given = {"seed": np.int64(4), "top_k": np.int32(2), "cfg_scale": np.float32(0.5), "temperature": [1, np.float64(2)]}
    params = SamplingParams(**given, reference_behaviour=np.True_)
    assert params == SamplingParams(
        seed=4, top_k=2, cfg_scale=0.5, temperature=(1, 2.0), reference_behaviour=True
    ) and hash(params)
    values = json.loads(json.dumps(dataclasses.asdict(params)))
    assert SamplingParams(**values) == params
    assert json.dumps(Script(count=np.int64(1)).fingerprint()) == json.dumps(Script().fingerprint())


@dataclasses.dataclass(frozen=True)
class Every:
    """One field of each form."""

    count: Count = 1
    share: Share | None = None
    shares: tuple[Share, ...] = ()
    either: Count | tuple[Count, ...] = 1
    below: Annotated[float, Bounds(above=-1, below=2.5)] = 0
    kind: Annotated[str, OneOf(("a", "b"))] = "a"
    flag: bool = False
    other: dict | tuple[str, ...] = ()

    def __post_init__(self):
        check_fields(self, "every")


@pytest.mark.parametrize(
    "good, bad",
    [
        ({"count": 3}, {"count": "3"}),
        ({"share": None}, {"share": 1.5}),
        ({"share": 1}, {"share": True}),
        ({"shares": (0, 0.5)}, {"shares": (0, None)}),
        ({"shares": [0.5]}, {"shares": None}),
        ({"either": 2}, {"either": 0}),
        ({"either": (2, 3)}, {"either": (2, 0)}),
        ({"below": 2.4}, {"below": 2.5}),
        ({"below": -0.9}, {"below": -1}),
        ({"kind": "b"}, {"kind": "c"}),
        ({"flag": True}, {"flag": 1}),
    ],
)
def test_a_field_of_every_form_takes_what_its_type_says(good, bad):
    ((name, value),) = good.items()
    assert getattr(Every(**good), name) == (tuple(value) if isinstance(value, list) else value)
    with pytest.raises(UserError, match=f"every.{name} must be"):
        Every(**bad)


def test_the_command_prepares_by_the_defaults_of_the_library(monkeypatch, tmp_path):
    made = []

    def prepare_sounds(source, config, console):
        made.append(config)
        return types.SimpleNamespace(directory=config.out)

    monkeypatch.setattr("ualm_jax.data.prepare.job.prepare_sounds", prepare_sounds)
    monkeypatch.setattr(data_prepare, "print_summary", lambda info, drop: None)
    paths = {"out": tmp_path / "out", "tokenizer_dir": tmp_path / "tokenizer"}
    options = ["--out", str(paths["out"]), "--tokenizer", str(paths["tokenizer_dir"]), "--workers", "1"]
    assert data_prepare.main(["--source", "soundscript", "--sounds-only", *options]) == 0
    assert made == [PrepareConfig(**paths)]
