"""The statistics as Prometheus text (exposition format 0.0.4), named after OpenTelemetry and after Triton. Pure."""

from __future__ import annotations

from typing import Iterator, Mapping, Tuple

from ..stats import BOUNDS_NS, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name, help, fields that are summed
_COUNTERS = (
    ("inference_items_total", "Rows that the model ran.", ("items",)),
    ("inference_executions_total", "Runs of the model.", ("executions",)),
    ("inference_cache_hits_total", "Requests whose answer was kept.", ("cache_hits",)),
    ("inference_cache_misses_total", "Requests whose answer was not kept.", ("cache_misses",)),
    (
        "inference_cache_verify_failures_total",
        "Kept answers that a second run did not confirm.",
        ("cache_mismatches",),
    ),
    ("nv_inference_request_success", "Requests answered.", ("requests",)),
    ("nv_inference_request_failure", "Requests not answered.", ("errors", "rejected")),
    ("nv_inference_count", "Rows that the model ran.", ("items",)),
    ("nv_inference_exec_count", "Runs of the model.", ("executions",)),
    ("nv_cache_num_hits_per_model", "Requests whose answer was kept.", ("cache_hits",)),
    ("nv_cache_num_misses_per_model", "Requests whose answer was not kept.", ("cache_misses",)),
)
_DURATIONS = (
    ("inference_queue_duration_seconds_total", "Time that requests waited.", "queue_sum_ns", 1e9),
    ("inference_compute_duration_seconds_total", "Time that the model ran.", "compute_sum_ns", 1e9),
    ("nv_inference_request_duration_us", "Time of requests answered.", "duration_sum_ns", 1e3),
    ("nv_inference_queue_duration_us", "Time that requests waited.", "queue_sum_ns", 1e3),
    ("nv_inference_compute_infer_duration_us", "Time that the model ran.", "compute_sum_ns", 1e3),
)
_GAUGES = (
    ("inference_requests_in_flight", "Requests being answered.", "in_flight"),
    ("inference_queue_depth", "Requests that wait.", "queue_depth"),
    ("nv_inference_pending_request_count", "Requests that wait.", "queue_depth"),
)


def render(seen: Snapshot, labels: Mapping[str, str]) -> str:
    """Return all metrics with the same labels; nothing in it grows with the number of requests."""
    return "\n".join(_lines(seen, labels)) + "\n"


def _lines(seen: Snapshot, labels: Mapping[str, str]) -> Iterator[str]:
    values, plain = vars(seen), _labels(labels)
    yield from _head("inference_requests_total", "counter", "Requests by outcome.")
    for outcome, field in (("success", "requests"), ("error", "errors"), ("rejected", "rejected")):
        yield f"inference_requests_total{_labels({**labels, 'outcome': outcome})} {values[field]}"
    yield from _histogram(seen, labels)
    for name, text, fields in _COUNTERS:
        yield from _head(name, "counter", text)
        yield f"{name}{plain} {sum(values[field] for field in fields)}"
    for name, text, field, divisor in _DURATIONS:
        yield from _head(name, "counter", text)
        yield f"{name}{plain} {values[field] / divisor:.9g}"
    for name, text, field in _GAUGES:
        yield from _head(name, "gauge", text)
        yield f"{name}{plain} {values[field]}"


def _histogram(seen: Snapshot, labels: Mapping[str, str]) -> Iterator[str]:
    name = "inference_request_duration_seconds"
    yield from _head(name, "histogram", "Time from a request's last byte to its answer.")
    total = 0
    bounds: Tuple[str, ...] = (*(f"{bound / 1e9:.9g}" for bound in BOUNDS_NS), "+Inf")
    for bound, count in zip(bounds, seen.buckets):
        total += count
        yield f"{name}_bucket{_labels({**labels, 'le': bound})} {total}"
    yield f"{name}_sum{_labels(labels)} {seen.duration_sum_ns / 1e9:.9g}"
    yield f"{name}_count{_labels(labels)} {total}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    quoted = (f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
