"""Sound: any file and any AUDIO as samples at 16 kHz, and the features that towers hear."""

from __future__ import annotations

import os
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from qwen_vl_suite.qwenvl.errors import BadAudio, BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.media import audio
from qwen_vl_suite.qwenvl.media.audio_processor import AudioProcessor
from qwen_vl_suite.qwenvl.types import Audio

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def tones(seconds: float, rate: int, channels: int) -> np.ndarray[Any, Any]:
    """A tone of its own in each channel, ``[channels, N]``."""
    time = np.arange(round(seconds * rate)) / rate
    waves = [0.5 * np.sin(2 * np.pi * 300 * (1 + k) * time) for k in range(channels)]
    return np.stack(waves).astype(np.float32)


def write(path: Path, codec: str, seconds: float, rate: int, channels: int) -> Path:
    layout = LAYOUTS[channels]
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        form = stream.codec_context.format.name
        into = av.AudioResampler(form, layout, rate)
        for piece in np.array_split(tones(seconds, rate, channels), max(1, int(seconds * 20)), 1):
            frame = av.AudioFrame.from_ndarray(piece.T.reshape(1, -1), "flt", layout)
            frame.rate = rate
            for made in into.resample(frame):
                file.mux(stream.encode(made))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.wav", "pcm_s16le", 44_100, 2),
        ("a.flac", "flac", 48_000, 6),
        ("a.mkv", "pcm_s16le", 8_000, 1),
        ("b.mkv", "pcm_s16le", 16_000, 8),
    ],
)
def test_a_file_of_any_form_is_the_mean_of_its_channels_at_16_khz(
    tmp_path: Path, name: str, codec: str, rate: int, channels: int
) -> None:
    found = audio.read(write(tmp_path / name, codec, 2.0, rate, channels))
    assert found.rate == 16_000 and found.samples.shape == (1, 32_000)
    expected = tones(2.0, 16_000, channels).mean(0)
    assert np.abs(found.samples[0].numpy() - expected)[300:-300].max() < 1e-3


def test_a_part_is_cut_to_within_a_sample_where_it_is_sought(tmp_path: Path) -> None:
    file = write(tmp_path / "a.flac", "flac", 6.0, 44_100, 1)
    whole = audio.read(file).samples
    assert torch.equal(audio.read(file, 0.25, 2.5).samples, whole[:, 4_000:40_000])
    later = audio.read(file, 4.0, 6.0).samples
    a_sample = 0.5 * 2 * np.pi * 300 / 16_000
    assert (later - whole[:, 64_000:]).abs().max() < a_sample
    with pytest.raises(BadAudio, match="no sound from 7 s on"):
        audio.read(file, 7.0)
    with pytest.raises(BadOption, match="begin before the end"):
        audio.read(file, 2.0, 1.0)


def test_a_damaged_end_costs_no_more_than_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp3", "libmp3lame", 5.0, 44_100, 2)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert 2.0 < audio.seconds(audio.read(file)) < 3.0


def test_a_damaged_spot_costs_no_more_than_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp4", "aac", 10.0, 44_100, 1)
    whole = audio.read(file)
    assert not whole.notes
    held = bytearray(file.read_bytes())
    at = len(held) // 4
    held[at : at + 3000] = bytes([255]) * 3000
    file.write_bytes(held)
    found = audio.read(file)
    assert found.notes == audio.part(found, 1.0).notes == (audio.DAMAGED,)
    assert audio.seconds(found) > 8.0


def test_names_and_tags_of_files_are_not_in_the_way(tmp_path: Path) -> None:
    name = "talk.mp3" if os.name == "nt" else "talk:1.mp3"
    file = write(tmp_path / name, "libmp3lame", 1.0, 44_100, 1)
    plain = audio.read(file)
    tag = b"\x00Beyonc\xe9"  # TIT2 in Latin-1 and a comment as it must not be
    frame = b"TIT2" + len(tag).to_bytes(4, "big") + b"\0\0" + tag
    frame += b"TPE1" + len(tag).to_bytes(4, "big") + b"\0\0" + b"\x03" + tag[1:]
    header = b"ID3\x03\0\0" + bytes([0, 0, 0, len(frame)])
    body = file.read_bytes()
    old = body[6:10]
    skipped = 10 + (old[0] << 21 | old[1] << 14 | old[2] << 7 | old[3])
    file.write_bytes(header + frame + body[skipped:])
    assert torch.equal(audio.read(file).samples, plain.samples)


