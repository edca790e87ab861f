"""What the local API says about itself and its model. Pure functions."""

from __future__ import annotations

from typing import Any, Dict

from farrier_contracts import __version__
from farrier_contracts.bundle import Manifest

from ..batching import rules
from ..stats import Snapshot

# only what is there: clients switch on these words
EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics", "system_shared_memory"]


def server_metadata() -> Dict[str, Any]:
    """Return `GET v2`."""
    return {"name": "farrier-agent", "version": __version__, "extensions": EXTENSIONS}


def model_metadata(name: str, manifest: Manifest) -> Dict[str, Any]:
    """Return `GET v2/models/NAME`."""
    return {
        "name": name,
        "versions": [manifest.version],
        "platform": platform(manifest),
        "inputs": [spec.to_dict() for spec in manifest.inputs],
        "outputs": [spec.to_dict() for spec in manifest.outputs],
        "properties": {"bundle": manifest.name, "digest": manifest.digest},
    }


def platform(manifest: Manifest) -> str:
    """Return engine and format, in the protocol's manner: onnxruntime_onnx."""
    artifact = manifest.artifacts[0]
    return f"{artifact.engine}_{artifact.format}"


def model_config(name: str, manifest: Manifest, *, cached: bool) -> Dict[str, Any]:
    """Return `GET v2/models/NAME/config`: dims leave the row axis out, where there is one, as Triton's do."""
    first = 1 if rules.has_rows(manifest) else 0
    largest = rules.largest_batch(manifest)
    config: Dict[str, Any] = {
        "name": name,
        "platform": platform(manifest),
        "backend": manifest.artifacts[0].engine,
        "max_batch_size": manifest.batching.max_batch if first else 0,
        "input": [
            {"name": s.name, "data_type": _config_type(s.datatype), "dims": list(s.shape[first:])}
            for s in manifest.inputs
        ],
        "output": [
            {"name": s.name, "data_type": _config_type(s.datatype), "dims": list(s.shape[first:])}
            for s in manifest.outputs
        ],
        "response_cache": {"enable": cached},
    }
    if largest > 1:
        config["dynamic_batching"] = {"preferred_batch_size": [largest], "max_queue_delay_microseconds": 0}
    return config


def _config_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def statistics(name: str, version: str, seen: Snapshot) -> Dict[str, Any]:
    """Return `GET v2/models/NAME/stats`; durations in nanoseconds."""
    executed = max(0, seen.requests - seen.cache_hits)

    def duration(count: int, ns: int) -> Dict[str, int]:
        return {"count": count, "ns": ns}

    return {
        "model_stats": [
            {
                "name": name,
                "version": version,
                "inference_count": seen.items,
                "execution_count": seen.executions,
                "inference_stats": {
                    "success": duration(seen.requests, seen.duration_sum_ns),
                    "fail": duration(seen.errors + seen.rejected, 0),
                    "queue": duration(executed, seen.queue_sum_ns),
                    "compute_input": duration(executed, 0),
                    "compute_infer": duration(executed, seen.compute_sum_ns),
                    "compute_output": duration(executed, 0),
                    "cache_hit": duration(seen.cache_hits, 0),
                    "cache_miss": duration(seen.cache_misses, 0),
                },
                "batch_stats": [],
            }
        ]
    }


def repository_index(name: str, version: str, *, ready: bool) -> list[Dict[str, str]]:
    """Return `POST v2/repository/index`."""
    state, reason = ("READY", "") if ready else ("UNAVAILABLE", "unloading")
    return [{"name": name, "version": version, "state": state, "reason": reason}]
