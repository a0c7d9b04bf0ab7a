"""Compiled programs are kept where the user says; processes may share the folder, and damage costs only time."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import pytest

from ualm_jax.parallel.compilation_cache import folder, keep_programs

PROGRAM = textwrap.dedent("""
    import jax, jax.numpy as jnp
    from ualm_jax.parallel.startup import start
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    start()
    hits = []
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
    for _ in range(3):
        answer = jax.jit(lambda x: jnp.sort(jnp.sin(x) @ x.T).sum())(jnp.eye(64))
        jax.clear_caches()
    print(jax.config.jax_compilation_cache_dir, len(hits), f"{answer:.3f}")
""")


def start(cache: str | Path, devices: str = "1") -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"UALM_CACHE_DIR": str(cache), "JAX_NUM_CPU_DEVICES": devices}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)


def found(process: subprocess.Popen) -> tuple[str, int, str]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    where, hits, answer = output.split()
    return where, int(hits), answer


def test_two_processes_share_a_folder_and_a_damaged_one_is_compiled_anew(tmp_path):
    together = [found(process) for process in [start(tmp_path), start(tmp_path)]]
    programs = list((tmp_path / "compiled").glob("*-cache"))
    assert programs and all(one[0] == str(tmp_path / "compiled") and one[1] > 0 for one in together)
    assert found(start(tmp_path, devices="2"))[:2] == ("None", 0), "with several CPU devices kept programs are wrong"
    again = found(start(tmp_path))
    assert again[1] > max(hits for _, hits, _ in together) - 1 and again[2] == together[0][2] == together[1][2]
    for path in programs:
        path.write_bytes(path.read_bytes()[:-10])
    damaged, off = [found(process) for process in [start(tmp_path), start("off")]]
    assert damaged == (again[0], 0, again[2]) and off == ("None", 0, again[2])


@pytest.mark.parametrize("backend, processes, kept", [("gpu", 1, True), ("gpu", 2, False), ("tpu", 2, True)])
def test_several_processes_with_gpus_keep_none(backend, processes, kept, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setenv("UALM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(jax.config, "update", lambda name, value: told.update({name: value}))
    keep_programs()
    assert told.get("jax_compilation_cache_dir") == (str(tmp_path / "compiled") if kept else None)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"UALM_CACHE_DIR": "/a"}, Path("/a/compiled")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/ualm/compiled")),
        ({"HOME": "/c"}, Path("/c/.cache/ualm/compiled")),
        ({"UALM_CACHE_DIR": "off", "XDG_CACHE_HOME": "/b"}, None),
    ],
)
def test_the_folder_is_the_users(monkeypatch, environment, expected):
    for name in ("UALM_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert folder() == expected
