"""A compiled program of ours, and what compiling it showed."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Program(NamedTuple):
    """call: the executable; it needs no mesh and traces nothing. seconds: to trace and compile it.

    memory: bytes of one device while it runs, by the compiler: arguments, results that share no argument's memory, and
    `temporaries`.
    """

    call: Callable[..., Any]
    seconds: float
    memory: int
    temporaries: int


def compile_program(function: Callable[..., Any], *args: Any, **static: Any) -> Program:
    """`function` is jitted; `args` need only shapes, dtypes and shardings."""
    start = time.perf_counter()
    compiled = function.lower(*args, **static).compile()
    seconds = time.perf_counter() - start
    found = compiled.memory_analysis()
    memory = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return Program(compiled, seconds, memory + found.temp_size_in_bytes, found.temp_size_in_bytes)


def peak_memory(program: Program) -> int:
    """Most bytes on the first device since the process began, by its allocator; by the compiler if that has none."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", program.memory)
