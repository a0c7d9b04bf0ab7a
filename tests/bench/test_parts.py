"""`ualm bench train|decode|attention|loss`: the sides do the same work, and what is reported."""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from ualm_jax.bench import decode, reference_torch, reference_torch_decoding, train
from ualm_jax.bench.result import BenchResult, number, seconds, text
from ualm_jax.bench.sizes import SIZES, SizedModel
from ualm_jax.bench.workload import packed_batch
from ualm_jax.cli import bench as cli
from ualm_jax.cli import bench_arguments
from ualm_jax.cli.arguments import Parser
from ualm_jax.errors import UserError
from ualm_jax.generate.weights import make_weights
from ualm_jax.models import flops
from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.batches import shard_batch

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = SizedModel(
    Architecture(DecoderConfig(num_layers=2, width=32, num_heads=4, num_kv_heads=2, mlp_dim=64), Vocabulary(100, 30)),
    Execution(compute_dtype="float32", loss_chunk=64),
)
TIMING = {"median", "min", "max", "runs"}


@pytest.fixture(scope="module", autouse=True)
def floors_of_another_machine():
    """Measuring this one takes seconds, and says nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ualm_jax.bench.machine.matmul_flops", lambda dtype: 1e11)
        patch.setattr("ualm_jax.bench.machine.copy_bandwidth", lambda dtype: 1e10)
        yield


def run(part: str, *words: str) -> BenchResult:
    module = importlib.import_module(cli.PARTS[part][0])
    parser = Parser()
    getattr(bench_arguments, part)(parser)
    return module.run(parser.parse_args(words))


@functools.cache
def model() -> UALM:
    return jax.jit(lambda: UALM(*CONFIG, nnx.Rngs(0)))()


def reference(of: UALM) -> reference_torch.Reference:
    return reference_torch.Reference(CONFIG, jax.device_get(nnx.state(of, nnx.Param)))


def test_the_reference_in_torch_sees_no_other_document_of_a_row():
    ours = model()
    batch = packed_batch(CONFIG, 2, 96, 3)
    tokens, positions = torch.from_numpy(batch.tokens).long(), torch.from_numpy(batch.positions).long()
    with torch.no_grad():
        theirs = reference(ours).hidden(tokens, positions).numpy()
    hidden = jax.jit(lambda model, batch: model(batch))(ours, shard_batch(batch, jax.sharding.get_mesh()))
    np.testing.assert_allclose(hidden, theirs, atol=1e-4)


@pytest.mark.parametrize("dtype, loss_tolerance, norm_tolerance", [("float32", 1e-4, 1e-4), ("bfloat16", 1e-3, 5e-3)])
def test_both_sides_take_the_same_training_steps(dtype, loss_tolerance, norm_tolerance):
    """In bfloat16 too, tighter than what one rounding may do: both keep float32 weights, which are not rounded once."""
    config = CONFIG._replace(execution=dataclasses.replace(CONFIG.execution, compute_dtype=dtype))
    batch = packed_batch(config, 2, 64, 2)
    ours = train._Ours(config, jax.sharding.get_mesh(), batch)
    theirs = reference_torch.Training(config, jax.device_get(ours.params()), batch, train._OPTIMIZER, packed=True)
    for _ in range(5):
        (loss, norm), (their_loss, their_norm) = ours.step(), theirs.step()
        assert loss == pytest.approx(their_loss, rel=loss_tolerance)
        assert norm == pytest.approx(their_norm, rel=norm_tolerance)


def test_torch_without_memory_for_all_rows_does_the_same_work_in_parts(monkeypatch):
    batch = packed_batch(CONFIG, 5, 64, 2)
    params = jax.device_get(nnx.state(model(), nnx.Param))
    whole, parted = (reference_torch.Training(CONFIG, params, batch, train._OPTIMIZER, packed=True) for _ in range(2))
    loss = parted.model.loss

    def short_of_memory(tokens, *others):
        if len(tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(tokens, *others)

    monkeypatch.setattr(parted.model, "loss", short_of_memory)
    for _ in range(2):
        np.testing.assert_allclose(parted.step(), whole.step(), rtol=1e-5)
    assert whole.parts.notes() == () and "the 5 rows 2 at a time" in parted.parts.notes()[0]
    monkeypatch.setattr(parted.model, "loss", lambda *_: short_of_memory(range(3)))
    with pytest.raises(torch.OutOfMemoryError):
        parted.step()


def test_work_that_differs_is_not_timed():
    train.check_same("loss", 1.0, 1.0009)
    with pytest.raises(ValueError, match="do not do the same work: loss 1.0 here, 1.1 there"):
        train.check_same("loss", 1.0, 1.1)
    with pytest.raises(ValueError, match="loss nan here"):
        train.check_same("loss", float("nan"), 1.0)


def test_both_sides_sample_the_same_likeliest_tokens():
    theirs, ours = reference(model()), make_weights(model())
    decode._check_tokens(CONFIG, jax.sharding.get_mesh(), ours, theirs, 20)
    with torch.no_grad():
        theirs.stream_emb.weight += torch.randn_like(theirs.stream_emb.weight)
    with pytest.raises(ValueError, match="sample different tokens"):
        decode._check_tokens(CONFIG, jax.sharding.get_mesh(), ours, theirs, 20)


def test_a_run_samples_as_many_steps_as_were_asked_for():
    ours = decode._Ours(CONFIG, jax.sharding.get_mesh(), make_weights(model()), 3, 20, 15)
    rows = np.asarray(ours.run())
    assert rows.shape == (3, 15, 8) and (rows[:, -1, 0] > 0).all()
    assert not np.asarray(ours.prefill()).any()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_torch_samples_within_each_streams_codebook(compiled):
    prompts = np.stack([prompt.tokens for prompt in decode._prompts(CONFIG, 3, 20)])
    settings = dict(steps=6, cfg_scale=3.0, temperature=1.0, top_k=5, compiled=compiled)
    rows = reference_torch_decoding.Decoding(reference(model()), CONFIG, prompts, **settings).run()
    assert rows.shape == (3, 6, 8)
    vocabulary = CONFIG.architecture.vocabulary
    for stream in range(1, 8):
        ids = rows[:, :, stream] - vocabulary.audio_pad(stream)
        assert ((ids >= 0) & (ids < vocabulary.stream_size)).all()


def test_torch_with_a_static_cache_samples_the_same_tokens(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, mode: f)
    prompts = np.stack([prompt.tokens for prompt in decode._prompts(CONFIG, 2, 20)])
    settings = dict(steps=6, cfg_scale=3.0, temperature=0.0, top_k=5)
    theirs = reference(model())
    growing, static = (
        reference_torch_decoding.Decoding(theirs, CONFIG, prompts, **settings, compiled=compiled)
        for compiled in (False, True)
    )
    np.testing.assert_array_equal(growing.run(), static.run())
    np.testing.assert_array_equal(static.run(), growing.run())  # the cache was emptied in between


def test_rows_are_filled_with_whole_documents():
    batch = packed_batch(CONFIG, 2, 100, 3)
    assert batch.tokens.shape == (2, 100, 8) and (batch.segment_ids > 0).all()
    assert [int((batch.segment_ids[0] == one).sum()) for one in (1, 2, 3)] == [33, 33, 34]
    assert (batch.positions[:, [0, 33, 66]] == 0).all()
    with pytest.raises(UserError, match="make --length larger"):
        packed_batch(CONFIG, 1, 16, 1)


def test_loss_is_compared_with_plain_logits_and_torch_over_eight_devices():
    result = run("loss", "--rows", "4", "--length", "32", "--mesh", "data=2,fsdp=2,tensor=2", "--against", "torch",
                 "--repeats", "1")  # fmt: skip
    ours, plain, theirs = result.rows
    assert [row["side"] for row in result.rows] == ["ours", "plain logits", "torch"]
    assert ours["temporary_bytes"] < plain["temporary_bytes"]
    assert plain["ratio"] > 0 and theirs["ratio"] > 0 and "ratio" not in ours


def test_backends_that_are_not_for_this_device_are_named():
    result = run("attention", "--rows", "8", "--length", "64", "--documents", "2", "mixture", "--against", "torch",
                 "--repeats", "1")  # fmt: skip
    assert [(row["documents"], row["backend"], row["work"]) for row in result.rows] == [
        (documents, backend, work)
        for documents in ("2", "mixture")
        for backend in ("xla", "torch sdpa")
        for work in ("forward", "forward + backward")
    ]
    forward, both = result.rows[:2]
    # 4 heads of 32 in 8 rows of 2 documents of 32 positions.
    assert forward["flops_per_second"] * forward["seconds"]["median"] == pytest.approx(2 * 4 * 32 * 16 * 32 * 33)
    assert both["flops_per_second"] * both["seconds"]["median"] == pytest.approx(3 * 2 * 4 * 32 * 16 * 32 * 33)
    assert any("splash is a kernel for TPUs" in note for note in result.notes)
    with pytest.raises(UserError, match="splash is a kernel for TPUs"):
        run("attention", "--rows", "8", "--attention", "splash")


def test_a_backend_that_can_not_be_compiled_hides_no_other(monkeypatch):
    from ualm_jax.bench import attention

    true = attention.attend

    def attend(q, k, v, spec, backend):
        if backend == "tokamax":
            raise ModuleNotFoundError("No module named 'xprof'\nand more")
        return true(q, k, v, spec, backend)

    monkeypatch.setattr(attention, "attend", attend)
    words = ("--rows", "8", "--length", "64", "--documents", "2", "--repeats", "1")
    result = run("attention", *words)
    assert {row["backend"] for row in result.rows} == {"xla"}
    assert "tokamax could not be compiled: ModuleNotFoundError: No module named 'xprof'" in result.notes
    with pytest.raises(ModuleNotFoundError):
        run("attention", *words, "--attention", "tokamax")


def test_decoding_is_reported_with_its_floor():
    (row,) = run("decode", "--batch", "4", "--steps", "10", "--repeats", "1", "--mesh", "data=4,tensor=2").rows
    assert row["step"].keys() == row["prompt"].keys() == TIMING
    assert row["of_floor"] == pytest.approx(row["bytes_per_second"] / 1e10)
    assert row["times_real_time"] == pytest.approx(4 * row["steps_per_second"] / 50)


def test_a_mesh_that_is_no_mesh_is_one_sentence():
    with pytest.raises(UserError, match="--mesh takes data=N, fsdp=N, tensor=N, not 'rows=2'"):
        run("loss", "--mesh", "rows=2")
    with pytest.raises(UserError, match="4 rows can not be split over mesh data x fsdp = 8 x 1"):
        run("loss", "--rows", "4")


def test_the_table_is_markdown_with_times_in_units_that_suit():
    rows = [
        {"side": "ours", "seconds": {"median": 0.0123, "min": 0.012, "max": 0.02}},
        {"side": "torch", "seconds": {"median": 2.0, "min": 1.9, "max": 2.5}, "ratio": 162.6},
    ]
    result = BenchResult("title", (text("side", "side"), seconds("seconds", "time"), number("ratio", "x", ".1f")), rows)
    assert result.table().splitlines() == [
        "|  side |                   time |     x |",
        "|------:|-----------------------:|------:|",
        "|  ours | 12.3 (12.0 to 20.0) ms |       |",
        "| torch |  2.00 (1.90 to 2.50) s | 162.6 |",
    ]


def test_figures_are_written_drawn_and_traced(tmp_path, capsys):
    report, picture, trace = tmp_path / "loss.json", tmp_path / "loss.png", tmp_path / "trace"
    words = ["--rows", "8", "--length", "20", "--repeats", "2", "--json", str(report), "--png", str(picture)]
    assert cli.main(["loss", *words, "--profile", str(trace)]) == 0
    written = json.loads(report.read_text())
    assert written["part"] == "loss" and written["arguments"]["rows"] == 8
    assert {"device", "jax", "processor", "cores", "load"} <= written["machine"].keys()
    assert written["rows"][0]["seconds"].keys() == TIMING and written["rows"][0]["seconds"]["runs"] == 2
    assert picture.read_bytes().startswith(b"\x89PNG") and list(trace.rglob("*.xplane.pb"))
    shown = capsys.readouterr().out
    assert written["title"] in shown and written["table"] in shown
    kinds = {row["kind"]: row for row in written["trace"]["kinds"]}
    assert kinds["matrix products"]["calls"] >= 1 and kinds["matrix products"]["seconds"] > 0
    assert sum(row["seconds"] for row in kinds.values()) == pytest.approx(written["trace"]["seconds"])


# What may be missing where the bench runs. rich is not among them: flax itself imports it.
_ABSENT = (
    "array_record clu grain librosa matplotlib ml_collections orbax pyloudnorm safetensors soundfile soxr tensorboardX "
    "tensorflow_datasets tensorstore tokenizers torch transformers"
)


def test_training_is_timed_where_little_is_installed(tmp_path):
    """Only jax, flax, optax, numpy, jaxtyping and what they need; and on a mesh of two devices."""
    report = tmp_path / "train.json"
    words = ["bench", "train", "--size", "tiny", "--rows", "2", "--length", "64", "--steps", "3", "--devices", "2"]
    words += ["--documents", "2", "--mesh", "fsdp=2,data=1", "--json", str(report)]
    program = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_ABSENT.split()!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from ualm_jax.bench import machine
machine.matmul_flops = lambda dtype: 1e11
from ualm_jax.cli.main import run
sys.exit(run({words!r}))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = json.loads(report.read_text())["rows"]
    assert row["seconds"]["runs"] == 3 and row["memory_bytes"] > 0 and row["compile_seconds"] > 0
    assert row["of_floor"] == row["mfu"] == pytest.approx(row["flops_per_second"] / 1e11)
    whole = flops.train_step(Architecture(*SIZES["tiny"][:1], Vocabulary(2048, 1024)), 2, 64, documents=2).total
    assert row["flops_per_second"] * row["seconds"]["median"] == pytest.approx(whole)


def test_sizes_are_those_people_train():
    assert SIZES["1.5b"][0].width == 1536 and SIZES["tiny"][0].width == 128 and SIZES["small"][1] == 8192
