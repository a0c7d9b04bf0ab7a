"""What the processes of a run wait for and tell each other. Every wait ends, and says who did not come.

A collective of devices has no time limit of its own, so the processes meet before each, through the coordination
service that `startup.start` has joined.
"""

import collections
import contextlib
import re
from typing import Any

import jax
from jax._src.distributed import global_state  # JAX has no public name for its client, which Orbax takes from here too
from jax.experimental import multihost_utils

from ualm_jax.errors import UserError

LONGEST = 1800.0  # seconds: one process may compile, or make sounds that it alone writes, while the others wait
_meetings: collections.Counter[str] = collections.Counter()


def meet(what: str, seconds: float = LONGEST) -> None:
    """Returns when every process of the run has come here; at once where there is one.

    what: that they come to do, the same in all of them.
    Raises UserError that names the processes that have not come within `seconds`.
    """
    if jax.process_count() > 1:
        _wait(what, seconds)


def _wait(what: str, seconds: float) -> None:
    _meetings[what] += 1
    try:
        global_state.client.wait_at_barrier(f"{what} ({_meetings[what]})", round(seconds * 1000))
    except jax.errors.JaxRuntimeError as error:
        absent = f"{_absent(str(error))} of {global_state.num_processes}"
        raise UserError(
            f"{absent} has ended, or did not come within {seconds:.0f} s to: {what}; look at the output there."
        ) from error


def from_all(what: str, value: Any, *, tiled: bool = False) -> Any:
    """Arrays of all processes, [P, ...], in each of them; tiled: joined along their first axis instead.

    value: a pytree of arrays, of one shape in all processes; or with `tiled` a global array, which is made whole.
    """
    meet(what)
    return multihost_utils.process_allgather(value, tiled=tiled)


def from_first(what: str, value: Any) -> Any:
    """The arrays of process 0, in each process; `value` is a pytree of the same shapes in all."""
    meet(what)
    return multihost_utils.broadcast_one_to_all(value)


def check_same(what: str, value: Any, then: str) -> None:
    """Compares by their text; asks nothing of devices, which may not be there yet.

    what: that is compared, the same in all processes. then: what to do where it differs.
    Raises UserError in a process whose `value` is not that of process 0; the others learn of it where they meet next.
    """
    if not joined():
        return
    _meetings[what] += 1
    client, key = global_state.client, f"ualm_jax/{what}/{_meetings[what]}"
    if global_state.process_id == 0:
        client.key_value_set(key, str(value))
    meet(what)
    first = client.blocking_key_value_get(key, round(LONGEST * 1000))
    if first != str(value):
        raise UserError(f"{what}: process {global_state.process_id} has {value}, process 0 has {first}; {then}.")


def joined() -> bool:
    """Whether this is one of several processes."""
    return global_state.client is not None and global_state.num_processes > 1


def part() -> None:
    """For a process that has failed, before it ends without JAX's way out, which waits five minutes for the others.

    Where they fail too, each has the time to say why: the end of the first one would end them.
    """
    with contextlib.suppress(UserError):
        _wait("end after a failure", seconds=10)


def _absent(error: str) -> str:
    """Which processes the coordination service names; it lists some of them, one a line, and calls them tasks."""
    late = error.partition("timed out task names:\n")[2].partition("\n\n")[0].splitlines()
    numbers = late or sorted(set(re.findall(r"\bTask:? (\d+)", error)))
    return f"process{'es' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else "at least one process"
