"""A fixed small corpus in every raw form: the token grids are these for ever, and the form does not show in them."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
from helpers.fake_sounds import FakeCodec, prepare_fake

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.data.dataset.audio_input import with_frames
from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.raw.conversation import CaptionedConversations
from ualm_jax.data.raw.formats import JsonConversations
from ualm_jax.data.raw.hugging_face import HubSounds
from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.data.raw.webdataset import WebDatasetSounds
from ualm_jax.tokens.layout import build_grid

RATE = FakeCodec.sample_rate
FRONT_END = MelFrontEnd(400, windowed=False, normalize=True, max_seconds=4.0)
QUESTION = "What do you hear?"
CAPTIONS = ("A dog barks twice.", "Regen auf Blech, leise: ½ Minute.", "雨の音", "x")
SAMPLES = (1600, 727, 4000, 960)  # one is no whole number of codec frames
OFFSET = 240  # samples before the sound, in the forms that know segments
TALKS = (
    (("system", "Be brief."), ("user", "2+2?"), ("assistant", "4")),
    (("user", "¿Qué?"), ("user", "!"), ("assistant", 'Nothing \\n "at" all.')),
)
GOLDEN = {
    "made": "84caf0c2fae52e113be2414614bbf3fdcff90f5d205dcf83c953bc10967df929",
    "spoken": "ca5674868145b72b70d3ab2ebceb4ff107781dd80408a1fa4a9beeb96f4af3bc",
    "heard": "b3a8c3ac17ccef27d9e20318847d52473abe8e448cc742a6fcf3bdbde45d6956",
    "talked": "be89134c20db3e70744fd27696315e31b25abefddb27288466451ce718a76859",
}


def samples(number: int) -> np.ndarray:
    """16-bit integers, whatever the platform's floating point."""
    return np.random.default_rng(number).integers(-20000, 20000, SAMPLES[number]).astype(np.int16)


def sound_file(number: int, format: str, before: int = 0) -> bytes:
    file = io.BytesIO()
    padded = np.concatenate([np.full(before, 7, np.int16), samples(number), np.full(before, 7, np.int16)])
    soundfile.write(file, padded, RATE, format=format, subtype="PCM_16")
    return file.getvalue()


def write_json(folder, records, *, listed=False):
    """The sounds as files and the records as JSONL or, listed, as one JSON list."""
    for number in range(len(CAPTIONS)):
        (folder / f"{number}.wav").write_bytes(sound_file(number, "WAV"))
        (folder / f"{number}.flac").write_bytes(sound_file(number, "FLAC", before=OFFSET))
    path = folder / "raw.json"
    path.write_text(json.dumps(records) if listed else "".join(json.dumps(record) + "\n" for record in records))
    return path


def segment(number: int) -> tuple[float, float]:
    return OFFSET / RATE, (OFFSET + SAMPLES[number]) / RATE


def generation(folder, _):
    records = []
    for number, caption in enumerate(CAPTIONS):
        start, end = segment(number)
        record = {"location": f"{number}.flac", "caption": caption, "sample_rate": RATE, "start_time": start}
        records.append(record | {"end_time": end, "duration": end - start})
    return JsonConversations(write_json(folder, records), "generation")


def understanding(folder, _):
    records = [
        {
            "id": f"u{number}",
            "sound": f"{number}.wav",
            "duration": SAMPLES[number] / RATE,
            "conversations": [
                {"from": "human", "value": f"{QUESTION}\n<sound>"},
                {"from": "gpt", "value": caption},
            ],
        }
        for number, caption in enumerate(CAPTIONS)
    ]
    return JsonConversations(write_json(folder, records, listed=True), "understanding")


def text(folder, _):
    records = [
        {"input": [{"role": role, "content": said} for role, said in turns[:-1]], "output": turns[-1][1]}
        for turns in TALKS
    ]
    return JsonConversations(write_json(folder, records), "text")


