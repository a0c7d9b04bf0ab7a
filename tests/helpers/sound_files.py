"""Sound files of every format, as bytes, and what is heard in them."""

import io

import numpy as np
import soundfile

FORMATS = ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3")


def tones(*hertz: float, rate: int = 16000, seconds: float = 1.0) -> np.ndarray:
    """A tone after the other, each of `seconds`, float32 [N]."""
    time = np.arange(round(rate * seconds)) / rate
    return np.concatenate([0.4 * np.sin(2 * np.pi * each * time) for each in hertz]).astype(np.float32)


def sound_file(wav: np.ndarray, format: str = "WAV", rate: int = 16000, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wav, rate, format=format, **options)
    return file.getvalue()


def heard(wav: np.ndarray, rate: int = 16000) -> list[int]:
    """The strongest frequency of each whole second, to 10 Hz; the last second may lack some ms."""
    seconds = [wav[start : start + rate] for start in range(0, len(wav) - rate // 2, rate)]
    spectra = [np.abs(np.fft.rfft(part * np.hanning(len(part)), rate)) for part in seconds]
    return [round(int(spectrum.argmax()), -1) for spectrum in spectra]


def frames_of_mp3(data: bytes) -> list[bytes]:
    """The frames of an MP3 file of LAME: the first one says how many there are."""
    rates = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
    kbits = {3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
    low = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    frames, position = [], 0
    while position < len(data):
        version, index = data[position + 1] >> 3 & 3, data[position + 2]
        bits = kbits.get(version, low)[(index >> 4) - 1] * 1000
        size = (144 if version == 3 else 72) * bits // rates[version][index >> 2 & 3] + (index >> 1 & 1)
        frames.append(data[position : position + size])
        position += size
    return frames
