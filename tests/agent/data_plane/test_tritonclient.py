"""tritonclient, unmodified, against a worker process."""

from __future__ import annotations

import itertools
import uuid

import numpy as np
import pytest

httpclient = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402


@pytest.fixture
def client(start_worker, conv_bundle, place):
    start_worker(conv_bundle).serve()
    with httpclient.InferenceServerClient(place.url, concurrency=4) as client:
        yield client


def tensor(array, *, binary=True):
    wanted = httpclient.InferInput("x", list(array.shape), "FP32")
    wanted.set_data_from_numpy(array, binary_data=binary)
    return wanted


def test_health_and_metadata(client, conv_bundle):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("net")
    assert client.is_model_ready("net", "1.0")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("net", "2.0")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("net")
    assert metadata["versions"] == ["1.0"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    config = client.get_model_config("net")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (16, [1, 8, 8])
    assert client.get_model_repository_index() == [
        {"name": "net", "version": "1.0", "state": "READY", "reason": ""}
    ]


def test_every_form_gives_the_direct_runs_answer(client, conv_net, inputs_of):
    forms = itertools.product([True, False], [True, False, None], [None, "gzip", "deflate"])
    for number, (binary_in, binary_out, compression) in enumerate(forms):
        inputs = inputs_of(number, 3)
        outputs = None
        if binary_out is not None:
            outputs = [httpclient.InferRequestedOutput(n, binary_data=binary_out) for n in ("best", "scores")]
        result = client.infer(
            "net",
            [tensor(inputs["x"], binary=binary_in)],
            outputs=outputs,
            request_id=f"r-{number}",
            request_compression_algorithm=compression,
        )
        want = conv_net.direct(inputs)
        np.testing.assert_allclose(result.as_numpy("scores"), want["scores"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(result.as_numpy("best"), want["best"])
        assert result.get_response()["id"] == f"r-{number}"
        assert result.get_response()["model_name"] == "net"


def test_only_the_requested_output_comes(client, inputs_of):
    wanted = [httpclient.InferRequestedOutput("best")]
    result = client.infer("net", [tensor(inputs_of(1)["x"])], outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["best"]


def test_errors_arrive_as_sentences(client, inputs_of):
    x = inputs_of(1)["x"]
    with pytest.raises(InferenceServerException, match="there is no model 'other'"):
        client.infer("other", [tensor(x)])
    with pytest.raises(InferenceServerException, match=r"shape \[1, 1, 8, 4\]"):
        client.infer("net", [tensor(x[..., :4].copy())])
    with pytest.raises(InferenceServerException, match="output 'nothing' is unknown"):
        client.infer("net", [tensor(x)], outputs=[httpclient.InferRequestedOutput("nothing")])
    with pytest.raises(InferenceServerException, match="desired state"):
        client.load_model("net")
    with pytest.raises(InferenceServerException, match="BYTES"):
        text = httpclient.InferInput("x", [1], "BYTES")
        text.set_data_from_numpy(np.array([b"word"], dtype=np.object_))
        client.infer("net", [text])
    with pytest.raises(InferenceServerException, match="classification"):
        client.infer("net", [tensor(x)], outputs=[httpclient.InferRequestedOutput("scores", class_count=2)])
    assert client.infer("net", [tensor(x)]).as_numpy("scores").shape == (1, 5)


def test_statistics_count(client, inputs_of):
    for seed in range(3):
        client.infer("net", [tensor(inputs_of(seed, 2)["x"])])
    [found] = client.get_inference_statistics("net")["model_stats"]
    assert (found["inference_count"], found["inference_stats"]["success"]["count"]) == (6, 3)
    assert found["inference_stats"]["compute_infer"]["ns"] > 0


def test_asynchronous_requests_all_get_their_own_answer(client, conv_net, inputs_of):
    all_inputs = [inputs_of(seed, 1 + seed % 3) for seed in range(40)]
    pending = [client.async_infer("net", [tensor(inputs["x"])]) for inputs in all_inputs]
    for inputs, request in zip(all_inputs, pending):
        got = request.get_result().as_numpy("scores")
        np.testing.assert_allclose(got, conv_net.direct(inputs)["scores"], rtol=1e-5, atol=1e-5)


def test_shared_memory_carries_inputs_and_outputs(client, conv_net, inputs_of):
    shm = pytest.importorskip("tritonclient.utils.shared_memory")
    x = inputs_of(9, 4)["x"]
    key = f"/farrier-test-{uuid.uuid4().hex[:12]}"
    handle = shm.create_shared_memory_region("both", key, x.nbytes + 4 * 5 * 4)
    try:
        shm.set_shared_memory_region(handle, [x])
        client.register_system_shared_memory("both", key, x.nbytes + 4 * 5 * 4)
        [status] = client.get_system_shared_memory_status()
        assert (status["name"], status["byte_size"]) == ("both", x.nbytes + 80)
        given = httpclient.InferInput("x", list(x.shape), "FP32")
        given.set_shared_memory("both", x.nbytes)
        wanted = httpclient.InferRequestedOutput("scores")
        wanted.set_shared_memory("both", 80, offset=x.nbytes)
        client.infer("net", [given], outputs=[wanted])
        got = shm.get_contents_as_numpy(handle, np.float32, [4, 5], offset=x.nbytes)
        np.testing.assert_allclose(got, conv_net.direct({"x": x})["scores"], rtol=1e-5, atol=1e-5)
        wanted.set_shared_memory("both", 40, offset=x.nbytes)
        with pytest.raises(InferenceServerException, match="has 80 bytes"):
            client.infer("net", [given], outputs=[wanted])
        del got
        client.unregister_system_shared_memory("both")
        assert client.get_system_shared_memory_status() == []
    finally:
        shm.destroy_shared_memory_region(handle)
    with pytest.raises(InferenceServerException, match="cannot be opened"):
        client.register_system_shared_memory("gone", key, 8)
