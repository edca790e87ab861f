"""The benchmarks' zoo: each real network scores in float what is known of it, on the rows that its loader gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def zoo() -> Any:
    """The benchmarks' zoo, with what its nets share and the nets."""
    from benchmarks import zoo
    from benchmarks.zoo import net, pictures, store, vary
    from benchmarks.zoo.nets import cifar, faces, signals, spoken, tiny, voice

    return SimpleNamespace(
        load=zoo.load,
        NETS=zoo.NETS,
        cifar=cifar,
        faces=faces,
        net=net,
        pictures=pictures,
        signals=signals,
        spoken=spoken,
        store=store,
        tiny=tiny,
        vary=vary,
        voice=voice,
    )


@pytest.fixture(scope="module")
def store(zoo, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return zoo.store.Store(shared_data, tmp_path_factory.mktemp("zoo"))


def rows_of(net: Any) -> int:
    return sum(len(next(iter(feed.values()))) for feed in net.calibration)


@pytest.mark.parametrize(("name", "right"), [("resnet20", 8611), ("resnet8", 7977)])
def test_classifiers_score_what_is_known_of_all_ten_thousand_pictures(
    zoo, store, name: str, right: int
) -> None:
    net = zoo.load(name, store)
    run = zoo.net.runner(net.path)
    credits = net.play(run)
    assert len(credits) == net.rows == 10_000 - zoo.pictures.CALIBRATION
    _, labels = zoo.pictures.cifar(store)
    known = zoo.net.accuracy(
        {key: np.concatenate([feed[key] for feed in net.calibration]) for key in net.calibration[0]},
        labels[: zoo.pictures.CALIBRATION],
    )(run)
    assert abs(int(credits.sum() + known.sum()) - right) <= 1  # one picture in ten thousand is rounding's


def test_silero_hears_the_speech_that_is_in_its_clip(zoo, store) -> None:
    frames = zoo.voice.frames(store)
    path = store.shared(*zoo.voice.MODEL)
    found, _ = zoo.voice.stream(zoo.net.runner(path), frames[:, None], np.zeros(zoo.voice.STATE, np.float32))
    speech = found[:, 0] > zoo.voice.SPEECH
    assert len(speech) == 1875
    assert speech.mean() == pytest.approx(0.7744, abs=5e-4)
    assert int(np.abs(np.diff(speech.astype(int))).sum()) == 59


def test_silero_agrees_with_itself_and_not_without_its_state(zoo, store) -> None:
    net = zoo.load("silero-vad", store)
    run = zoo.net.runner(net.path)
    assert net.play(run).all()
    forgetful = net.play(lambda feeds: run({**feeds, "state": np.zeros_like(feeds["state"])}))
    assert forgetful.mean() < 0.9


def test_the_autoencoder_rebuilds_its_clip_with_the_published_error(zoo, store) -> None:
    net = zoo.load("anomaly", store)
    frames = np.fromfile(store.shared(*zoo.tiny.CLIP), "<f4").reshape(200, 128)
    windows = np.stack([frames[i : i + 5].ravel() for i in range(196)])
    name = next(iter(net.timed))
    run = zoo.net.runner(net.path)
    rebuilt = np.concatenate([run({name: row[None]})[0] for row in windows])
    assert np.square(rebuilt - windows).mean() == pytest.approx(9.7071, abs=1e-3)
    assert 0.7 < net.play(run).mean() < 1.0


def test_wake_words_sees_the_person_and_calibrates_on_other_views(zoo, store) -> None:
    net = zoo.load("wake-words", store)
    run = zoo.net.runner(net.path)
    name = next(iter(net.timed))
    portrait = zoo.pictures.resized(zoo.pictures.photograph(store, "grace_hopper.bmp"), 96, 96)
    assert run({name: portrait[None].astype(np.float32) / 255})[0][0, 1] == pytest.approx(0.828, abs=2e-3)
    assert rows_of(net) == zoo.tiny.VIEWED
    assert 0.6 < net.play(run).mean() < 1.0


def test_ultraface_finds_the_face_where_it_is(zoo, store) -> None:
    portrait = zoo.pictures.photograph(store, "grace_hopper.bmp")
    picture = zoo.pictures.resized(portrait, zoo.faces.HEIGHT, zoo.faces.WIDTH).transpose(2, 0, 1)
    run = zoo.net.runner(store.shared(*zoo.faces.MODEL))
    scores, boxes = zoo.faces.detect(*run({"input": (np.float32(picture[None]) - 127) / 128}))
    assert scores[0] > 0.99
    assert (scores > 0.7).sum() == 1
    assert np.allclose(boxes[0], zoo.faces.FACE, atol=2e-3)


def test_scenes_hold_their_faces_where_the_boxes_say(zoo, store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the detector is sure of a face, there is one; a few scenes are enough."""
    monkeypatch.setattr(zoo.faces, "SCENES", 8)
    net = zoo.load("ultraface", store)
    run = zoo.net.runner(net.path)
    found = store.arrays(f"faces-{zoo.faces.SCENES}", dict)
    found_at_all = 0
    for index in range(20):
        boxes = found["boxes"][found["owners"] == index]
        scores, detected = zoo.faces.detect(*run(net.calibration[index]))
        for box in detected[scores > 0.7]:
            assert zoo.faces.overlaps(box, boxes).max() > 0.5, f"scene {index} has a face where no box is"
            found_at_all += 1
    assert found_at_all > 10


def test_average_precision_is_the_area_under_the_curve(zoo) -> None:
    face, other = np.array([[0.1, 0.1, 0.3, 0.3]]), np.array([[0.6, 0.6, 0.9, 0.9]])
    right, wrong = (np.array([0.9]), face), (np.array([0.95]), other)
    assert zoo.faces.average_precision([right], [face]) == 1.0
    assert zoo.faces.average_precision([wrong, right], [np.zeros((0, 4)), face]) == 0.5
    twice = (np.array([0.9, 0.8]), np.concatenate([face, face]))
    missed = (np.zeros(0), np.zeros((0, 4)))
    assert zoo.faces.average_precision([twice, missed], [face, face]) == 0.5


def test_the_jackknife_keeps_the_score(zoo) -> None:
    rng = np.random.default_rng(0)
    truth = [np.array([[0.1, 0.1, 0.3, 0.3]])] * 240
    shifts = rng.uniform(0, 0.12, 240)
    detections = [(rng.random(1), truth[0] + shift) for shift in shifts]
    pseudo = zoo.faces.jackknife(detections, truth)
    assert len(pseudo) == zoo.faces.PARTS
    assert pseudo.mean() == pytest.approx(zoo.faces.average_precision(detections, truth))
    assert pseudo.std() > 0


@pytest.mark.parametrize(
    ("name", "known"), [("GunPoint", 0.9133), ("ItalyPowerDemand", 0.9553), ("BasicMotions", 0.6)]
)
def test_series_are_read_as_nearest_neighbours_know_them(zoo, store, name: str, known: float) -> None:
    parts = [
        zoo.signals.read_ts(store.shared(*zoo.signals.UCR, name, f"{name}_{part}.ts").read_text())
        for part in ("TRAIN", "TEST")
    ]
    (x, y), (test, labels) = parts
    x, test = (a.reshape(len(a), -1) for a in (x, test))
    nearest = [int(np.square(x - row).sum(axis=1).argmin()) for row in test]
    assert np.mean([y[i] == label for i, label in zip(nearest, labels, strict=True)]) == pytest.approx(
        known, abs=1e-4
    )


def test_a_tone_lands_in_its_band(zoo) -> None:
    time = np.arange(8000) / zoo.spoken.RATE
    low, high = (zoo.spoken.log_mel(np.sin(2 * np.pi * f * time)) for f in (300, 3000))
    assert low.shape == (zoo.spoken.FRAMES, zoo.spoken.BANDS)
    assert low[10].argmax() < high[10].argmax()


def test_noisy_copies_begin_with_the_rows_and_are_the_same_each_time(zoo) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    made = zoo.vary.noisy(rows, copies=3, scale=0.1)
    assert np.array_equal(made[:3], rows)
    assert np.array_equal(made, zoo.vary.noisy(rows, copies=3, scale=0.1))
    assert 0 < np.abs(made[3:6] - rows).max() < 1


def test_the_benchmark_runs_and_ends_in_one_line_of_json(tmp_path: Path) -> None:
    """On the demo's own network, which needs neither the shared data nor torch."""
    command = [sys.executable, "-m", "benchmarks.quantization.int8_accuracy"]
    options = ["--only", "digits", "--peers", "ort", "--no-latency", "--cache", str(tmp_path)]
    done = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    figure = json.loads(lines[-1])
    assert figure["figure"] == "int8_worst_drop"
    assert figure["value"] <= 0.5
    row = next(line for line in lines if line.startswith("digits")).split()
    assert float(row[1]) > 97
    assert row[3] != "-", "ONNX Runtime's quantizer failed"
