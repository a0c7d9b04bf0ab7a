"""Writers: templates, and text models behind an endpoint or a command that may fail, idle or talk nonsense."""

import http.server
import json
import sys
import threading
import time
import types

import pytest

from ualm_jax.data.raw.soundscript.parse import plan_of_caption
from ualm_jax.data.raw.soundscript.rich import plan_of_rich
from ualm_jax.errors import UserError
from ualm_jax.reason.builders.config import WriterConfig
from ualm_jax.reason.builders.remote import make_writer
from ualm_jax.reason.builders.writer import BadWriting, Templates, Writer, checked_dialogue, checked_text
from ualm_jax.tokens.rich_caption import parse

BRASS = parse(
    "Keywords: brass, percussion\nLayout: brass first, then percussion.\n"
    "Description: brass = lively melody, trumpets; percussion = two, steady."
)
SCENE = parse("Keywords: click, tone\nLayout: click, then tone.\nDescription: click = two; tone = one, medium, low.")
DIALOGUE = [["user", "Make music."], ["assistant", "With what?"], ["user", "Brass."]]


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Answers, one after the other, with what stands in `answers`: a text, a status, raw bytes, seconds to idle, or
    None: less than it promises."""

    def do_POST(self):
        server = self.server
        server.asked.append(
            (self.path, dict(self.headers), json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        )
        answer = server.answers.pop(0)
        if isinstance(answer, float):
            time.sleep(answer)
            answer = "late"
        if isinstance(answer, int):
            self.send_response(answer)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        if isinstance(answer, str):
            answer = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        try:
            self.send_response(200)
            if answer is None:
                self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(answer or b"{")
        except BrokenPipeError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.asked, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def writer(server, tmp_path):
    def make(answers, **fields) -> Writer:
        server.answers[:] = answers
        url = f"http://127.0.0.1:{server.server_port}/v1"
        config = WriterConfig("endpoint", url=url, model="scribe", **{"backoff": 0.0} | fields)
        return make_writer(config, tmp_path / "cache")

    return make


def test_templates_word_scenes_as_soundscript_does_and_anything_else_simply():
    templates = Templates()
    assert isinstance(templates, Writer)
    for seed in range(5):
        assert plan_of_caption(templates.prompt(SCENE, seed)) == plan_of_rich(SCENE)
        assert templates.prompt(SCENE, seed) == templates.prompt(SCENE, seed)
    turns = templates.dialogue(SCENE, 0)
    assert checked_dialogue(turns) and ("assistant", "How many clicks?") in turns
    assert {templates.prompt(BRASS, seed) for seed in range(20)} == {
        *("Brass and percussion.", "Brass first, then percussion.")
    }
    said = templates.dialogue(BRASS, 0)
    assert checked_dialogue(said) and said[1:3] == [
        *(("assistant", "What is the order?"), ("user", "Brass first, then percussion."))
    ]
    assert ("user", "Lively melody, trumpets.") in said and ("user", "Two.") in said
    assert templates.critique(BRASS, BRASS) == "It is as planned."


def test_an_endpoint_is_asked_once_for_each_text(writer, server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    made = writer(['  "A brass band." ', json.dumps(DIALOGUE), "The brass should come first."], key_from="MY_KEY")
    for _ in range(2):
        assert made.prompt(BRASS, 0) == "A brass band."
        assert made.dialogue(BRASS, 0) == [tuple(turn) for turn in DIALOGUE]
        assert made.critique(BRASS, SCENE) == "The brass should come first."
    (path, headers, body), *_ = server.asked
    assert len(server.asked) == 3 and path == "/v1/chat/completions" and body["model"] == "scribe"
    assert headers["Authorization"] == "Bearer secret" and BRASS.write() in body["messages"][0]["content"]
    assert not any("secret" in file.read_text() for file in (tmp_path / "cache").iterdir())
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UserError, match="MY_KEY, which is not set"):
        writer([], key_from="MY_KEY")


def test_what_fails_or_is_nonsense_is_asked_for_again(writer, server):
    silent = json.dumps({"choices": [{"message": {"content": None}}]}).encode()
    bad = [503, 429, b"no json", b"\xff\xfe", b'{"choices": []}', silent, None]
    made = writer([*bad, "<think>Hm.</think> A brass band."], tries=8)
    assert made.prompt(BRASS, 0) == "A brass band." and len(server.asked) == 8
    made = writer([503, "[]", "A dialogue!", json.dumps(DIALOGUE)], tries=4)
    assert made.dialogue(BRASS, 1)[0] == ("user", "Make music.")


def test_a_writer_that_never_makes_sense_is_given_up(writer, server):
    with pytest.raises(UserError, match="wrote nothing that can be used in 2 tries: .*holds no words"):
        writer(["...", "123"], tries=2).prompt(BRASS, 0)
    with pytest.raises(UserError, match="in 2 tries: HTTP 500"):
        writer([500, 500], tries=2).prompt(BRASS, 1)
    before = len(server.asked)
    with pytest.raises(UserError, match="refuses the request .HTTP 401"):
        writer([401], tries=4).prompt(BRASS, 2)
    assert len(server.asked) == before + 1


def test_an_endpoint_that_idles_times_out(writer):
    started = time.monotonic()
    with pytest.raises(UserError, match="no answer .timed out"):
        writer([1.0, 1.0], tries=2, timeout=0.1).prompt(BRASS, 0)
    assert time.monotonic() - started < 1.0


def test_requests_are_limited_in_rate(writer, monkeypatch):
    """By a clock that only sleeping moves."""
    now, slept = [50.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(
        "ualm_jax.reason.builders.remote.time", types.SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
    )
    made = writer(["One word.", "Two words.", 503, "Three words."], per_minute=30.0, backoff=5.0)
    for seed in range(3):
        made.prompt(BRASS, seed)
    # The server asks for no wait after 503, so that the last request waits for its turn alone.
    assert slept == [0.0, 2.0, 2.0, 0.0, 2.0]


def test_a_command_writes_too(tmp_path):
    script = tmp_path / "write.py"
    script.write_text("import sys; text = sys.stdin.read(); print('A brass band.' if 'brass' in text else sys.exit(3))")
    config = WriterConfig("command", command=f"{sys.executable} {script}", tries=2, backoff=0.0)
    made = make_writer(config, tmp_path / "cache")
    assert made.prompt(BRASS, 0) == "A brass band."
    with pytest.raises(UserError, match="exit status 3"):
        made.prompt(SCENE, 0)
    with pytest.raises(UserError, match="holds no words"):
        make_writer(WriterConfig("command", command=r"printf '\377\376'", tries=1), tmp_path).prompt(BRASS, 0)
    missing = make_writer(WriterConfig("command", command="no-such-command-anywhere"), tmp_path)
    with pytest.raises(UserError, match="no-such-command-anywhere can not be run"):
        missing.prompt(BRASS, 0)


@pytest.mark.parametrize(
    "turns", [[], DIALOGUE[:1], DIALOGUE[:2], [*DIALOGUE, ["user", "More."]], [["user", "..."], *DIALOGUE[1:]]]
)
def test_a_dialogue_goes_back_and_forth(turns):
    with pytest.raises(BadWriting):
        checked_dialogue([tuple(turn) for turn in turns])


def test_a_prompt_is_words_and_no_rich_caption():
    assert checked_text(' "A  drum." ', "prompt") == "A drum."
    for text, problem in (("", "no words"), ("word " * 61, "has 61 words"), (BRASS.write(), "is a rich caption")):
        with pytest.raises(BadWriting, match=problem):
            checked_text(text, "prompt")


@pytest.mark.parametrize("fields", [{"kind": "endpoint"}, {"kind": "command"}, {"kind": "poet"}, {"tries": 0}])
def test_a_writer_needs_what_it_needs(fields):
    with pytest.raises(UserError, match="writer"):
        WriterConfig(**fields)


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"kind": "endpoint", "url": "localhost:8000/v1", "model": "scribe"}, "writer.url must begin with http"),
        ({"kind": "command", "command": "write 'this"}, "writer.command: .* can not be read .No closing quotation"),
        ({"kind": "command", "command": " "}, "writer.command is empty"),
    ],
)
def test_a_writer_that_can_not_be_asked_is_refused_before_work_begins(fields, problem, tmp_path):
    with pytest.raises(UserError, match=problem):
        make_writer(WriterConfig(**fields), tmp_path)
