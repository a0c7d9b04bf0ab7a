"""Scenes in stereo: every event has its place, and all of them stand in one room."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from ualm_jax.data.raw.sound_source import CaptionedSound
from ualm_jax.data.raw.soundscript.render import events
from ualm_jax.data.raw.soundscript.scene import Event, Scene
from ualm_jax.data.raw.soundscript.source2 import SoundScript2

_REVISION = 1  # to be raised whenever the same seed starts to give other sounds
_PLACES = {"kick": 0.0, "snare": -0.25, "hat": 0.6, "clap": -0.5, "click": 0.4, "noise": 0.0, "sweep": -0.6}
_WIDEST = 0.7  # where the lowest (left) and the highest pitches (right) are, as on a piano
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 2000.0
_ASTRAY = 0.08  # standard deviation of a place
_DECAY = (0.12, 0.45)  # seconds in which a room falls silent by 60 dB
_WETNESS_DB = (-26.0, -14.0)  # of the room beside the direct sound
_REFLECTIONS = 6
_PEAK = 0.99


@dataclasses.dataclass(frozen=True)
class StereoScript:
    """The sounds of a SoundScript of language 2, at `script.sample_rate`, stereo. Implements SoundSource.

    Places follow from kind and pitch, as an engineer pans a kit of drums and a piano, and stray a little. A room is
    drawn for every scene: some reflections and a tail, other ones for each ear. Sounds that peak above full scale are
    turned down.
    """

    script: SoundScript2

    name = "soundscript-stereo"
    left_out = ()

    def __len__(self) -> int:
        return len(self.script)

    def __getitem__(self, index: int) -> CaptionedSound:
        script = self.script.script(index)
        wav = render_stereo(script.scene, self.script.sample_rate)
        return CaptionedSound(self.id(index), script.caption, wav, self.script.sample_rate, script.scene.to_dict())

    def id(self, index: int) -> str:
        return f"stereo-{self.script.id(index)}"

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": self.name, "revision": _REVISION, "script": self.script.fingerprint()}


def render_stereo(scene: Scene, sample_rate: int) -> Float32[np.ndarray, "N 2"]:
    """As `render`, with places and a room, which follow from the scene's noise_seed."""
    import scipy.signal  # takes a second, which few who import SoundScript need

    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([3, scene.noise_seed])))
    dry = np.zeros((round(scene.seconds * sample_rate), 2))
    for event, (first, sound) in zip(scene.events, events(scene, sample_rate), strict=True):
        angle = (1 + np.clip(_place(event) + _ASTRAY * rng.standard_normal(), -1, 1)) * np.pi / 4
        dry[first : first + len(sound)] += sound[:, None] * (np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)]))
    mid = dry.mean(1)
    room = _room(rng, sample_rate)
    wet = np.stack([scipy.signal.fftconvolve(mid, room[:, ear])[: len(dry)] for ear in (0, 1)], axis=1)
    wav = dry + wet
    return (wav * min(1.0, _PEAK / np.abs(wav).max())).astype(np.float32)


def _place(event: Event) -> float:
    """-1 left, 1 right."""
    if event.kind in _PLACES:
        return _PLACES[event.kind]
    height = np.log(event.pitch_hz / _LOWEST_HZ) / np.log(_HIGHEST_HZ / _LOWEST_HZ)
    return _WIDEST * float(np.clip(2 * height - 1, -1, 1))


def _room(rng: np.random.Generator, sample_rate: int) -> Float[np.ndarray, "K 2"]:
    """Impulse response for each ear, without the direct sound."""
    import scipy.signal

    decay, wetness = rng.uniform(*_DECAY), 10 ** (rng.uniform(*_WETNESS_DB) / 20)
    count = round(decay * sample_rate)
    t = np.arange(count)[:, None] / sample_rate
    tail = rng.standard_normal((count, 2)) * 10 ** (-3 * t / decay)
    tail[: round(0.01 * sample_rate)] = 0
    # Air and walls take high frequencies first.
    tail = scipy.signal.lfilter([0.35], [1, -0.65], tail, axis=0)
    for ear in (0, 1):
        when = rng.uniform(0.002, 0.03, _REFLECTIONS)
        at = np.minimum((when * sample_rate).astype(int), count - 1)
        np.add.at(tail[:, ear], at, rng.choice([-1, 1], _REFLECTIONS) * 10 ** (-3 * when / decay) * 4)
    return wetness * tail / np.sqrt(np.sum(tail**2, axis=0).mean())
