"""Sounds of different kinds, made on the spot: float32 at 16 kHz."""

import numpy as np

RATE = 16000


def sounds(seconds: float = 2.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    samples = int(seconds * RATE)
    time = np.arange(samples) / RATE
    notes = np.repeat(rng.choice([220.0, 262.0, 330.0, 392.0, 523.0], 16), -(-samples // 16))[:samples]
    clicks = np.zeros(samples)
    clicks[rng.integers(0, samples, 40)] = 0.8
    made = {
        "tone": 0.3 * np.sin(2 * np.pi * 437 * time),
        "chord": sum(0.1 * np.sin(2 * np.pi * f * time) for f in (220, 277.2, 329.6, 511)),
        "melody": 0.3 * np.sin(2 * np.pi * np.cumsum(notes) / RATE),
        "sweep": 0.2 * np.sin(2 * np.pi * (100 * time + 1000 * time**2)),
        "noise": 0.1 * rng.standard_normal(samples),
        "quiet noise": 0.003 * rng.standard_normal(samples),
        "clicks": np.convolve(clicks, np.exp(-np.arange(200) / 20) * np.cos(np.arange(200) / 3))[:samples],
    }
    return {name: wav.astype(np.float32) for name, wav in made.items()}
