"""What a model says that thinks about two clicks and a tone: for scripts (scripted.py)."""

from ualm_jax.tokens.rich_caption import compare, parse

PROMPT = "Two clicks, then a low tone."
PLAN = "Keywords: click, tone\nLayout: click, then tone.\nDescription: click = two, loud; tone = one, medium, low."
WANTED = PLAN.replace(", loud", "")
TURNED = "Keywords: tone, click\nLayout: tone, then click.\nDescription: tone = one, medium, low; click = two."
CRITIQUE = compare(parse(WANTED), parse(TURNED)).sentence()
RIGHT, WRONG = "sound: Two clicks, then a low tone.", "sound: A low tone, then two clicks."
GOOD = (WANTED, "It is as planned.")
BAD = (TURNED, CRITIQUE)
