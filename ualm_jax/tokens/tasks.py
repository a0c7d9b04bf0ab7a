"""The reference's named tasks as conversations (`task_conf_ualm.py`). A free dialogue is its own messages."""

import dataclasses

from ualm_jax.tokens.types import Role


@dataclasses.dataclass(frozen=True)
class Task:
    """turns: (role, entry) in order, an entry being "text1", "text2" or "audio1"; audio_tag: see Message."""

    turns: tuple[tuple[Role, str], ...]
    audio_tag: str = "audio"


_SAY = ((Role.USER, "text1"), (Role.ASSISTANT, "audio1"))
_LISTEN = ((Role.USER, "text1"), (Role.USER, "audio1"), (Role.ASSISTANT, "text2"))

TASKS: dict[str, Task] = {
    "text_only": Task(((Role.USER, "text1"), (Role.ASSISTANT, "text2"))),
    "caption_to_audio": Task(_SAY),
    "audio_only": Task(_SAY),
    "transcription_to_speech": Task(_SAY, audio_tag="speech"),
    "audio_to_caption": Task(_LISTEN),
    "speech_to_transcription": Task(_LISTEN, audio_tag="speech"),
    "audio_to_conversation": Task(
        ((Role.USER, "audio1"), (Role.USER, "text1"), (Role.ASSISTANT, "text2")),
    ),
}
