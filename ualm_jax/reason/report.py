"""What was thought about a wish as one HTML page that needs nothing beside it."""

import html

from ualm_jax.audio.page import picture, player
from ualm_jax.generate.inputs import audible
from ualm_jax.reason.course import REASONS
from ualm_jax.reason.events import Ended, Version

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{prompt}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }}
pre {{ background: #f4f4f4; padding: .7em; white-space: pre-wrap; font: 14px/1.4 ui-monospace, monospace }}
.version {{ border-top: 1px solid #ddd; padding: .5em 0 }} .best {{ border-left: 4px solid #4a4; padding-left: 1em }}
img {{ width: 100%; height: 9em; image-rendering: pixelated }} audio {{ width: 100% }} small {{ color: #777 }}
</style></head><body>
<h1>{prompt}</h1>{talk}<h2>Plan</h2><pre>{plan}</pre>{versions}<h2>Decision</h2><p>{decision}</p>
</body></html>
"""


def to_html(ended: Ended) -> str:
    """Prompt, questions, plan, each version with spectrogram, player, what was heard of it and the critique; and the
    decision."""
    talk = "".join(f"<p>{html.escape(asked)} <b>{html.escape(answer)}</b></p>" for asked, answer in ended.talk)
    return _PAGE.format(
        prompt=html.escape(ended.prompt),
        talk=f"<h2>Questions</h2>{talk}" if talk else "",
        plan=html.escape(ended.plan or "none"),
        versions="".join(_version(each, each is ended.best) for each in ended.versions),
        decision=html.escape(decision(ended)),
    )


def decision(ended: Ended) -> str:
    """ "v2 is kept: the critique finds nothing wrong (143 steps)."."""
    kept = f"{ended.best.name} is kept" if ended.best else "nothing is kept"
    problem = f": {ended.problem}" if ended.problem else ""
    return f"{kept}: {REASONS[ended.reason]}{problem} ({ended.steps} steps)."


def _version(version: Version, best: bool) -> str:
    wav, rate = audible(version.clip.samples), version.clip.rate
    sound = picture(wav, rate) + player(wav, rate)
    score = ""
    if version.score is not None:
        score = f"score {version.score.value:.3g}" if version.score.problem is None else version.score.problem
    texts = [("Heard", version.heard), ("Critique", version.critique)]
    told = "".join(f"<h3>{name}</h3><pre>{html.escape(text)}</pre>" for name, text in texts if text is not None)
    about = f"{version.clip.seconds:.2f} s, seed {version.clip.seed}" + f", {html.escape(score)}" * bool(score)
    kept = " (kept)" if best else ""
    return (
        f'<div class="version{" best" * best}"><h2>{version.name}{kept} <small>{about}</small></h2>{sound}{told}</div>'
    )
