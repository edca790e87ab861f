"""The Edge TPU's engine, with a stand-in for Google's library: a delegate in C that takes no operator."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from farrier_agent import engines
from farrier_agent.engines import edgetpu
from farrier_contracts.errors import BundleError, MissingToolError
from farrier_contracts.tensors import TensorSpec

MODEL = "tflite_micro/tensorflow/lite/micro/examples/hello_world/models/hello_world_int8.tflite"
DELEGATE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct Delegate {
  void *data;
  int (*prepare)(void *context, struct Delegate *delegate);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *builder;
} Delegate;

static void note(const char *word) {
  FILE *file = fopen(getenv("DELEGATE_LOG"), "a");
  fprintf(file, "%s\n", word);
  fclose(file);
}

static int prepare(void *context, Delegate *delegate) { note("prepare"); return 0; }

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  for (size_t i = 0; i < count; i++) {
    note(values[i]);
    if (values[i][0] == 'x') { report("no such device"); return NULL; }
  }
  Delegate *delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
"""


@pytest.fixture
def bundle(make_bundle, shared_data):
    specs = [TensorSpec("x", "FP32", (1, 1))], [TensorSpec("y", "FP32", (1, 1))]
    return make_bundle((shared_data / MODEL).read_bytes(), *specs, engine="edgetpu")


@pytest.fixture
def library(tmp_path, monkeypatch):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is needed to build the stand-in")
    source, built = tmp_path / "delegate.c", tmp_path / "libedgetpu.so.1"
    source.write_text(DELEGATE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source], check=True, timeout=60)
    monkeypatch.setenv(edgetpu.LIBRARY_VARIABLE, str(built))
    monkeypatch.setenv("DELEGATE_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_without_its_library_it_says_what_to_install(bundle, monkeypatch):
    monkeypatch.setenv(edgetpu.LIBRARY_VARIABLE, "libnowhere.so.1")
    with pytest.raises(
        MissingToolError, match=r"libnowhere.so.1 is not there: sudo apt-get install libedgetpu1-std"
    ):
        engines.load(bundle)


def test_the_delegate_gets_the_graph_and_the_device(bundle, library, monkeypatch):
    monkeypatch.setenv(edgetpu.DEVICE_VARIABLE, "usb:1")
    engine = engines.load(bundle)
    answer = engine.run({"x": np.array([[1.5]], np.float32)})["y"]
    engine.close()
    assert abs(answer[0, 0] - np.sin(1.5)) < 0.1
    assert library.read_text().splitlines() == ["usb:1", "prepare"]


def test_a_device_that_does_not_answer_is_one_sentence(bundle, library, monkeypatch):
    monkeypatch.setenv(edgetpu.DEVICE_VARIABLE, "x")
    with pytest.raises(BundleError, match="no Edge TPU can be used"):
        engines.load(bundle)
