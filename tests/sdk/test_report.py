"""The report's page: self-contained, well-formed, and nothing in it that a model's names could break."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier import report
from farrier.optimization import Entry
from farrier.optimization.build import apply
from farrier.optimization.output import fusions
from farrier.report import plots, words
from farrier_contracts import targets
from farrier_converters import passes
from farrier_converters.measure import Latency
from farrier_converters.model import from_proto
from farrier_converters.search import plan

HOSTILE = '<script>alert("&")</script>'


def entry(name, *, kept=False, latency=2.0, samples=(1.0, 2.0, 3.0), **fields):
    timed = Latency(1, 1, latency, latency * 2, 0.05, 500.0, 1900.0, samples) if latency else None
    figures = {"metric": 0.97, "drop": 0.01, "size_bytes": 1000, "peak_memory_bytes": 5000} if latency else {}
    return Entry(
        name, "int8", kept=kept, reason="because", metric_name="accuracy", latency=timed, **figures, **fields
    )


def facts(entries, profile=((1, 2.0), (4, 5.0))):
    return report.document(
        job={
            "model": {"name": HOSTILE, "sha256": "0" * 64},
            "target": {"name": "x86-avx2", "description": "a processor"},
            "budget": {"max_drop": 0.01, "max_latency_ms": None, "max_size_bytes": None},
            "data": {
                "source": "d.npz",
                "rows": 10,
                "calibration_source": "d.npz",
                "calibration_rows": 2,
                "seed": 0,
            },
            "metric": {"name": "accuracy", "higher_is_better": True, "relative": False},
        },
        baseline=entries[0],
        delivered=next(e for e in entries if e.kept),
        entries=entries,
        profile=profile,
        ledger=[
            {"index": 0, "name": HOSTILE, "op": "Conv", "unit": "cpu", "precision": "int8", "reason": None}
        ],
        warnings=[HOSTILE],
        environment={"onnx": "1"},
        recipe={"name": "int8"},
        bundle={"file": "model.farrier"},
    )


class Page(HTMLParser):
    """Counts open tags and gathers the text."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


ENTRIES = [
    entry("original", latency=8.0),
    entry(HOSTILE, latency=4.0),
    entry("int8", kept=True),
    entry("fp16", latency=None),
]


@pytest.mark.parametrize(
    "entries", [ENTRIES, [entry("original", kept=True)], [entry("original", kept=True, samples=())]]
)
def test_the_page_stands_alone_and_is_well_formed(entries):
    html = report.html(facts(entries), entries)
    page = Page()
    page.feed(html)
    assert page.open == []
    assert page.links == []
    assert not re.search(r"https?:|url\(|@import", html)
    assert "<script" not in html
    text = " ".join(" ".join(page.text).split())
    assert HOSTILE in text
    for e in entries:
        assert e.name in text
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        root = ET.fromstring(svg)
        numbers = [
            float(v) for node in root.iter() for k, v in node.attrib.items() if k in ("x", "y", "cx", "cy")
        ]
        assert all(-1 <= number <= 600 for number in numbers)


def test_the_page_says_what_was_fused(resnet20_proto):
    model = from_proto(resnet20_proto, "resnet20")
    candidate, statistics = plan(targets.get("x86-avx2"), ["fp32"])[0], {}
    apply(model, candidate, passes.Context(statistics=statistics))
    document = facts(ENTRIES) | {"fusions": fusions.of(candidate, statistics)}
    norms = [a for a in document["fusions"]["applied"] if a["rule"] == "batch norm into the layer before"]
    assert len(norms) == 19
    assert all(0 < a["proof"]["max_rel"] < 1e-5 and a["gain"]["operations"] > 0 for a in norms)
    assert document["fusions"]["left_out"] == []
    json.dumps(document)
    page = Page()
    page.feed(report.html(document, ENTRIES))
    assert page.open == []
    assert "Graph optimization (19)" in " ".join(page.text)


def test_the_facts_say_what_the_entries_say():
    document = facts(ENTRIES)
    assert document["speedup"] == pytest.approx(4.0)
    assert document["delivered"]["name"] == "int8"
    assert "4.00x as fast" in document["verdict"]
    again = [Entry.from_document(item).to_document() for item in document["candidates"]]
    assert again == document["candidates"]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low, span):
    found = plots.ticks(low, low + span)
    slack = span * 1e-6 + abs(low) * 1e-9
    assert len(found) <= 8
    assert all(low - slack <= tick <= low + span + slack for tick in found)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.milliseconds(0.0123), "12.3 µs"),
        (words.milliseconds(12.345), "12.3 ms"),
        (words.milliseconds(None), "–"),
        (words.size(999), "999 B"),
        (words.size(4_200_000), "4.20 MB"),
        (words.drop(0.0123, relative=False), "-1.23 pt"),
        (words.drop(-0.02, relative=True), "2 % better"),
        (words.drop(0.005, relative=True), "0.5 % worse"),
        (words.drop(0.0, relative=False), "0"),
    ],
)
def test_figures_read_well(said, expected):
    assert said == expected
