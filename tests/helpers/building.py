"""A pool, a config and a writer with a bad day: to build the data of reasoning with."""

from ualm_jax.reason.builders.config import BuildConfig, WriterConfig
from ualm_jax.reason.builders.pool import ScriptPool
from ualm_jax.reason.builders.writer import BadWriting, Templates

CONFIG = BuildConfig(
    enrichments=3,
    dialogues=2,
    preference_prompts=4,
    pairs=3,
    reflections=4,
    final_prompts=4,
    samples=2,
    shard_size=2,
    listener="soundscript",
    writer=WriterConfig(workers=1),
)
POOL = ScriptPool(64, 0)


class Moody(Templates):
    """Has nothing to say about the second entry, until it is spared."""

    name = "moody"

    def __init__(self):
        self.asked, self.spared = 0, False

    def prompt(self, caption, seed):
        self.asked += 1
        if caption == POOL[1].caption and not self.spared:
            raise BadWriting("a bad day")
        return super().prompt(caption, seed)


def kinds(messages) -> list[tuple[str, bool]]:
    return [(f"{message.role}: {message.modality}", message.learn) for message in messages]
