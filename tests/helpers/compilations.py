"""How many programs XLA compiles."""

import contextlib
from collections.abc import Iterator

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """A list that grows by one entry for each program that is compiled in the context."""
    compiled = []

    def note(event: str, duration: float, **about) -> None:
        if event == _EVENT:
            compiled.append(str(about.get("fun_name", "a program")))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
