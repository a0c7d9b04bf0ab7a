"""Where compiled programs are kept, so that the same program is compiled once, not at every start.

JAX keeps them (its persistent compilation cache) by a hash of the program, its versions, its flags and the device;
several processes may share a folder. A file that is damaged is compiled anew.
"""

import logging
import os
import pathlib

import jax

log = logging.getLogger(__name__)

LEAST_SECONDS = 0.1  # of compiling, for a program to be kept


def keep_programs() -> None:
    """Tells JAX where to keep them, unless JAX_COMPILATION_CACHE_DIR has told it already; see `folder`.

    Not on several CPU devices: a kept program with collectives gives wrong numbers there (seen with jax 0.10.2, a
    training step on 8 virtual devices). Not in one of several processes with GPUs: process 0 alone writes, so where
    they do not share the folder it finds its programs the next time and the others compile, for which XLA waits up to a
    day for what process 0 should have measured. Looks at the devices, so whatever must happen before that has happened.
    """
    wanted = folder()
    if wanted is None or jax.config.jax_compilation_cache_dir is not None:
        return
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        return
    if jax.default_backend() == "gpu" and jax.process_count() > 1:
        return
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("compiled programs are not kept: %s (UALM_CACHE_DIR sets another folder)", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(wanted))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)


def folder() -> pathlib.Path | None:
    """`compiled` in UALM_CACHE_DIR, else in `ualm` of the user's cache folder; None where UALM_CACHE_DIR is `off`."""
    asked = os.environ.get("UALM_CACHE_DIR", "")
    if asked == "off":
        return None
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(asked or os.path.join(cache, "ualm"), "compiled").absolute()