def test_what_is_no_sound_is_named(tmp_path: Path) -> None:
    silent = tmp_path / "pixels.mp4"
    with av.open(str(silent), "w") as video:
        stream = video.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        video.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        video.mux(stream.encode(None))
    (words := tmp_path / "words.txt").write_text("la la la")
    for path, problem in [
        (silent, "has no sound"),
        (words, "cannot be opened"),
        (tmp_path / "none.wav", "There is no file"),
    ]:
        with pytest.raises(BadAudio, match=problem):
            audio.read(path)


def test_a_waveform_is_resampled_as_a_file_is() -> None:
    both = torch.from_numpy(np.stack([tones(1.5, 44_100, 2), -tones(1.5, 44_100, 2)]))
    first, second = audio.from_waveform(both, 44_100)
    heard = audio.resampled(first)
    assert len(heard) == audio.length(first) == 24_000
    assert np.abs(heard.numpy() - tones(1.5, 16_000, 2).mean(0))[100:-100].max() < 1e-3
    assert torch.allclose(heard, -audio.resampled(second), atol=1e-6)
    assert audio.seconds(audio.part(first, 0.5, 0.75)) == 0.25


@pytest.mark.parametrize("waveform", [None, torch.zeros(1, 1, 0), torch.zeros(4), [[0.0]]])
def test_what_is_no_waveform_is_refused(waveform: Any) -> None:
    with pytest.raises(BadAudio, match="batch, channels and samples"):
        audio.from_waveform(waveform, 16_000)
    with pytest.raises(BadAudio, match="NaN"):
        audio.check_finite(Audio(torch.full((1, 100), torch.nan), 8_000))


def test_a_wav_file_holds_what_was_written(tmp_path: Path) -> None:
    sound = Audio(torch.from_numpy(tones(0.5, 24_000, 1)), 24_000)
    audio.write_wav(sound, tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (24_000, 1, 12_000)
        held = np.frombuffer(file.readframes(12_000), "<i2") / 32767
    assert np.abs(held - sound.samples[0].numpy()).max() < 1e-4


LENGTHS = [16_000 * 3, 16_000 * 3 + 77, 1_700, 16_000 * 61 + 1]


@pytest.mark.parametrize("model_type", ["qwen2_5_omni", "qwen3_omni_moe"])
def test_features_are_those_of_the_official_extractor(model_type: str) -> None:
    from transformers import WhisperFeatureExtractor

    hearing = FAMILIES[model_type].hearing
    assert hearing is not None
    theirs = WhisperFeatureExtractor(16, chunk_length=62)
    ours = AudioProcessor.from_config(hearing, theirs.to_dict(), {"num_mel_bins": 16})
    padding = {"padding": "max_length"} if hearing.pads else {"padding": True, "truncation": False}
    longest = [62 * 16_000] if hearing.pads else []
    for samples in [*LENGTHS, *longest]:
        sound = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
        made = theirs(
            sound.numpy(),
            sampling_rate=16_000,
            return_attention_mask=True,
            return_tensors="pt",
            **padding,
        )
        expected = made["input_features"][0][:, made["attention_mask"][0].bool()]
        found = ours.features(Audio(sound[None], 16_000))
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-5


def test_seconds_become_as_many_tokens_as_the_makers_say() -> None:
    second = Audio(torch.zeros(2, 44_100), 44_100)
    minutes = Audio(torch.zeros(1, 8_000 * 240), 8_000)
    for model_type, a_second in [("qwen2_5_omni", 25), ("qwen3_omni_moe", 13)]:
        hearing = FAMILIES[model_type].hearing
        assert hearing is not None
        processor = AudioProcessor.from_config(hearing, {}, {})
        assert processor.tokens(second) == a_second
        assert processor.tokens(minutes) == 240 * a_second
        with pytest.raises(BadAudio, match="too short"):
            processor.tokens(Audio(torch.zeros(1, 200), 16_000))
        if hearing.max_seconds:
            with pytest.raises(BadAudio, match="301 s long, and this model hears at most 300 s"):
                processor.tokens(Audio(torch.zeros(1, 301), 1))
