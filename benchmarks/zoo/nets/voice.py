"""Silero VAD, a recurrent detector of speech, streaming over a real clip with its own state fed back."""

from __future__ import annotations

import wave

import numpy as np

from ..net import Net, Run, digest, runner
from ..store import Store

RATE, FRAME, CONTEXT, STATE = 16_000, 512, 64, (2, 1, 128)
MODEL = ("silero_vad", "src", "silero_vad", "data", "silero_vad_16k_op15.onnx")
CLIP = ("silero_vad", "tests", "data", "test.wav")
CALIBRATION = 400  # frames from the start, states as the float model left them; the others evaluate
SPEECH = 0.5
# the evaluated part of the clip, several times side by side: (gain, deviation of added noise)
VARIANTS = (
    (1.0, 0.0),
    (0.5, 0.0),
    (0.2, 0.0),
    (1.5, 0.0),
    (1.0, 0.002),
    (1.0, 0.01),
    (0.3, 0.003),
    (0.7, 0.02),
)
SEED = 5


def frames(store: Store) -> np.ndarray:
    """Return the clip as [1875, 576] float32: each frame with the last 64 samples of the one before."""
    with wave.open(str(store.shared(*CLIP))) as clip:
        samples = np.frombuffer(clip.readframes(clip.getnframes()), "<i2").astype(np.float32) / 32768
    return _framed(samples)


def stream(run: Run, rows: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Feed frames [time, batch, 576] one after the other; return probabilities [time, batch] and each state fed."""
    found, states = [], []
    for row in rows:
        states.append(state)
        probability, state = run({"input": row, "state": state, "sr": np.array(RATE, np.int64)})
        found.append(probability[:, 0])
    return np.stack(found), states


def silero(store: Store) -> Net:
    path = store.shared(*MODEL)
    clip, zero = frames(store), np.zeros(STATE, np.float32)
    known = clip[:CALIBRATION, None]
    _, states = stream(runner(path), known, zero)
    calibration = [
        {"input": row, "state": state, "sr": np.array(RATE, np.int64)}
        for row, state in zip(known, states, strict=True)
    ]
    rows = _variants(clip[CALIBRATION:])
    start = np.zeros((2, len(VARIANTS), 128), np.float32)
    speech = stream(runner(path), rows, start)[0] > SPEECH

    def play(run: Run) -> np.ndarray:
        return (stream(run, rows, start)[0] > SPEECH) == speech

    return Net(
        "silero-vad",
        path,
        calibration,
        play,
        calibration[-1],
        "agreement with float",
        speech.size,
        digest(rows, speech),
        note=f"streaming, its own state fed back; {len(VARIANTS)} gains and noises of one clip",
    )


def _framed(samples: np.ndarray) -> np.ndarray:
    whole = len(samples) // FRAME * FRAME
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples[:whole]])
    return np.stack([padded[s : s + CONTEXT + FRAME] for s in range(0, whole, FRAME)])


def _variants(clip: np.ndarray) -> np.ndarray:
    """Return [time, variant, 576]."""
    samples, rng = clip[:, CONTEXT:].ravel(), np.random.default_rng(SEED)
    made = []
    for gain, noise in VARIANTS:
        varied = gain * samples + rng.normal(0, 1, len(samples)) * noise
        made.append(_framed(np.clip(varied, -1, 1).astype(np.float32)))
    return np.ascontiguousarray(np.stack(made, axis=1))
