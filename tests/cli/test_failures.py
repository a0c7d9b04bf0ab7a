"""Whatever ends a verb and can be mended is one sentence and an exit status; a fault of ours keeps its traceback."""

import errno
import json

import jax
import jax.numpy as jnp
import pytest
import soundfile

from ualm_jax.cli import main


@pytest.fixture
def failing(monkeypatch):
    """Runs a verb that raises what the function raises."""

    def run(function, *argv):
        monkeypatch.setitem(main.VERBS, "fail", ("helpers.failing_verb", "fails"))
        monkeypatch.setattr("helpers.failing_verb.function", function, raising=False)
        return main.run(["fail", *argv])

    return run


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device", "/data/out/shard")


def as_tensorstore():
    raise ValueError(
        'RESOURCE_EXHAUSTED: Error writing "/runs/a/d/0b" in OCDBT database: [OS error 28: ENOSPC No space left on '
        "device] [source locations='tensorstore/kvstore/ocdbt']"
    )


def out_of_device_memory():
    jnp.zeros(10**13, jnp.uint8).block_until_ready()


def no_such_platform():
    raise RuntimeError("Unable to initialize backend 'tpu': INTERNAL: Failed to open libtpu.so")


def no_card():
    """What JAX does where JAX_PLATFORMS names cards and there is none."""
    from jax._src import xla_bridge

    exec(compile("assert None is not None", xla_bridge.__file__, "exec"), {})


def no_package():
    import apache_beam_is_not_here  # noqa: F401


def no_extra():
    raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")


CASES = [
    (full_disk, 1, ["/data/out/shard: no space left on device; make room"]),
    (as_tensorstore, 1, ["/runs/a/d/0b", "no space left on device; make room"]),
    (lambda: open("/no/such/file"), 1, ["/no/such/file: no such file or directory"]),
    (lambda: soundfile.write("/no/such.wav", [0.0], 8000), 1, ["/no/such.wav"]),
    (out_of_device_memory, 1, ["out of memory on the device: 10,000.0 GB", "smaller"]),
    (lambda: bytes(1 << 62), 1, ["out of memory", "smaller"]),
    (no_such_platform, 1, ["JAX finds no device here", "JAX_PLATFORMS"]),
    (no_card, 1, ["JAX finds no device here", "JAX_PLATFORMS"]),
    (no_extra, 1, ["torch", "pip install '.[torch]'"]),
]


@pytest.mark.parametrize("function, status, words", CASES)
def test_what_can_be_mended_is_one_sentence(failing, capsys, function, status, words):
    assert failing(function) == status
    message = capsys.readouterr().err
    assert message.startswith("ualm fail: ") and message.count("\n") == 1
    assert all(word in message for word in words), message


def test_debug_shows_where_it_came_from(failing, capsys, monkeypatch):
    assert failing(full_disk, "--debug") == 1
    assert "Traceback" in (message := capsys.readouterr().err) and message.endswith("run the same again\n")
    monkeypatch.setenv("UALM_DEBUG", "1")
    failing(full_disk)
    assert "in full_disk" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(failing):
    with pytest.raises(ModuleNotFoundError):
        failing(no_package)
    with pytest.raises(json.JSONDecodeError):
        failing(lambda: json.loads("{"))
    with pytest.raises(AssertionError):
        failing(lambda: exec("assert False"))


def test_a_reader_that_has_gone_is_no_error(failing, capsys):
    def gone():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert failing(gone) == 141 and capsys.readouterr().err == ""


def test_extras_that_are_named_exist():
    import pathlib

    from ualm_jax.cli.failures import _EXTRAS

    setup = (pathlib.Path(__file__).parents[2] / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in _EXTRAS.values())
    assert jax.__version__
