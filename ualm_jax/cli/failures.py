"""What ends a verb, as one sentence and an exit status. Any other error is a bug, and shows its traceback."""

import errno
import os
import re
import traceback

from ualm_jax.errors import UserError, first_line

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the number of the signal, as shells have it

# Module -> the extra of setup.py that brings it.
_EXTRAS = {
    "torch": "torch",
    "apache_beam": "beam",
    "pyarrow": "hf",
    "fsspec": "remote",
    "libtpu": "tpu",
    "tokamax": "cuda",
}
_HINTS = {
    errno.ENOSPC: "; make room, and run the same again",
    errno.EDQUOT: "; make room, and run the same again",
    errno.EMFILE: "; raise the limit of open files (ulimit -n)",
}


def explain(error: BaseException) -> tuple[str, int] | None:
    """A sentence for a person and the exit status; None for an error that no person can mend.

    The sentence is empty where nobody is left to read it.
    """
    words = str(error)
    match error:
        case UserError():
            return words, 1
        case KeyboardInterrupt():
            return "stopped by Ctrl-C", INTERRUPTED
        case BrokenPipeError():
            return "", BROKEN_PIPE
        case ModuleNotFoundError() if (name := (error.name or "").partition(".")[0]) in _EXTRAS:
            return f"this needs {name}, which is not installed; in a checkout: pip install '.[{_EXTRAS[name]}]'", 1
        case MemoryError():
            return f"out of memory{f' ({words})' * bool(words)}; make the batch, the length or the model smaller", 1
        case OSError():
            paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
            return _failed_file(error.errno, error.strerror or words or type(error).__name__, paths), 1
    if _no_backend(error):
        wanted = os.environ.get("JAX_PLATFORMS", "")
        return f"JAX finds no device here that is of JAX_PLATFORMS={wanted}; unset it, or install what is missing", 1
    # Libraries below have their own classes for the same: libsndfile, and tensorstore, which quotes the system.
    if type(error).__module__ == "soundfile":
        return words.rstrip("."), 1
    if found := re.search(r"\[OS error (\d+): \w+ ([^\]]+)\]", words):
        return _failed_file(int(found[1]), found[2], re.findall(r'"(/[^"]+)"', words)[:1]), 1
    if type(error).__module__.partition(".")[0] in ("gcsfs", "google", "aiohttp"):  # what a bucket refuses
        return f"the bucket: {first_line(error)}", 1
    if type(error).__name__ == "OutOfMemoryError":  # torch's, in a benchmark
        return f"out of memory: {words.splitlines()[0].rstrip('.')}; make the batch, the length or the model smaller", 1
    if "RESOURCE_EXHAUSTED" in words and type(error).__module__.startswith("jax"):
        size = re.search(r"allocat\w+ (\d+) ?(?:bytes|B)\b", words)
        wanted = f": {int(size[1]) / 1e9:,.1f} GB in one piece could not be had" if size else ""
        return f"out of memory on the device{wanted}; make the batch, the length or the model smaller", 1
    return None


def _no_backend(error: BaseException) -> bool:
    """Whether JAX could not start what JAX_PLATFORMS names: without NVIDIA cards an assertion of its own fails."""
    if isinstance(error, AssertionError):
        frames = traceback.extract_tb(error.__traceback__)
        return bool(frames) and frames[-1].filename.endswith("xla_bridge.py")
    return isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error)


def _failed_file(number: int | None, reason: str, paths: list[str]) -> str:
    where = " -> ".join(paths) + ": " if paths else ""
    return f"{where}{reason[:1].lower()}{reason[1:].rstrip('.')}{_HINTS.get(number, '')}"
