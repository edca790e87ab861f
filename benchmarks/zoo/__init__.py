"""A zoo of small real networks, each with real data: what quantization is judged on.

A net is one function `Store -> Net` in a module of `nets`, and one line here.
"""

from __future__ import annotations

from importlib import import_module

from .net import Feeds, Net, Run
from .store import Store

__all__ = ["NETS", "Feeds", "Net", "Run", "Store", "load"]

NETS: dict[str, str] = {
    "resnet20": "cifar:resnet20",
    "resnet56": "cifar:resnet56",
    "digits": "digits:digits",
    "mnist1d-mlp": "signals:mnist1d_mlp",
    "mnist1d-cnn": "signals:mnist1d_cnn",
    "mnist1d-gru": "signals:mnist1d_gru",
    "gunpoint": "signals:gunpoint",
    "italypowerdemand": "signals:italy_power",
    "basicmotions": "signals:basic_motions",
    "resnet8": "tiny:resnet8",
    "wake-words": "tiny:wake_words",
    "anomaly": "tiny:anomaly",
    "ultraface": "faces:ultraface",
    "silero-vad": "voice:silero",
    "spoken-digits": "spoken:spoken",
    "sst2-cnn": "text:text_cnn",
    "sst2-transformer": "text:transformer",
    "mobilenet-cifar": "vision:mobilenet",
    "vit-cifar": "vision:vit",
}


def load(name: str, store: Store) -> Net:
    """Return a net with its data; raises FileNotFoundError where its files are absent, ImportError for tools."""
    module, _, function = NETS[name].partition(":")
    return getattr(import_module(f".nets.{module}", __name__), function)(store)
