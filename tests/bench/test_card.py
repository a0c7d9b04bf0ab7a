"""`ualm bench card` and its report: a part that fails or hangs costs its own figures and no others."""

import json
import os
import pathlib
import sys
import time

import pytest

pytest.importorskip("matplotlib")
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))

from card_report import write_report

from ualm_jax.bench import card, trace
from ualm_jax.bench.card import Part
from ualm_jax.cli import bench, bench_arguments, bench_card
from ualm_jax.cli.arguments import Parser
from ualm_jax.errors import UserError

# Stands for `ualm bench`: what it does is its first word, and where its figures shall lie comes with --json.
STAND_IN = """
import json, os, signal, subprocess, sys, time
word, path = sys.argv[1], sys.argv[sys.argv.index("--json") + 1]
def write(**more):
    rows = {"title": f"{word} was timed", "machine": {"device": "cpu", "devices": 1}, "table": "| a |\\n|--:|\\n| 7 |",
            "notes": ["a note"], "bars": [{"title": "ms", "values": {"ours": 7.0}}], "rows": [{"a": 7}]}
    open(path, "w").write(json.dumps(rows | more))
if word == "fine":
    if "--profile" in sys.argv:
        os.makedirs(sys.argv[sys.argv.index("--profile") + 1])
    spent = {"seconds": 0.002, "calls": 1.0}
    write(trace={"seconds": 0.002, "kinds": [{"kind": "copies"} | spent],
                 "kernels": [{"kernel": "MemcpyD2D", "kind": "copies"} | spent]})
elif word == "fails":
    print("before"), sys.exit("the device is on fire")
elif word == "hangs":  # with its figures written, deaf to a request to end, and with a process of its own
    write()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""
COMMAND = (sys.executable, "-c", STAND_IN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Where a part that hangs, one that fails and one that is fine left their figures, and one had no time left."""
    folder = tmp_path_factory.mktemp("card")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "_GRACE_SECONDS", 0.2)
        patch.setattr(card, "_LEAST_SECONDS", 20.0)
        parts = [Part("hanging", ["hangs"], 5), Part("failing", ["fails"], 60), Part("good", ["fine"], 60, traced=True)]
        lines: list[str] = []
        card.run([*parts, Part("late", ["fine"], 10**6)], folder, 60.0, COMMAND, lines.append)
        (folder / "said").write_text("\n".join(lines))
    return folder


def parts_of(folder: pathlib.Path) -> dict[str, dict]:
    return {part["name"]: part for part in json.loads((folder / card.SUMMARY).read_text())["parts"]}


def test_a_part_that_hangs_is_ended_with_all_it_started_and_keeps_its_figures(folder):
    part = parts_of(folder)["hanging"]
    assert part["status"] == "out of time" and 5 <= part["seconds"] < 30
    assert json.loads((folder / part["figures"]).read_text())["rows"] == [{"a": 7}]
    child = int(part["said"][0])
    for _ in range(50):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        if pathlib.Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":  # ended, waits for init
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process that the part had started lives on")


def test_a_part_that_fails_says_why_and_the_next_one_runs(folder):
    parts = parts_of(folder)
    assert parts["failing"]["status"] == "failed" and parts["failing"]["exit_status"] == 1
    assert parts["failing"]["said"] == ["before", "the device is on fire"] and parts["failing"]["figures"] is None
    assert parts["good"]["status"] == "done" and "said" not in parts["good"]
    assert not (folder / "good.trace").exists()  # only its summary is kept
    assert [line for line in (folder / "said").read_text().splitlines() if "failing: failed" in line]


def test_a_part_without_time_is_not_begun(tmp_path):
    (found,) = card.run([Part("late", ["fine"], 60)], tmp_path, 1.0, COMMAND, lambda line: None)
    assert found["status"] == "not begun" and not (tmp_path / "late.log").exists()


