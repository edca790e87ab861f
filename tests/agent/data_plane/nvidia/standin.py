"""A stand-in for TensorRT's Python module: it records every call, and its engines compute in ONNX Runtime.

Environment: STANDIN_RELEASE, STANDIN_LOG (JSON lines), STANDIN_FAULT (see `_fault`). Old releases lack what new ones
have and the other way round, as the real ones do. A plan is the release, the profiles and the graph.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import time
from enum import IntEnum
from types import SimpleNamespace

import numpy as np

MAGIC = b"standin plan\n"
DYNAMIC = -1


def record(call, *arguments):
    with open(os.environ["STANDIN_LOG"], "a") as log:  # noqa: PTH123
        log.write(json.dumps([call, *arguments]) + "\n")


def fault():
    """refuse, give-up, hang, crash, grow, chatter, or none."""
    return os.environ.get("STANDIN_FAULT", "")


def release():
    return os.environ.get("STANDIN_RELEASE", "10.3.0")


def numbers():
    return tuple(map(int, re.findall(r"\d+", release())))


def make_plan(graph: bytes, profiles) -> bytes:
    head = json.dumps({"release": release(), "profiles": profiles}).encode()
    return MAGIC + head + b"\n" + graph


class Logger:
    ERROR, WARNING = 1, 2

    def __init__(self, level):
        record("Logger", level)


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, best, most):
        record("set_shape", name, list(least), list(best), list(most))
        self.shapes[name] = [list(least), list(best), list(most)]


class TimingCache:
    def __init__(self, content):
        self.content = bytes(content)

    def serialize(self):
        return self.content


class Config:
    def __init__(self):
        self.profiles = []
        self.cache = None

    def __setattr__(self, name, value):
        if name not in ("profiles", "cache"):
            record(f"config.{name}", value if isinstance(value, int) else str(value))
        super().__setattr__(name, value)

    def set_flag(self, flag):
        record("set_flag", flag.name)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)

    def create_timing_cache(self, content):
        return TimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        record("set_timing_cache", cache.content.decode(), ignore_mismatch)
        if cache.content and not cache.content.startswith(release().encode()):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return TimingCache((release() + " measured").encode())


class PooledConfig(Config):
    def set_memory_pool_limit(self, pool, size):
        record("set_memory_pool_limit", pool.name, size)


class Network:
    graph = b""


class Builder:
    num_DLA_cores = 2

    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        record("create_network", flags)
        return Network()

    def create_builder_config(self):
        return PooledConfig() if numbers() >= (8, 4) else Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        record("build_serialized_network")
        misbehave()
        if fault() == "give-up":
            return None
        return make_plan(network.graph, config.profiles[0].shapes if config.profiles else {})


def misbehave():
    if fault() == "hang":
        time.sleep(600)
    elif fault() == "crash":
        os.abort()
    elif fault() == "grow":
        held = np.ones(1 << 27, np.uint8)  # 128 MiB
        time.sleep(600)
        del held
    elif fault() == "chatter":
        while True:
            os.write(2, b"[W] the same again\n" * 4096)


class OnnxParser:
    def __init__(self, network, logger):
        self.network = network
        self.num_errors = 0

    def parse_from_file(self, path):
        record("parse_from_file")
        if fault() == "refuse":
            self.num_errors = 1
            return False
        with open(path, "rb") as file:  # noqa: PTH123
            self.network.graph = file.read()
        return True

    def get_error(self, index):
        return SimpleNamespace(desc=lambda: "No importer registered for op: Det\nmore")


class Engine:
    """What the named and the numbered way have in common."""

    def __init__(self, graph, profiles):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(graph)
        self.profiles = profiles
        self.ends = {t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.given = [t.name for t in self.session.get_inputs()]

    def kind(self, name):
        kind = {"tensor(float)": "float32", "tensor(int64)": "int64"}[self.ends[name].type]
        return "int32" if kind == "int64" and numbers() < (10,) else kind

    def static(self, name):
        return [size if isinstance(size, int) else DYNAMIC for size in self.ends[name].shape]

    def fits(self, name, shape):
        if name in self.profiles:
            least, _, most = self.profiles[name]
        else:
            least = most = self.static(name)
        return len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, most))


class NamedEngine(Engine):
    @property
    def num_io_tensors(self):
        return len(self.ends)

    def get_tensor_name(self, index):
        return list(self.ends)[index]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name in self.given else Mode.OUTPUT

    def get_tensor_dtype(self, name):
        return self.kind(name)

    def create_execution_context(self):
        return NamedContext(self)


class NumberedEngine(Engine):
    @property
    def num_bindings(self):
        return len(self.ends)

    def get_binding_name(self, index):
        return list(self.ends)[index]

    def binding_is_input(self, index):
        return self.get_binding_name(index) in self.given

    def get_binding_dtype(self, index):
        return self.kind(self.get_binding_name(index))

    def get_binding_shape(self, index):
        return self.static(self.get_binding_name(index))

    def create_execution_context(self):
        return NumberedContext(self)


class Context:
    def __init__(self, engine):
        self.engine = engine
        self.shapes = {name: engine.static(name) for name in engine.given}
        self.addresses = {}

    def shape_of(self, name):
        if name in self.shapes:
            return self.shapes[name]
        zeros = {n: np.zeros(s, self.model_type(n)) for n, s in self.shapes.items()}
        results = self.engine.session.run([name], zeros)
        return list(results[0].shape)

    def model_type(self, name):
        return {"int32": np.int64, "float32": np.float32}.get(self.engine.kind(name), np.int64)

    def compute(self):
        feeds = {}
        for name in self.engine.given:
            array = np.empty(self.shapes[name], self.engine.kind(name))
            ctypes.memmove(array.ctypes.data, self.addresses[name], array.nbytes)
            feeds[name] = array.astype(self.model_type(name))
        names = [name for name in self.engine.ends if name not in self.engine.given]
        for name, result in zip(names, self.engine.session.run(names, feeds)):
            array = np.ascontiguousarray(result.astype(self.engine.kind(name)))
            ctypes.memmove(self.addresses[name], array.ctypes.data, array.nbytes)
        return True


class NamedContext(Context):
    def set_input_shape(self, name, shape):
        record("set_input_shape", name, list(shape))
        if not self.engine.fits(name, shape):
            return False
        self.shapes[name] = list(shape)
        return True

    def get_tensor_shape(self, name):
        return self.shape_of(name)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        record("execute_async_v3")
        return self.compute()


class NumberedContext(Context):
    def set_binding_shape(self, index, shape):
        name = self.engine.get_binding_name(index)
        record("set_binding_shape", name, list(shape))
        if not self.engine.fits(name, shape):
            return False
        self.shapes[name] = list(shape)
        return True

    def get_binding_shape(self, index):
        return self.shape_of(self.engine.get_binding_name(index))

    def execute_async_v2(self, addresses, stream):
        record("execute_async_v2")
        self.addresses = dict(zip(self.engine.ends, addresses))
        return self.compute()


class Runtime:
    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, plan):
        record("deserialize_cuda_engine")
        head, _, graph = bytes(plan)[len(MAGIC) :].partition(b"\n")
        if not bytes(plan).startswith(MAGIC) or json.loads(head)["release"] != release():
            return None
        return (NamedEngine if numbers() >= (8, 5) else NumberedEngine)(graph, json.loads(head)["profiles"])


class Mode(IntEnum):
    INPUT, OUTPUT = 1, 2


def contents(*, builds=True):
    """Return what a module called tensorrt has in this release."""
    flags = ["SPARSE_WEIGHTS", "GPU_FALLBACK"] + (["FP16", "INT8"] if numbers() < (11,) else [])
    kinds = ["EXPLICIT_BATCH"] if numbers() < (11,) else []
    kinds += ["STRONGLY_TYPED"] if numbers() >= (9,) else []
    found = {
        "__version__": release(),
        "Logger": Logger,
        "Runtime": Runtime,
        "TensorIOMode": Mode,
        "nptype": np.dtype,
    }
    if builds:
        found["init_libnvinfer_plugins"] = lambda logger, namespace: record("plugins", namespace)
        found |= {
            "Builder": Builder,
            "OnnxParser": OnnxParser,
            "BuilderFlag": IntEnum("BuilderFlag", flags, start=0),
            "NetworkDefinitionCreationFlag": IntEnum("Flag", kinds, start=0),
            "MemoryPoolType": IntEnum("Pool", ["WORKSPACE"]),
            "DeviceType": IntEnum("Device", ["GPU", "DLA"]),
        }
    return found
