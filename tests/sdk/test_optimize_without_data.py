"""`farrier optimize MODEL` and nothing else: what is delivered holds on real data that it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import farrier
from farrier.optimization import Settings, TrialSettings
from farrier_converters.graph import run
from farrier_converters.measure import LatencySettings
from farrier_converters.model import load

ASSETS = Path(farrier.__file__).parent / "showcase" / "assets"
QUICK = Settings(
    trial=TrialSettings(
        latency=LatencySettings(rounds=3, most_rounds=3, round_s=0.005),
        profile=LatencySettings(rounds=2, most_rounds=2, round_s=0.002),
    )
)
RECIPE = """
version = 1
[[candidate]]
name = "int8"
precision = "int8"
[[candidate.pass]]
name = "clean"
[[candidate.pass]]
name = "fuse"
[[candidate.pass]]
name = "int8"
"""


def test_int8_without_data_holds_on_real_rows_and_rebuilds_from_its_lock(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    given = {"target": "x86-vnni", "max_drop": "20%", "settings": QUICK}
    outcome = farrier.optimize(
        ASSETS / "digits.onnx", recipe=tmp_path / "recipe.toml", max_size="150KB", out=tmp_path / "o", **given
    )
    assert any("made-up inputs" in warning for warning in outcome.warnings)
    # Made-up inputs are large enough to saturate 16 bits elsewhere: then the variant that cannot is delivered.
    assert outcome.delivered.name in ("int8", "int8-7bit")
    with np.load(ASSETS / "digits-eval.npz") as rows:
        images, labels = rows["image"], rows["labels"]
    scores = [
        (run.once(load(path).proto, {"image": images})[0].argmax(1) == labels).mean()
        for path in (ASSETS / "digits.onnx", tmp_path / "o" / "model.onnx")
    ]
    assert scores[0] > 0.95
    assert scores[0] - scores[1] <= 0.006
    again = farrier.optimize(
        ASSETS / "digits.onnx", locked=tmp_path / "o" / "recipe.lock", out=tmp_path / "p", settings=QUICK
    )
    assert (tmp_path / "p" / "model.onnx").read_bytes() == (tmp_path / "o" / "model.onnx").read_bytes()
    assert again.delivered.name == outcome.delivered.name
