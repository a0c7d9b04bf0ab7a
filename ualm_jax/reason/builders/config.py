"""What the data is built with; the defaults are the paper's numbers, where it gives them."""

import dataclasses
from typing import Annotated

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, NotNegative, OneOf, Positive, check_fields


@dataclasses.dataclass(frozen=True)
class WriterConfig:
    """kind: "templates" needs nothing; "endpoint" asks `model` at `url` (OpenAI's chat completions, such as
    http://localhost:8000/v1) with the key in the environment variable `key_from`; "command" runs `command`.

    timeout: seconds. tries: how often a text is asked for until it can be used; backoff: seconds before the second try,
    doubled with each. per_minute: requests, None for no limit. workers: texts that are written at once.
    """

    kind: Annotated[str, OneOf(("templates", "endpoint", "command"))] = "templates"
    url: str = ""
    model: str = ""
    key_from: str = ""
    command: str = ""
    temperature: NotNegative = 0.7
    timeout: Positive = 60.0
    tries: Count = 4
    backoff: NotNegative = 1.0
    per_minute: Positive | None = None
    workers: Count = 8

    def __post_init__(self):
        check_fields(self, "writer")
        needed = {"endpoint": ("url", "model"), "command": ("command",)}.get(self.kind, ())
        for name in needed:
            if not getattr(self, name).strip():
                raise UserError(f"writer.{name} is empty, but a writer of the kind {self.kind} needs it.")


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """Sizes of what is built, and how.

    sounds: "soundscript", or a JSON lines file of {"audio": FILE, "rich_caption": TEXT} with "id" if wanted; seed:
    decides everything that is drawn. enrichments, dialogues: conversations of round 1. preference_prompts: prompts of
    round 1 of which each is answered `samples` times; pairs: the most that are kept of them, those with the largest
    margins.
    reflections: conversations of round 2. final_prompts: prompts answered with and without reflection.
    scorer: says which answer is better (generate/scorers.py); margin: by how much at least; chosen_at_least,
    rejected_at_most: bounds of its scores. listener: who writes the rich caption of a first attempt: "model" itself,
    "soundscript" (a program that hears it), or your own, module:function or file.py:function, called with the clip.
    seconds: length of the sounds that the model makes, None: it ends them itself. shard_size: prompts that are saved
    together.
    slots: answers made at once. workers: processes that read sounds for the conversations of round 1.
    max_bad_fraction: share of the entries that may be unusable, or without a text, before the job stops.
    """

    sounds: str = "soundscript"
    seed: Natural = 0
    enrichments: Natural = 500_000
    dialogues: Natural = 250_000
    preference_prompts: Count = 250_000
    pairs: Count = 60_000
    reflections: Count = 60_000
    final_prompts: Count = 20_000
    samples: Annotated[int, Bounds(at_least=2)] = 5
    scorer: str = "soundscript"
    margin: NotNegative = 0.0
    chosen_at_least: float | None = None
    rejected_at_most: float | None = None
    listener: str = "model"
    seconds: Positive | None = None
    temperature: NotNegative = 0.8
    text_temperature: NotNegative = 0.0
    cfg_scale: NotNegative = 3.0
    max_tokens: Count = 256
    shard_size: Count = 64
    slots: Count = 8
    workers: Count = 1
    max_bad_fraction: NotNegative = 0.05
    writer: WriterConfig = WriterConfig()

    def __post_init__(self):
        check_fields(self, "config")
        if self.enrichments + self.dialogues == 0:
            raise UserError("config.enrichments and config.dialogues are both 0; there is nothing to build.")