def test_the_report_shows_figures_kernels_and_what_went_wrong(folder):
    report = write_report(folder).read_text()
    assert report.count("| 7 |") == 3 and "- a note" in report and "fine was timed; 1 x cpu" in report
    assert "the device is on fire" in report and "out of time; its last words" in report
    assert "| MemcpyD2D | copies | 2.000 | 100.0% |   1.0 |" in report
    for name in ("good", "hanging"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") and f"![{name}]({name}.png)" in report
    with pytest.raises(UserError, match="holds no card.json"):
        write_report(folder / "nothing")


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_every_part_is_a_command_that_ualm_bench_takes(size):
    parts = card.plan(size)
    names = [part.name for part in parts]
    assert len(set(names)) == len(names) and names[0] == "machine"
    for part in parts:
        name, *words = part.words
        parser = Parser()
        getattr(bench_arguments, name.replace("-", "_"))(parser)
        parser.parse_args(words)
        assert not part.traced or name not in bench._UNTRACED


def test_a_part_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no nothing; --size tiny has machine, attention"):
        bench_card.main(["--size", "tiny", "--out", str(tmp_path / "card"), "--parts", "machine", "nothing"])
    assert not (tmp_path / "card").exists()


def test_named_parts_run_in_the_order_they_are_named_in(tmp_path, monkeypatch):
    run = []
    monkeypatch.setattr(card, "run", lambda parts, *_, **__: run.extend(part.name for part in parts) or [])
    assert bench_card.main(["--size", "tiny", "--out", str(tmp_path), "--parts", "loss", "machine"]) == 0
    assert run == ["loss", "machine"]


@pytest.mark.slow
def test_the_tiny_card_runs_here_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # its rows are those of one device
    assert bench_card.main(["--size", "tiny", "--out", str(tmp_path), "--minutes", "20"]) == 0
    assert all(part["status"] == "done" for part in parts_of(tmp_path).values())
    assert "matrix products" in write_report(tmp_path).read_text()


# As a GPU's trace has it: kernels on streams, and the same time once more by operations.
TRACE = """
planes { id: 1 name: "/host:CPU" lines { id: 1 name: "tf_XLAEigen" events { metadata_id: 1 duration_ps: 9000000 } }
  event_metadata { key: 1 value { id: 1 name: "dot.1" } } }
planes { id: 2 name: "/device:GPU:0"
  lines { id: 1 name: "Stream #13(Compute)"
    events { metadata_id: 1 offset_ps: 0 duration_ps: 4000000 } events { metadata_id: 2 duration_ps: 1000000 }
    events { metadata_id: 3 duration_ps: 2000000 } events { metadata_id: 4 duration_ps: 1000000 } }
  lines { id: 2 name: "XLA Modules" events { metadata_id: 1 duration_ps: 8000000 } }
  event_metadata { key: 1 value { id: 1 name: "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT" } }
  event_metadata { key: 2 value { id: 2 name: "loop_multiply_fusion.12" } }
  event_metadata { key: 3 value { id: 3 name: "loop_multiply_fusion.7" } }
  event_metadata { key: 4 value { id: 4 name: "what_is_this" } } }
"""


def test_kernels_of_a_card_are_summed_by_name_and_kind(tmp_path):
    from jax.profiler import ProfileData

    (tmp_path / "host.xplane.pb").write_bytes(ProfileData.text_proto_to_serialized_xspace(TRACE))
    found = trace.summary(tmp_path, runs=2)
    assert found["seconds"] == pytest.approx(4e-6)
    assert [(row["kind"], row["calls"]) for row in found["kinds"]] == [
        ("matrix products", 0.5),
        ("elementwise and reductions", 1.0),
        ("other", 0.5),
    ]
    assert found["kernels"][1]["kernel"] == "loop_multiply_fusion"
    assert found["kernels"][1]["seconds"] == pytest.approx(1.5e-6)
    with pytest.raises(UserError, match="holds no trace"):
        trace.summary(tmp_path / "nothing", runs=1)


@pytest.mark.parametrize(
    "kernel, kind",
    [
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL", "communication"),
        ("mosaic_gpu_attention_forward", "attention"),
        ("cutlass_80_tensorop_bf16_s16816gemm", "matrix products"),
        ("gemm_fusion_dot_general", "matrix products"),
        ("dot_general", "matrix products"),
        ("ynn_fusion", "matrix products"),
        ("loop_convert_fusion", "elementwise and reductions"),
        ("input_reduce_fusion", "elementwise and reductions"),
        ("copy_add_fusion", "elementwise and reductions"),
        ("triton_softmax", "elementwise and reductions"),
        ("MemcpyD2D", "copies"),
        ("wrapped_concatenate", "copies"),
        ("loop_dynamic_update_slice_fusion", "copies"),
        ("copy", "copies"),
    ],
)
def test_a_kernel_is_known_by_its_name(kernel, kind):
    assert trace.kind_of(kernel) == kind
