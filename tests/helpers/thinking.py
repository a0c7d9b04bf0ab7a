"""Jobs of a scripted model that can be killed: python thinking.py (wishes | pairs) GOLDEN OUT."""

import sys
import time
from pathlib import Path

from helpers.scripted import ScriptedModel

PLAN = "Keywords: click\nLayout: click.\nDescription: click = two."
PROMPTS = [f"Wish {index}." for index in range(8)]


class Slow(ScriptedModel):
    def answer(self, *args, **more):
        time.sleep(0.05)
        return super().answer(*args, **more)


def pieces(out: Path) -> int:
    """Of the work, how many are done."""
    results = out / "results.jsonl"
    return results.read_bytes().count(b"\n") if results.is_file() else len(list(out.glob("traces/*.json")))


def main(kind: str, golden: Path, out: Path) -> None:
    if kind == "wishes":
        from ualm_jax.reason import How
        from ualm_jax.reason.items import WishItem
        from ualm_jax.reason.job import Thinking, run_wishes

        heard = [PLAN, "It is as planned."]
        model = Slow({f"Plan first: {prompt}": [PLAN, "sound: Two clicks.", *heard] for prompt in PROMPTS}, slots=1)
        items = [WishItem(f"{index}", prompt) for index, prompt in enumerate(PROMPTS)]
        run_wishes(model, items, Thinking(How()), out)
        return
    from ualm_jax.reason.builders.config import BuildConfig
    from ualm_jax.reason.builders.pool import ScriptPool
    from ualm_jax.reason.builders.rounds import Builder
    from ualm_jax.reason.builders.writer import Templates

    pool, script = ScriptPool(64, 0), {}
    for index in range(8):
        entry = pool[index]
        prompt = Templates().prompt(entry.caption, 2 * index)
        sounds = ("sound: Four claps.", f"sound: {prompt}")
        script[f"Plan first: {prompt}"] = [entry.caption.write(), lambda seed, sounds=sounds: sounds[seed % 2]]
    config = BuildConfig(preference_prompts=8, samples=2, shard_size=1)
    folders = {"tokenizer": golden / "qwen2", "codec": golden / "xcodec"}
    Builder(Slow(script), pool, Templates(), config, folders).pairs(out)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
