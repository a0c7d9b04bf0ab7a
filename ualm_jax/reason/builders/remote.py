"""A text model as a writer: any endpoint that speaks OpenAI's chat completions, or a command. Answers are cached;
requests are limited in rate and repeated."""

import hashlib
import http.client
import json
import logging
import os
import pathlib
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from ualm_jax.audio.write import write_whole
from ualm_jax.errors import UserError
from ualm_jax.reason.builders.config import WriterConfig
from ualm_jax.reason.builders.writer import BadWriting, Templates, Writer, checked_dialogue, checked_text
from ualm_jax.tokens.rich_caption import RichCaption, compare

log = logging.getLogger(__name__)

Complete = Callable[[str], str]
"""Takes an instruction, returns the text that a model writes. Raises Unavailable where it may help to ask again."""

_PROMPT = """\
Below is a rich caption of a sound: its events, their order in time, and the attributes of each. Write the short \
request of a user who wants such a sound: natural words, one sentence, less detail than the caption, nothing that \
contradicts it. Answer with the request alone. (Variant {seed}.)

{caption}"""
_DIALOGUE = """\
Below is a rich caption of a sound: its events, their order in time, and the attributes of each. Write a dialogue in \
which a user asks for such a sound and says too little, an assistant asks one short question at a time, and the user \
answers, until everything in the caption is known. The user speaks first and last. Answer with a JSON list of \
["user", "..."] and ["assistant", "..."] alone. (Variant {seed}.)

{caption}"""
_CRITIQUE = """\
A sound was planned like this:

{plan}

What is heard in the sound that was made is this:

{heard}

A program finds: {difference} Say in one or two short sentences what has to change so that the sound is as planned; if \
nothing has to, answer exactly: It is as planned. Answer with that alone."""


class Unavailable(Exception):
    """No answer this time. wait: seconds after which to ask again, None for the usual."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class TextModel:
    """Writes with a text model, which is asked again where its answer can not be used, `tries` times in all.

    cache: a folder of answers; what stands there is never asked again. name: identifies the model.
    """

    def __init__(self, name: str, complete: Complete, config: WriterConfig, cache: pathlib.Path):
        self.name = name
        self._complete, self._config, self._cache = complete, config, cache
        self._lock, self._next = threading.Lock(), 0.0

    def prompt(self, caption: RichCaption, seed: int) -> str:
        asked = _PROMPT.format(seed=seed, caption=caption.write())
        return self._write(asked, lambda text: checked_text(text, "prompt"))

    def dialogue(self, caption: RichCaption, seed: int) -> list[tuple[str, str]]:
        return self._write(_DIALOGUE.format(seed=seed, caption=caption.write()), _read_dialogue)

    def critique(self, plan: RichCaption, heard: RichCaption) -> str:
        difference = compare(plan, heard).sentence()
        asked = _CRITIQUE.format(plan=plan.write(), heard=heard.write(), difference=difference)
        return self._write(asked, lambda text: checked_text(text, "critique"))

    def _write(self, asked: str, read: Callable[[str], Any]) -> Any:
        key = hashlib.sha256(f"{self.name}\n{asked}".encode()).hexdigest()
        file = self._cache / f"{key}.json"
        if file.is_file():
            return read(json.loads(file.read_text())["answer"])
        problem = ""
        for attempt in range(self._config.tries):
            self._wait_for_turn()
            try:
                answer = self._complete(asked)
                found = read(answer)
            except Unavailable as error:
                problem = str(error)
                if attempt + 1 < self._config.tries:
                    time.sleep(min(self._config.backoff * 2**attempt if error.wait is None else error.wait, 60.0))
            except BadWriting as error:
                problem = str(error)
            else:
                self._cache.mkdir(parents=True, exist_ok=True)
                write_whole({file: json.dumps({"asked": asked, "answer": answer}).encode()})
                return found
        raise UserError(f"{self.name} wrote nothing that can be used in {self._config.tries} tries: {problem}")

    def _wait_for_turn(self) -> None:
        """So that no more than `per_minute` requests begin in a minute, whatever the number of threads."""
        if self._config.per_minute is None:
            return
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + 60.0 / self._config.per_minute
        time.sleep(max(0.0, start - time.monotonic()))


def endpoint(config: WriterConfig) -> Complete:
    """Asks `config.url` + "/chat/completions". Raises UserError where the key is not there, or for another protocol."""
    if urllib.parse.urlsplit(config.url).scheme not in ("http", "https"):
        raise UserError(f"writer.url must begin with http:// or https://, got {config.url!r}.")
    key = os.environ.get(config.key_from) if config.key_from else ""
    if key is None:
        raise UserError(f"writer.key_from names the environment variable {config.key_from}, which is not set.")
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def complete(asked: str) -> str:
        body = {"model": config.model, "messages": [{"role": "user", "content": asked}]}
        body["temperature"] = config.temperature
        url = config.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=config.timeout) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            if error.code in (408, 409, 429) or error.code >= 500:
                after = error.headers.get("Retry-After", "")
                raise Unavailable(f"HTTP {error.code}", float(after) if after.isdigit() else None) from None
            raise UserError(f"{url} refuses the request (HTTP {error.code}); look at writer.url and the key.") from None
        except (OSError, http.client.HTTPException) as error:  # timeouts, broken connections, answers cut off
            raise Unavailable(f"no answer ({getattr(error, 'reason', error)})") from None
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            raise Unavailable(f"the answer is no chat completion: {content[:80]!r}")
        return text.rpartition("</think>")[2]  # what a model that reasons has written before its answer

    return complete


def command(config: WriterConfig) -> Complete:
    """Runs `config.command`, without a shell: the instruction is its input, the answer its output.

    Raises UserError for a command that can not be read.
    """
    try:
        words = shlex.split(config.command)
    except ValueError as error:
        raise UserError(f"writer.command: {config.command!r} can not be read ({error}).") from None
    how = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": config.timeout}

    def complete(asked: str) -> str:
        try:
            done = subprocess.run(words, input=asked, **how)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"no answer within {config.timeout:g} s") from None
        except OSError as error:
            raise UserError(f"writer.command: {words[0]} can not be run ({error.strerror or error}).") from None
        if done.returncode:
            raise Unavailable(f"exit status {done.returncode}: {done.stderr.strip()[-80:]}")
        return done.stdout

    return complete


def make_writer(config: WriterConfig, cache: pathlib.Path) -> Writer:
    """The writer that a config names."""
    if config.kind == "templates":
        return Templates()
    if config.kind == "endpoint":
        return TextModel(f"{config.model} at {config.url}", endpoint(config), config, cache)
    return TextModel(config.command, command(config), config, cache)


def _read_dialogue(text: str) -> list[tuple[str, str]]:
    try:
        turns = json.loads(text[text.index("[") : text.rindex("]") + 1])
        turns = [(str(role), str(said)) for role, said in turns]
    except (ValueError, TypeError):
        raise BadWriting(f"the dialogue is no JSON list of [role, text]: {text[:60]!r}") from None
    return checked_dialogue(turns)
