"""An encoded recording → one channel of float32 at a model's rate, block by block: what is held is the result and one block.

What enters: bytes. What leaves: samples. A recording's head may claim any rate, length and number of channels, and few bytes
of flac are hours of silence: all three are bounded while it is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import soundfile

from .contract import BadInput
from .resampling import HIGHEST_RATE, LOWEST_RATE, resample

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "MPEG", "AIFF", "AU", "CAF"})
MOST_CHANNELS = 32
LONGEST_S = 3_600.0  # 230 MB at 16 kHz, and five times that while Whisper makes features of it
_BLOCK = 2**18  # samples of all channels


def read_audio(data: bytes, rate: int, longest_s: float) -> np.ndarray:
    """The mean of all channels at ``rate``. ``BadInput`` for what lasts longer than ``longest_s``."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in FORMATS:
                raise BadInput(f"AUDIO is {file.format}; send wav, flac, ogg or mp3")
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
                raise BadInput(
                    f"AUDIO claims {file.samplerate:,} samples a second; {LOWEST_RATE:,} to {HIGHEST_RATE:,} are taken"
                )
            if file.channels > MOST_CHANNELS:
                raise BadInput(f"AUDIO has {file.channels} channels, at most {MOST_CHANNELS} are taken")
            samples = resample(_blocks(file, longest_s), file.samplerate, rate)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, OSError) as error:
        reason = getattr(error, "error_string", error)
        raise BadInput(f"AUDIO cannot be read as wav, flac, ogg or mp3 ({len(data)} bytes): {reason}") from error
    if not len(samples):
        raise BadInput("AUDIO holds no sound")
    if not np.isfinite(samples).all():
        raise BadInput("AUDIO holds samples that are no numbers")
    return samples


def _blocks(file: soundfile.SoundFile, longest_s: float) -> Iterator[np.ndarray]:
    left = int(longest_s * file.samplerate)
    while True:
        block = file.read(max(1, _BLOCK // file.channels), dtype="float32", always_2d=True)
        if not len(block):
            return
        left -= len(block)
        if left < 0:
            raise BadInput(f"AUDIO lasts longer than {longest_s:g} s, which is what this model takes; cut it into parts")
        yield block.mean(axis=1)
