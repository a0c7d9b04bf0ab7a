"""`ualm VERB ...`: finds the verb's module and runs it. Imports nothing heavy, so that help is instant.

Whatever ends a verb that a person can mend becomes one sentence here; `--debug`, or UALM_DEBUG=1, shows the traceback.
"""

import difflib
import importlib
import logging
import os
import sys
import traceback

import ualm_jax
from ualm_jax.cli import interrupts
from ualm_jax.cli.failures import BROKEN_PIPE, INTERRUPTED, explain

VERBS = {
    "data prepare": ("ualm_jax.cli.data_prepare", "texts, sounds and dialogues to shards of tokens"),
    "data encode": ("ualm_jax.cli.data_encode", "encodes the sounds of a dataset, on every device of every host"),
    "data inspect": ("ualm_jax.cli.data_inspect", "what a dataset holds: counts, lengths, examples, packed rows"),
    "convert": ("ualm_jax.cli.convert", "foreign weights in and out, and the proof of a conversion"),
    "score": ("ualm_jax.cli.score", "how likely a model finds the answers of a dataset: what DPO compares with"),
    "prefer build": ("ualm_jax.cli.prefer_build", "answers sampled, scored and paired, to learn preferences from"),
    "train": ("ualm_jax.cli.train", "train a model, or go on where a run stopped"),
    "codec eval": ("ualm_jax.cli.codec_eval", "what a codec keeps of sounds: measures, and a page to listen to"),
    "codec train": ("ualm_jax.cli.codec_train", "a codec of your own, from sounds"),
    "enhance": ("ualm_jax.cli.enhance", "a 16 kHz mono sound to 48 kHz stereo"),
    "enhance train": ("ualm_jax.cli.enhance_train", "an enhancer of your own, from 48 kHz stereo sounds"),
    "enhance eval": ("ualm_jax.cli.enhance_eval", "what an enhancer makes, beside what doing nothing makes"),
    "enhance probe": ("ualm_jax.cli.enhance_probe", "what foreign weights hold, and what of it fits an enhancer"),
    "compile": ("ualm_jax.cli.compile", "does a run fit machines that are not here, and how fast can it be?"),
    "bench": ("ualm_jax.cli.bench", "how fast the parts are on this machine"),
    "bench card": ("ualm_jax.cli.bench_card", "the figures of an accelerator that matter most, in minutes"),
    "env": ("ualm_jax.cli.env", "versions, devices, and the settings that apply here"),
    "generate": ("ualm_jax.cli.generate", "sounds from captions, one or a file of them"),
    "replay": ("ualm_jax.cli.replay", "makes a generated sound again, bit for bit"),
    "ask": ("ualm_jax.cli.ask", "what a model says about a sound"),
    "chat": ("ualm_jax.cli.chat", "a conversation with a model, in texts and sounds"),
    "reason enrich": ("ualm_jax.cli.reason_enrich", "a plan of what is asked for, and a sound from it"),
    "reason dialogue": (
        "ualm_jax.cli.reason_dialogue",
        "the model asks until it knows enough, plans and makes the sound",
    ),
    "reason reflect": (
        "ualm_jax.cli.reason_reflect",
        "the model listens to its sound, criticises it and makes it again",
    ),
    "reason build": ("ualm_jax.cli.reason_build", "what a model learns to think from, in two rounds"),
    "eval reason": ("ualm_jax.cli.eval_reason", "does it help a model to plan, to ask and to listen to itself?"),
    "eval answers": ("ualm_jax.cli.eval_answers", "does a model say what is true of sounds and captions?"),
    "eval soundscript": ("ualm_jax.cli.eval_soundscript", "does a system make the sounds that captions ask for?"),
}
_RESUMED = ("data prepare", "data encode", "train", "score", "prefer build", "codec train", "eval soundscript")
_RESUMED += ("enhance train", "reason enrich", "reason dialogue", "reason reflect", "reason build", "eval reason")


def main() -> int:
    """Entry point of the process."""
    interrupts.watch(_end)
    try:
        status = run(sys.argv[1:])
    except Exception as error:
        if not _joined():
            raise
        traceback.print_exception(error)  # and no further: on its way out, JAX would wait for the others
        status = 1
    if status == INTERRUPTED:
        _leave(status)
    if status and _joined():
        from ualm_jax.parallel import processes

        processes.part()
        _leave(status)
    if status == BROKEN_PIPE:  # what is still to be flushed has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _joined() -> bool:
    """Whether this is one of several processes, without importing JAX to find out."""
    if "ualm_jax.parallel.processes" not in sys.modules:
        return False
    from ualm_jax.parallel import processes

    return processes.joined()


def run(argv: list[str]) -> int:
    """Runs a command line; returns its exit status. Argparse's own exits are raised as SystemExit."""
    debug = "--debug" in argv or os.environ.get("UALM_DEBUG", "") not in ("", "0")
    argv = [argument for argument in argv if argument != "--debug"]
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if argv[:1] in (["-V"], ["--version"]):
        print(f"ualm {ualm_jax.__version__}")
        return 0
    verb = _find(argv)
    if verb is None:
        return _no_verb(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING)
    logging.getLogger("ualm_jax").setLevel(logging.INFO)
    try:
        status = importlib.import_module(VERBS[verb][0]).main(argv[len(verb.split()) :])
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt) as error:
        explained = explain(error)
        if explained is None:
            raise
        if debug:
            traceback.print_exception(error)
        sentence, status = explained
        if status == INTERRUPTED and verb in _RESUMED:
            sentence += "; the same command goes on from what is finished"
        if sentence:
            print(f"ualm {verb}: {sentence}", file=sys.stderr)
        return status


def _find(argv: list[str]) -> str | None:
    for words in (2, 1):
        verb = " ".join(argv[:words])
        if verb in VERBS:
            return verb
    return None


def _no_verb(argv: list[str]) -> int:
    """Help for everything or for a group of verbs, or a sentence with the nearest verb."""
    words = [word for word in argv[:2] if not word.startswith("-")]
    verbs = [verb for verb in VERBS if verb.split()[: len(words)] == words]
    if verbs and len(words) == len([word for word in argv if word not in ("-h", "--help")]):
        print(_help(verbs))
        return 0
    asked = " ".join(words) or argv[0]
    near = difflib.get_close_matches(asked, VERBS, n=1) or [verb for verb in VERBS if verb.split()[-1] == asked][:1]
    meant = f"did you mean `ualm {near[0]}`?" if near else "`ualm --help` lists them."
    print(f"ualm: there is no verb {asked!r}; {meant}", file=sys.stderr)
    return 2


def _help(verbs: list[str]) -> str:
    width = max(map(len, verbs))
    lines = [f"  ualm {verb:<{width}}  {VERBS[verb][1]}" for verb in verbs]
    return "\n".join(
        [
            "UALM in JAX: one language model that understands and makes audio.",
            "",
            *lines,
            "",
            "`ualm VERB --help` explains a verb. With --debug, or UALM_DEBUG=1, an error shows where it came from.",
        ]
    )


def _end() -> None:
    """For a Ctrl-C that did not come through as an exception; called in another thread."""
    interrupts.kill_workers()
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # which a progress bar has hidden
    os.write(2, f"{show_cursor}ualm: {explain(KeyboardInterrupt())[0]}\n".encode())
    os._exit(INTERRUPTED)


def _leave(status: int) -> None:
    """Ends without Python's way out, where threads of XLA in the middle of their work can crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    interrupts.kill_workers()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
