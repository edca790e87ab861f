"""Flashing's rules without a device: facts read, plans made, wheels chosen, configuration and unit rendered."""

from __future__ import annotations

import importlib
import ipaddress
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier.cli import flash as command
from farrier.collector import parse_broker
from farrier.flashing import config, device, plan, unit
from farrier.flashing.facts import Facts, Place, Python, parse
from farrier.flashing.wheels import tags
from farrier.fleet import Fleet, load_fleet
from farrier_contracts.errors import FarrierError, InputError, UsageError

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

PI = """\
kernel=Linux
arch=aarch64
hostname=Edge_Pi.local
uid=1000
home=/home/pi
connection=192.168.1.2 50000 192.168.1.9 22
libc=glibc 2.36
python=/usr/bin/python3.11 3.11 64 1
python=
python=/usr/bin/python3.11 3.11 64 1
memory_kb=1892452
systemd=252
sudo=1
tool=tar
tool=df
tool=crontab
group=video
group=render
place=/opt/farrier
free_kb=10240000
release=
digest=
device=
place=/home/pi/.local/share/farrier
free_kb=10240000
release=4
digest=abc
device=kitchen
end=1
"""


def facts(**changes: object) -> Facts:
    return replace(parse(PI), **changes)


def make(given_facts: Facts | None = None, **options: object) -> plan.Plan:
    return plan.plan(given_facts or facts(), plan.Options(**options))


def test_the_probe_is_read():
    read = facts()
    assert read.pythons == (Python("/usr/bin/python3.11", (3, 11), 64, True),)
    assert read.libc_version == (2, 36)
    assert read.memory_bytes == 1892452 << 10
    assert (read.root, read.sudo, read.same_machine, read.systemd) == (False, True, False, 252)
    assert read.groups == ("video", "render")
    assert read.places["/home/pi/.local/share/farrier"] == Place(10240000 << 10, 4, "abc", "kitchen")


def test_the_probe_runs_here_without_python(tmp_path):
    """It is POSIX sh: whatever `sh` is here prints facts that parse."""
    done = subprocess.run(
        ["sh", "-c", device.script("probe.sh"), "probe", str(tmp_path / "not" / "there")],
        capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", "HOME": "/"},
    )  # fmt: skip
    read = parse(done.stdout)
    assert read.kernel == "Linux"
    assert read.memory_bytes > 0
    assert read.places[str(tmp_path / "not" / "there")].free_bytes > 0
    assert done.stderr == ""


@given(st.text(max_size=400))
def test_a_hostile_probe_is_read_or_refused(text):
    try:
        read = parse(PI.replace("end=1", text))
    except FarrierError:
        return
    assert isinstance(read, Facts)


def test_a_probe_cut_short_is_refused():
    with pytest.raises(FarrierError, match="to its end"):
        parse(PI.replace("end=1\n", ""))


def test_a_pi_gets_a_service_through_sudo():
    made = make()
    assert made.platform == plan.Platform("aarch64", (2, 36), (3, 11))
    assert (made.device, made.prefix, made.service) == ("edge-pi", "/opt/farrier", "systemd")
    assert made.elevate
    assert made.state_dir == "/var/lib/farrier"
    assert made.engines == ("onnx",)


def test_without_sudo_it_goes_below_the_home_and_keeps_its_name():
    made = make(facts(sudo=False))
    assert (made.prefix, made.service, made.elevate) == ("/home/pi/.local/share/farrier", "plain", False)
    assert made.device == "kitchen"  # what it was flashed as, not its host name
    assert made.state_dir == "/home/pi/.local/share/farrier/state"
    assert made.at_boot
    assert not make(facts(sudo=False, tools=frozenset({"tar"}))).at_boot  # no crontab


