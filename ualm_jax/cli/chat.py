"""`ualm chat`: a conversation of texts and sounds in a terminal."""

import argparse
import io
import itertools
import pathlib
import sys
from collections.abc import Callable

from ualm_jax.cli.arguments import Parser, integer, number, output_directory, text
from ualm_jax.cli.generation_arguments import add_guidance, add_model, add_sampling, open_model, settings, tell_of_words
from ualm_jax.errors import UserError

_DESCRIPTION = """\
Talks with a model. What you type is said to it; it answers in words, or with a sound, which is saved and named. Lines
that begin with / are commands, and /help lists them. Lines can be piped in, too.

  ualm chat --model runs/talks
"""

_COMMANDS = """\
/hear FILE [WORDS]          let it hear a sound, and say something about it
/retry                      take its last reply back, and have another one
/seed N                     of the replies from now on
/text /audio /speech /auto  what it replies with; auto: as it likes
/seconds N                  of its sounds, exactly; 0: as it likes
/listen                     let it hear its own last sound
/save FOLDER                keep the conversation; /open FOLDER goes on with one
/quit                       or Ctrl-D"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm chat", description=_DESCRIPTION)
    add_model(parser)
    parser.add_argument("--system", type=text, metavar="TEXT", help="what it is told before the conversation begins")
    parser.add_argument(
        "--out", type=output_directory, default=pathlib.Path("."), metavar="DIR", help="for its sounds; default: here"
    )
    parser.add_argument(
        "--format", choices=("wav", "flac", "ogg", "mp3"), default="wav", help="of its sounds (default %(default)s)"
    )
    add_sampling(parser)
    add_guidance(parser)
    args = parser.parse_args(argv)
    if args.negative is not None:
        parser.error("--negative is for sounds from captions; a conversation has none")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no UTF-8 is refused, and the chat goes on
    chat = _Chat(open_model(args, slots=1), args)
    if sys.stdin.isatty():
        import readline  # noqa: F401  `input` has lines that can be edited and called back with it

        print(f"{chat.model}\nType, or /help.")
    while (line := _read()) is not None:
        try:
            if not chat.take(line):
                break
        except UserError as error:
            print(f"! {error}")
        except OSError as error:
            print(f"! {error.filename or ''}: {error.strerror or error}")
    return 0


def _read() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


class _Chat:
    def __init__(self, model, args: argparse.Namespace):
        self.model, self._args = model, args
        self._session = model.session(system=args.system, seed=args.seed)
        self._modality, self._seconds = "auto" if model.codec else "text", None
        self._drawn_with = self._session.seed

    def take(self, line: str) -> bool:
        """One line of the user. False: it is over."""
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        match command:
            case "":
                return True
            case "/quit" | "/exit":
                return False
            case "/help":
                print(_COMMANDS)
            case "/text" | "/audio" | "/speech" | "/auto":
                self._modality = command[1:]
            case "/seed":
                self._session.seed = _value(rest, command, integer(at_least=0, at_most=2**32 - 1))
            case "/seconds":
                self._seconds = _value(rest, command, number(at_least=0, at_most=3600)) or None
            case "/save":
                self._session.save(_named(rest, command))
                print(f"[{rest}]")
            case "/open":
                self._session = self.model.open_session(_named(rest, command))
                self._drawn_with = self._session.seed
                print(f"[{len(self._session.messages)} messages]")
            case "/retry":
                before = list(self._session.said)
                self._session.undo()
                if self._session.seed == self._drawn_with:  # or /seed has said which one
                    self._session.seed = (self._session.seed + 1) % 2**32
                self._reply(before)
            case "/listen":
                self._say(self._session.listen)
            case "/hear":
                name, _, words = (
                    (rest, "", "") if pathlib.Path(rest).is_file() else _named(rest, command).partition(" ")
                )
                # A question stands before the sound that it is about, as in training.
                self._say(*([words.strip()] if words.strip() else []), pathlib.Path(name))
            case _ if command.startswith("/") and not pathlib.Path(command).exists():
                raise UserError(f"There is no command {command}; /help lists them.")
            case _:
                self._say(line)
        return True

    def _say(self, *what) -> None:
        """Says all of it and shows the reply; where a part cannot be said, or has no reply, none of it is."""
        before = list(self._session.said)
        try:
            for each in what:
                each() if callable(each) else self._session.say(each)
        except UserError:
            self._session.said = before
            raise
        tell_of_words(self.model, [each for each in what if isinstance(each, str)])
        self._reply(before)

    def _reply(self, before: list) -> None:
        """before: what had been said, which it is again where there is no segment of a reply."""
        how, self._drawn_with = settings(self._args), self._session.seed
        asked = len(self._session.said)
        try:
            for segment in self._session.reply(self._modality, seconds=self._seconds, **how):
                self._show(segment)
        except UserError:
            if len(self._session.said) == asked:
                self._session.said = before
            raise

    def _show(self, segment) -> None:
        if segment.modality == "text":
            print(segment.text)
        else:
            self._args.out.mkdir(parents=True, exist_ok=True)
            names = (self._args.out / f"chat-{number:03}.{self._args.format}" for number in itertools.count(1))
            path = next(path for path in names if not path.exists())
            segment.save(path)
            print(f"[{path}: {segment.seconds:.2f} s]")


def _value(words: str, command: str, read: Callable[[str], int | float]) -> int | float:
    """The number behind a command."""
    try:
        return read(words)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{command}: {error}") from None


def _named(words: str, command: str) -> str:
    if not words:
        raise UserError(f"{command} needs a name behind it.")
    return words
