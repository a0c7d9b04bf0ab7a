"""SoundScript as a source: a sound depends on seed and index alone, in any process."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from ualm_jax.data.raw.sound_source import SoundSource
from ualm_jax.data.raw.soundscript import (
    SoundScript,
)
from ualm_jax.errors import UserError

RATE = 16000


def test_it_is_a_sound_source(source, captioned):
    assert isinstance(source, SoundSource)
    assert len(source) == len(captioned) == 500
    assert len({sound.id for sound in captioned}) == 500
    with pytest.raises(IndexError):
        source[500]
    with pytest.raises(IndexError):
        source[-1]


def test_a_sound_is_the_same_in_any_process(captioned):
    program = (
        "import hashlib; from ualm_jax.data.raw.soundscript import SoundScript; s = SoundScript(500, 7)\n"
        "for i in (499, 3, 41): print(s[i].caption, hashlib.sha256(s[i].wav.tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = [f"{captioned[i].caption} {hashlib.sha256(captioned[i].wav.tobytes()).hexdigest()}" for i in (499, 3, 41)]
    assert printed.splitlines() == here


def test_a_sound_depends_on_seed_and_index_alone(captioned):
    longer = SoundScript(count=10_000, seed=7)
    assert longer[123].caption == captioned[123].caption
    np.testing.assert_array_equal(longer[123].wav, captioned[123].wav)
    other = SoundScript(count=500, seed=8)
    assert sum(other[i].caption == captioned[i].caption for i in range(50)) < 5


def test_the_fingerprint_is_json_and_tells_sources_apart(source):
    settings = [
        {},
        {"seed": 8},
        {"count": 3},
        {"sample_rate": 24000},
        {"min_seconds": 2.0},
        {"max_seconds": 5.0},
    ]
    prints = [json.dumps(SoundScript(**{"count": 500, "seed": 7, **s}).fingerprint()) for s in settings]
    assert len(set(prints)) == len(settings)
    assert prints[0] == json.dumps(source.fingerprint())


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 0},
        {"seed": -1},
        {"sample_rate": 8000},
        {"min_seconds": 0.2},
        {"min_seconds": 3.0, "max_seconds": 2.0},
    ],
)
def test_settings_no_sound_can_meet_are_refused(settings):
    with pytest.raises(UserError, match=f"soundscript.{next(iter(settings))} must be"):
        SoundScript(**{"count": 5, "seed": 0, **settings})


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.5, 1.0), (9.0, 10.0)])
def test_short_and_long_sounds_keep_to_their_limits(low, high):
    for sound in SoundScript(count=40, seed=0, min_seconds=low, max_seconds=high):
        assert low - 0.005 <= len(sound.wav) / RATE <= high + 0.005
