"""The curves of a training: a page that stands alone, with every value in it, whatever the values are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier.report import training

HOSTILE = '<script>alert("&")</script>'
NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


@st.composite
def histories(draw):
    count = draw(st.integers(0, 12))
    column = st.lists(NUMBERS, min_size=count, max_size=count)
    validated, scored = draw(st.booleans()), draw(st.booleans())
    finite = st.floats(0, 1e6)
    start = draw(st.none() | st.tuples(finite, finite if scored else st.none())) if validated else None
    return {
        "losses": draw(column),
        "validation_losses": draw(column) if validated else [],
        "scores": draw(column) if validated and scored else [],
        "metric": draw(st.sampled_from(["accuracy", "mse", HOSTILE]))
        if validated and scored and count
        else None,
        "start": start,
        "rates": draw(column),
        "seconds": draw(st.lists(finite, min_size=count, max_size=count)),
        "best": draw(st.integers(-1, count - 1)) if validated and count else None,
        "note": draw(st.none() | st.just(HOSTILE)),
    }


@settings(deadline=None, max_examples=120)
@given(history=histories())
def test_any_history_is_a_page_of_its_own(history):
    page = training.page(history, title=HOSTILE)
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="', page)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ET.fromstring(svg)
        for circle in root.iter("circle"):
            assert -1 <= float(circle.get("cx")) <= 421
            assert -1 <= float(circle.get("cy")) <= training.HEIGHT + 1
    # Every finite value is a point that says what it is.
    finite = [v for v in history["losses"] if abs(v) < float("inf")]
    assert page.count("<title>training, epoch") == len(finite)


def test_the_kept_epoch_stands_out_and_the_start_is_epoch_zero():
    history = {
        "losses": [0.9, 0.5, 0.4],
        "validation_losses": [0.8, 0.6, 0.7],
        "scores": [0.7, 0.812, 0.8],
        "metric": "accuracy",
        "start": (1.1, 0.1),
        "rates": [1e-3, 5e-4, 0.0],
        "seconds": [1.0, 1.0, 1.0],
        "best": 1,
        "note": None,
    }
    page = training.page(history)
    assert "3 epochs in 3 s; epoch 2 is kept, accuracy 81.2 %" in page
    assert "<title>validation, epoch 0: 10 %</title>" in page
    kept = re.findall(r'<circle class="c\d kept".*?<title>(.*?)</title>', page)
    assert kept == ["training, epoch 2: 0.5", "validation, epoch 2: 0.6", "validation, epoch 2: 81.2 %"]


def test_the_page_is_written(tmp_path):
    history = {
        **{"losses": [1.0], "validation_losses": [], "scores": [], "metric": None, "start": None},
        **{"rates": [0.1], "seconds": [2.0], "best": None, "note": "stopped"},
    }
    training.write(history, tmp_path / "training.html", title="ResNet20")
    text = (tmp_path / "training.html").read_text(encoding="utf-8")
    assert "<h1>ResNet20</h1>" in text
    assert "stopped" in text


def test_a_real_history_fits(tmp_path):
    pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")
    from farrier_converters.training.fit import History

    history = History(
        losses=[0.5], rates=[0.1], seconds=[1.0], validation_losses=[0.4], start=(0.6, None), best=0
    )
    assert "epoch 1 is kept" in training.page(history.to_dict())
    assert History.of(history.to_dict()) == history
