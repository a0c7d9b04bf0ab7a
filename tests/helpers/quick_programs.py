"""Compilation is most of what a test costs: programs are made quickly rather than quick, and each of them once."""

import collections
import contextlib
import hashlib
import importlib.metadata
import os
import threading
import time
from collections.abc import Iterator

import jax
from jax._src import compiler
from jax._src.interpreters import mlir

# Newer versions have no such flags, and end at one they do not know.
_FLAGS_KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
_FUSION = "xla_cpu_use_fusion_emitters" if _FLAGS_KNOWN else None
_KEPT = 256
_LEAST_SECONDS = 0.1  # of compiling, for a program to be kept: the many small ones would drive the others out
_USES = 200  # of a context, before the next: what it has seen of types and constants stays in it
_overrides: list[tuple[str, bool]] = []


def compile_quickly() -> None:
    """Here, and in programs that tests start. Before JAX looks for devices.

    Tiny programs run for milliseconds and compile for seconds. LLVM's expensive passes take two fifths of that, and the
    fusion emitters of jax 0.10 two thirds of the rest; splitting a program over threads pays where there are many.
    """
    flags = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    flags += [f"--{_FUSION}=false", "--xla_cpu_parallel_codegen_split_count=1"] if _FLAGS_KNOWN else []
    os.environ["XLA_FLAGS"] = " ".join([*flags, os.environ.get("XLA_FLAGS", "")])
    # The lines of Python that an operation comes from take a fifth of lowering, and no test reads them.
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
    jax.config.update("jax_traceback_in_locations_limit", 0)
    _share_programs()
    _share_contexts()


@contextlib.contextmanager
def fused() -> Iterator[None]:
    """Programs that are compiled in this context are fused as outside of tests: two of them that compute the same, but
    are written differently, then give the same bits."""
    before = list(_overrides)
    _overrides[:] = [(_FUSION, True)] if _FUSION else []
    try:
        yield
    finally:
        _overrides[:] = before


def _share_programs() -> None:
    """Runs that a test starts one after the other, or several tests, use one executable for the same program.

    jit keeps programs by the function that was traced; each run of a verb makes functions of its own. Two programs are
    the same where their code, compile options and devices are. The last costly ones are kept, in memory: a program that
    went through a file gives wrong numbers on several devices, see `ualm_jax.parallel.compilation_cache`. What calls
    back into Python holds an address and is compiled each time. JAX counts a program that is shared as compiled.
    """
    kept, compile_anew = collections.OrderedDict(), compiler.compile_or_get_cached

    def compile_once(backend, computation, devices, compile_options, host_callbacks, *rest):
        if _overrides:
            compile_options.env_option_overrides = [*compile_options.env_option_overrides, *_overrides]
        arguments = (backend, computation, devices, compile_options, host_callbacks, *rest)
        code = str(computation.operation)  # without the lines of Python that it came from
        if host_callbacks or "callback" in code:
            return compile_anew(*arguments)
        ids, code = tuple(device.id for device in devices.flat), hashlib.sha256(code.encode()).digest()
        key = backend.platform, ids, compile_options.SerializeAsString(), code
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        begun = time.monotonic()
        program = compile_anew(*arguments)
        if time.monotonic() - begun >= _LEAST_SECONDS:
            kept[key] = program
        if len(kept) > _KEPT:
            kept.popitem(last=False)
        return program

    compiler.compile_or_get_cached = compile_once


def _share_contexts() -> None:
    """A context of MLIR is made for each program, with all its dialects: 5 ms, a quarter of what the sum of two arrays
    costs until it runs. Here a thread lowers one program after the other in the same."""
    kept, make_anew = threading.local(), mlir.make_ir_context

    def make_ir_context():
        if not getattr(kept, "left", 0):
            kept.context, kept.left = make_anew(), _USES
        kept.left -= 1
        return kept.context

    mlir.make_ir_context = make_ir_context
