import pytest

from ualm_jax.data.raw.sound_source import CaptionedSound
from ualm_jax.data.raw.soundscript import Scene, SoundScript


@pytest.fixture(scope="session")
def source() -> SoundScript:
    return SoundScript(count=500, seed=7)


@pytest.fixture(scope="session")
def captioned(source) -> list[CaptionedSound]:
    return list(source)


@pytest.fixture(scope="session")
def scenes(captioned) -> list[Scene]:
    return [Scene.from_dict(sound.scene) for sound in captioned]