@pytest.mark.parametrize(
    ("arch", "bits", "engines", "expected"),
    [
        ("x86_64", 64, (), ("x86_64", ("onnx",))),
        ("aarch64", 64, ("litert", "onnx"), ("aarch64", ("litert", "onnx"))),
        ("aarch64", 32, (), ("armv7l", ("tflite-legacy",))),  # a 32-bit system on a 64-bit kernel
        ("armv7l", 32, (), ("armv7l", ("tflite-legacy",))),
    ],
)
def test_architecture_and_engine(arch, bits, engines, expected):
    python = Python("/usr/bin/python3", (3, 11), bits, True)
    made = make(facts(arch=arch, pythons=(python,)), engines=engines)
    assert (made.platform.arch, made.engines) == expected


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"kernel": "Darwin"}, {}, "needs Linux"),
        ({"arch": "riscv64"}, {}, "riscv64"),
        ({"arch": "armv6l", "pythons": (Python("/p", (3, 11), 32, True),)}, {}, "armv6l"),
        ({"arch": "x86_64", "pythons": (Python("/p", (3, 11), 32, True),)}, {}, "32-bit Python"),
        ({"libc": "musl"}, {}, "glibc only"),
        ({"libc_version": (2, 13)}, {}, "glibc 2.13"),
        ({"pythons": ()}, {}, "no Python; install Python 3.9"),
        ({"pythons": (Python("/p", (3, 8), 64, True),)}, {}, "has Python 3.8"),
        ({"pythons": (Python("/p", (3, 11), 64, False),)}, {}, "python3-venv"),
        ({"memory_bytes": 64 << 20}, {}, "64 MiB of memory"),
        ({"places": {}}, {}, "--prefix"),
        ({"tools": frozenset()}, {}, "no tar"),
        ({"sudo": False}, {"service": "systemd"}, "--service plain"),
        ({"systemd": 232}, {"service": "systemd"}, "systemd 235"),
        ({"sudo": False, "home": ""}, {}, "no home folder"),
        ({"hostname": "___"}, {}, "--device"),
        ({"arch": "armv7l", "pythons": (Python("/p", (3, 11), 32, True),)}, {"engines": ("onnx",)}, "onnxruntime"),
        ({}, {"device": "Kitchen Pi"}, "lower-case"),
        ({}, {"engines": ("tensorrt",)}, "onnx, litert"),
        ({}, {"prefix": "relative"}, "absolute"),
        ({}, {"prefix": "/opt/../etc"}, "absolute"),
        ({}, {"prefix": "/opt/a b"}, "absolute"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_sentence(changes, options, words):
    with pytest.raises(FarrierError) as caught:
        make(facts(**changes), **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_distributions_python_is_preferred_then_the_newest():
    old, first, new = (Python(f"/p{v}", (3, v), 64, v != 8) for v in (8, 11, 13))
    assert make(facts(pythons=(first, new))).python == "/p11"
    assert make(facts(pythons=(old, first, new))).python == "/p13"


@given(
    arch=st.sampled_from(["x86_64", "aarch64", "armv7l", "armv6l", ""]),
    libc=st.sampled_from(["glibc", "musl", ""]),
    minor=st.integers(0, 60),
    python=st.tuples(st.integers(2, 3), st.integers(0, 20)),
    bits=st.sampled_from([32, 64]),
    memory=st.integers(0, 1 << 34),
    root=st.booleans(),
    sudo=st.booleans(),
    systemd=st.integers(0, 300),
    hostname=st.text(max_size=70),
    service=st.sampled_from(plan.SERVICES),
)
def test_a_plan_keeps_its_promises(
    arch, libc, minor, python, bits, memory, root, sudo, systemd, hostname, service
):
    seen = facts(
        arch=arch, libc=libc, libc_version=(2, minor), pythons=(Python("/usr/bin/python3", python, bits, True),),
        memory_bytes=memory, root=root, sudo=sudo, systemd=systemd, hostname=hostname,
    )  # fmt: skip
    try:
        made = make(seen, service=service)
    except FarrierError:
        return
    assert made.platform.python >= (3, 9)
    assert made.platform.arch in ("x86_64", "aarch64", "armv7l")
    if made.service == "systemd":
        assert systemd >= plan.SYSTEMD_MIN
        assert root or made.elevate
    else:
        assert not made.elevate
    assert made.prefix in seen.places
    for tag in tags.platform_tags(made.platform):
        name, _, rest = tag.partition("_")
        assert tag.endswith(made.platform.arch)
        if name == "manylinux" and rest[0].isdigit():
            assert 2 <= int(rest.split("_")[1]) <= minor


def test_tags_go_down_from_the_devices_glibc():
    names = tags.platform_tags(plan.Platform("aarch64", (2, 28), (3, 9)))
    assert names[0] == "manylinux_2_28_aarch64"
    assert "manylinux2014_aarch64" in names
    assert not [name for name in names if "2_34" in name or "2010" in name]
    assert "manylinux2010_x86_64" in tags.platform_tags(plan.Platform("x86_64", (2, 28), (3, 9)))


def test_requirements_are_judged_for_the_device_not_for_this_machine():
    def wheel(name: str, *requires: str) -> tags.Wheel:
        return tags.Wheel(name, "1", f"{name}.whl", requires, "00", 1, 1)

    agent = wheel(
        "farrier-agent",
        "tomli; python_version < '3.11'",
        "Needed_Here; platform_machine == 'aarch64'",
        "elsewhere; sys_platform == 'win32'",
        "numpy; extra == 'onnx'",
    )
    held = [agent, wheel("needed-here"), wheel("numpy"), wheel("leftover")]
    new, old = (plan.Platform("aarch64", (2, 36), version) for version in ((3, 11), (3, 9)))
    chosen, missing = tags.needed(held, ["farrier-agent[onnx]"], new)
    assert [w.name for w in chosen] == ["farrier-agent", "needed-here", "numpy"]
    assert missing == []
    assert tags.needed(held, ["farrier-agent"], old)[1] == ["tomli"]


def fleet_file(folder: Path, **changes: str) -> Path:
    values = {
        "broker": "mqtt://10.0.0.1:1883",
        "repository": "http://10.0.0.1:8788",
        "root": "root.json",
        **changes,
    }
    (folder / "root.json").write_text("{}")
    path = folder / "FLEET.toml"
    path.write_text(
        f'name = "demo"\n[broker]\nurl = "{values["broker"]}"\n'
        '[store]\nurl = "sqlite:///fleet.db"\n'
        f'[repository]\nurl = "{values["repository"]}"\nroot = "{values["root"]}"\n'
    )
    return path


def test_the_agents_configuration(tmp_path):
    fleet = load_fleet(fleet_file(tmp_path))
    files = {file.path: file for file in config.device_files(fleet, make(facts(sudo=False)))}
    table = tomllib.loads(files["etc/agent.toml"].content.decode())
    assert table == {
        "device": "kitchen",
        "fleet": "demo",
        "state_dir": "/home/pi/.local/share/farrier/state",
        "broker": {"url": "mqtt://10.0.0.1:1883"},
        "repository": {"url": "http://10.0.0.1:8788", "root": "root.json"},
    }
    assert (files["etc/agent.toml"].mode, files["etc/root.json"].mode) == (0o600, 0o644)


def test_the_brokers_password_stays_out_of_the_configuration(tmp_path):
    fleet = load_fleet(fleet_file(tmp_path, broker="mqtts://me:s3cret@broker.example"))
    for seen in (facts(), facts(sudo=False)):
        made = make(seen)
        files = {file.path: file for file in config.device_files(fleet, made)}
        assert b"s3cret" not in files["etc/agent.toml"].content
        assert files["etc/broker.password"].content == b"s3cret"
        assert files["etc/broker.password"].mode == 0o600
        table = tomllib.loads(files["etc/agent.toml"].content.decode())
        where = "/run/credentials/farrier-agent.service/" if made.service == "systemd" else ""
        assert table["broker"] == {
            "url": "mqtts://broker.example:8883", "username": "me", "password_file": f"{where}broker.password",
        }  # fmt: skip
    with pytest.raises(FarrierError, match="--service plain"):
        config.device_files(fleet, make(facts(systemd=246)))


def test_a_root_of_trust_is_needed(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json is no root of trust"):
        config.check_fleet(load_fleet(fleet_file(tmp_path, root="absent.json")))


@pytest.mark.parametrize(
    "text", ["", "name = 3", "name = 'x'\n[broker]", "\x00", "[broker]\nurl = 4\n[repository]"]
)
def test_a_broken_fleet_file(tmp_path, text):
    path = tmp_path / "FLEET.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"FLEET\.toml"):
        load_fleet(path)


@pytest.mark.parametrize("changes", [{"broker": "mqtt://127.0.0.1"}, {"repository": "http://localhost:1"},
                                     {"repository": "repository"}])  # fmt: skip
def test_addresses_that_mean_another_machine_over_there(tmp_path, changes):
    fleet = load_fleet(fleet_file(tmp_path, **changes))
    with pytest.raises(InputError, match=r"the fleet's (broker|repository)"):
        config.check_reachable(fleet)


@given(st.ip_addresses(v=4).filter(lambda address: address not in ipaddress.ip_network("127.0.0.0/8")))
def test_other_addresses_pass(address):
    where = f"mqtt://{address}"
    fleet = Fleet("demo", Path(), parse_broker(where), "sqlite:///x", f"http://{address}", Path("root.json"))
    config.check_reachable(fleet)


@pytest.fixture
def installed_prefix(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "current" / "venv" / "bin" / "farrier-agent"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "broker.password").write_text("x")
    return tmp_path


def analyze(path: Path, *words: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *words, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_systemd_accepts_the_unit_and_finds_it_tight(installed_prefix):
    version = int(analyze_version().split()[1])
    path = installed_prefix / "farrier-agent.service"
    path.write_text(
        unit.render(
            str(installed_prefix), systemd=version, groups=("video",), credentials=("broker.password",)
        )
    )
    assert analyze(path, "verify") == ""  # not even a warning
    score = float(analyze(path, "security", "--offline=true").rstrip().split(": ")[-1].split()[0])
    assert score <= 2.5, score


def analyze_version() -> str:
    return subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout


def test_the_unit_asks_for_nothing_that_the_device_lacks():
    old, new = (unit.render("/opt/farrier", systemd=version) for version in (241, 255))
    assert "RestartSteps" not in old
    assert "ProtectHostname" not in old
    assert "RestartSteps=6" in new
    assert "SupplementaryGroups" not in new
    assert "ProtectHome=yes" in new
    assert "ProtectHome=read-only" in unit.render("/home/pi/farrier", systemd=255)


@pytest.mark.parametrize("name", ["probe.sh", "install.sh", "activate.sh", "farrier-agentctl"])
def test_the_scripts_are_posix(name):
    subprocess.run(["sh", "-n"], input=device.script(name), text=True, check=True)


def test_the_command_offers_what_the_function_knows():
    assert command.ENGINES == plan.ENGINES
    assert command.SERVICES == plan.SERVICES


def test_the_commands_help_is_light():
    script = (
        "import sys; from farrier.cli import main; main(['flash', '--help']);"
        "sys.exit('farrier.flashing' in sys.modules or 'paho' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-oProxyCommand=x", "--fleet", "F"], "no such option"),
        (["--fleet", "F", "--", "-oProxyCommand=x"], "is not USER@HOST"),
        (["me@host", "--fleet", "absent.toml"], "absent.toml"),
        (["me@host", "--identity", "absent.key"], "absent.key"),
        (["me@host", "--port", "0"], "not a port"),
        (["me@host", "--ssh-option", "nonsense"], "Key=Value"),
        (["me@host", "--device", "No Id"], "lower-case"),
    ],
)
def test_wrong_usage_is_one_sentence_before_anything_is_touched(arguments, words, capsys):
    from farrier.cli import main

    assert main(["flash", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error.lower() or words in error
    assert error.count("\n") == 1


def test_usage_errors_have_their_type():
    with pytest.raises(UsageError):
        plan.check(plan.Options(service="runit"))
