"""Fixtures that every kind of test may use."""

from __future__ import annotations

import getpass
import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 1_512  # of CIFAR-10: 512 to calibrate, 1,000 to evaluate
WAIT_LIMIT_S = 60.0
WAIT_STEP_S = 0.02
STOP_LIMIT_S = 20


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and data sets, beside the repository (or FARRIER_SHARED_DATA)."""
    folder = Path(os.environ.get("FARRIER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder


@pytest.fixture(scope="session")
def no_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No heavy tools, whichever this machine has: what is tried must not hang on that, nor take their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARRIER_TOOLS", str(tmp_path_factory.mktemp("tools")))
        yield


@pytest.fixture(scope="session")
def resnet20_script() -> ModuleType:
    """The example that rebuilds a ResNet20 from its checkpoint."""
    spec = importlib.util.spec_from_file_location("resnet20", ROOT / "examples" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def resnet20_proto(shared_data: Path, resnet20_script: ModuleType) -> Any:
    """A ResNet20 that others trained on CIFAR-10."""
    checkpoint = shared_data / "resnet_cifar10_pth" / "pretrained_models" / "resnet20-12fca82f.th"
    return resnet20_script.build(resnet20_script.read_checkpoint(checkpoint))


@pytest.fixture(scope="session")
def cifar10(shared_data: Path) -> tuple[Any, Any]:
    """Seeded pictures, normalised, [PICTURES, 3, 32, 32] float32, and their labels."""
    import numpy as np
    from PIL import Image

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    with zipfile.ZipFile(shared_data / "cifar10_jpg" / "cifar10_jpg_train_10000.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        chosen = np.random.default_rng(7).permutation(len(names))[:PICTURES]
        pictures, labels = [], []
        for index in chosen:
            with Image.open(io.BytesIO(archive.read(names[index]))) as image:
                pictures.append(np.asarray(image.convert("RGB"), np.float64) / 255)
            labels.append(classes.index(names[index].split("/")[1]))
    normalised = (np.stack(pictures) - mean) / std
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32), np.array(labels)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """Wait until a condition holds: polls `condition()` until it is truthy, and returns that value."""

    def wait(condition: Callable[[], object], *, limit_s: float = WAIT_LIMIT_S, what: str = "") -> object:
        deadline = time.monotonic() + limit_s
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"not within {limit_s:g} s: {what or condition}")
            time.sleep(WAIT_STEP_S)

    return wait


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Ask the system for a free loopback port."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return server.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def answers() -> Callable[[int], bool]:
    """Say whether something listens on a loopback port."""

    def ask(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return ask


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Find a program of the system's, or skip."""

    def find(name: str) -> str:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find


@pytest.fixture(scope="session")
def running() -> Callable[..., object]:
    """A context manager that runs a command and leaves no process behind."""

    @contextmanager
    def run(*command: str, log: Path, **options: object) -> Iterator[subprocess.Popen]:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    return run


@pytest.fixture
def start_mosquitto(tmp_path: Path, free_port, answers, program, running, eventually) -> Iterator[Callable]:
    """Start a real mosquitto of this test's own and return its URL; `acl` limits what its clients may do."""
    binary = program("mosquitto")
    with ExitStack() as stack:

        def start(*, acl: str = "") -> str:
            port = free_port()
            lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
            if acl:
                (tmp_path / f"acl-{port}").write_text(acl)
                # as root it would become another user, who may not read files here
                lines += [f"acl_file {tmp_path}/acl-{port}", f"user {getpass.getuser()}"]
            config = tmp_path / f"mosquitto-{port}.conf"
            config.write_text("\n".join([*lines, ""]))
            stack.enter_context(running(binary, "-c", str(config), log=tmp_path / f"mosquitto-{port}.log"))
            eventually(lambda: answers(port), what="mosquitto listens")
            return f"mqtt://127.0.0.1:{port}"

        yield start


@pytest.fixture
def browser() -> Iterator[object]:
    """A headless Chromium."""
    if not Path("/usr/bin/chromedriver").exists() or shutil.which("chromium") is None:
        pytest.skip("chromium and its driver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-sync",
        "--no-first-run",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()