def dialogue(folder, content):
    turns = {
        "made": lambda number: [["user", "text", CAPTIONS[number]], ["assistant", "audio", f"{number}.wav"]],
        "spoken": lambda number: [["user", "text", CAPTIONS[number]], ["assistant", "speech", f"{number}.wav"]],
        "heard": lambda number: [
            ["user", "text", QUESTION],
            ["user", "audio", f"{number}.wav"],
            ["assistant", "text", CAPTIONS[number]],
        ],
        "talked": lambda number: [[role, "text", said] for role, said in TALKS[number]],
    }[content]
    count = len(TALKS if content == "talked" else CAPTIONS)
    return JsonConversations(write_json(folder, [{"messages": turns(number)} for number in range(count)]), "dialogue")


def captioned(sounds, content):
    task = {"made": "caption_to_audio", "spoken": "transcription_to_speech", "heard": "audio_to_caption"}[content]
    return CaptionedConversations(sounds, task, QUESTION)


def manifest(folder, content):
    records = []
    for number, caption in enumerate(CAPTIONS):
        start, end = segment(number)
        records.append({"audio": f"{number}.flac", "caption": caption, "start": start, "end": end})
    return captioned(Manifest(write_json(folder, records), RATE), content)


def hub(folder, content):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for part in range(2):
        numbers = range(2 * part, 2 * part + 2)
        audio = [{"bytes": sound_file(number, "WAV"), "path": None} for number in numbers]
        table = arrow.table({"audio": audio, "text": [CAPTIONS[number] for number in numbers]})
        parquet.write_table(table, folder / f"train-{part:05d}.parquet")
    return captioned(HubSounds(folder, RATE), content)


def webdataset(folder, content):
    with tarfile.open(folder / "set-0.tar", "w") as tar:
        for number, caption in enumerate(CAPTIONS):
            for name, value in (("flac", sound_file(number, "FLAC")), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{number}.{name}")
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return captioned(WebDatasetSounds(folder / "set-0.tar", RATE), content)


FORMS = [
    (generation, "made"),
    (manifest, "made"),
    (hub, "made"),
    (webdataset, "made"),
    (dialogue, "made"),
    (manifest, "spoken"),
    (hub, "spoken"),
    (dialogue, "spoken"),
    (understanding, "heard"),
    (manifest, "heard"),
    (hub, "heard"),
    (webdataset, "heard"),
    (dialogue, "heard"),
    (text, "talked"),
    (dialogue, "talked"),
]


def grid_hash(info) -> str:
    """Of tokens, loss weights and places of clips, of all conversations in order; little-endian, so anywhere."""
    digest, records = hashlib.sha256(), open_records(info)
    for index in range(info.records):
        grid = build_grid(with_frames(records[index].messages, FRONT_END), info.vocabulary)
        digest.update(repr(grid.tokens.shape).encode())
        digest.update(grid.tokens.astype("<i4").tobytes() + grid.loss_weights.astype("<f4").tobytes())
        digest.update(repr([(clip.start, clip.length) for clip in grid.clips]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize(("form", "content"), FORMS, ids=[f"{form.__name__}-{content}" for form, content in FORMS])
def test_a_raw_form_gives_the_golden_grids(form, content, parts, tmp_path):
    (tmp_path / "raw").mkdir()
    info = prepare_fake(form(tmp_path / "raw", content), parts, tmp_path / "out", shard_size=3)
    assert info.records == len(TALKS if content == "talked" else CAPTIONS) and info.quarantined == 0
    assert grid_hash(info) == GOLDEN[content]


def test_the_golden_codes_are_far_from_where_the_codec_rounds():
    """So that no platform's rounding can change a code, and with it a hash."""
    for number in range(len(CAPTIONS)):
        scaled = (samples(number)[: SAMPLES[number] // FakeCodec.hop * FakeCodec.hop] / 32768 + 1) * 15.9
        used = scaled.reshape(-1, FakeCodec.hop)[:, :8]
        assert np.abs(used - np.round(used)).min() > 1e-5
