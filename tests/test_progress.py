"""The bar of a long job: live on a terminal, plain lines elsewhere, and the lines of the log whole in both."""

import io
import logging
import sys

from rich.console import Console

from ualm_jax.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch, **options) -> list[str]:
    """What a job with a logger leaves where `stream` is stdout."""
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        with Bar("clips", "{} of {}".format, 4, done=1, **options) as bar:
            bar.update(2, "fast")
            logging.getLogger("ualm_jax").warning("a line of the log")
            bar.update(4)
            bar.finish("in 1 s")
        assert handler.stream is stream
    finally:
        logging.getLogger().removeHandler(handler)
    return stream.getvalue().splitlines()


def test_a_terminal_has_a_bar_and_the_log_above_it(monkeypatch):
    lines = shown(Terminal(), monkeypatch, interval=0.0)
    assert any("━" in line and "4 of 4" in line for line in lines)
    (logged,) = (line for line in lines if "a line of the log" in line)
    assert logged.split("\x1b[2K")[-1] == "a line of the log"  # nothing of the bar is left on its line
    assert not any("s left" in line for line in lines) and "\x1b[?25h" in lines[-1]  # the cursor is back


def test_elsewhere_there_are_plain_lines(monkeypatch):
    first, log, second, last = shown(io.StringIO(), monkeypatch, interval=0.0)
    assert first == "clips: 2 of 4, fast" and log == "a line of the log"
    assert second == "clips: 4 of 4, 0 s left" and last == "clips: 4 of 4 in 1 s"
    assert shown(io.StringIO(), monkeypatch, interval=None) == ["a line of the log", "clips: 4 of 4 in 1 s"]


def test_what_is_live_is_asked_for_without_an_update(monkeypatch):
    asked = []
    lines = shown(Terminal(), monkeypatch, interval=None, live=lambda: asked.append(1) or f"asked {len(asked)} times")
    assert "asked 1 times" in "".join(lines) and len(asked) > 1


def test_a_console_may_be_another_stream(monkeypatch):
    other = io.StringIO()
    assert shown(io.StringIO(), monkeypatch, console=Console(file=other)) == ["a line of the log"]
    assert other.getvalue() == "clips: 4 of 4 in 1 s\n"
