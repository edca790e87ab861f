"""The systemd unit of the agent: hardened as far as accelerators allow, without what the device's systemd lacks.

A unit that names a group absent on the device does not start, and ProtectClock or PrivateDevices would hide the
accelerators, so neither is there. MemoryDenyWriteExecute would break the engines' just-in-time code.
"""

from __future__ import annotations

from collections.abc import Sequence

SERVICE = "farrier-agent"
STATE_FOLDER = "farrier"  # below /var/lib
CREDENTIALS = f"/run/credentials/{SERVICE}.service"
DRAIN_LIMIT_S = 45  # above the agent's own limits for draining its workers
WATCHDOG_S = 20
START_LIMIT_S = 90

_HOMES = ("/home/", "/root/", "/run/user/")
# directive -> the systemd version that brought it
_SINCE = {
    "RestartSteps": 254,
    "RestartMaxDelaySec": 254,
    "ProtectProc": 247,
    "ProtectKernelLogs": 244,
    "OOMPolicy": 243,
    "ProtectHostname": 242,
    "RestrictSUIDSGID": 242,
}


def render(prefix: str, *, systemd: int, groups: Sequence[str] = (), credentials: Sequence[str] = ()) -> str:
    """Return the unit's text for a prefix, a systemd version and the accelerator groups that exist on the device.

    `credentials` are files of PREFIX/etc that only root may read; the agent finds them in CREDENTIALS.
    """
    sections = {
        "Unit": (
            ("Description", "Farrier device agent"),
            ("After", "network.target time-sync.target"),  # not network-online: it must start offline
            ("StartLimitIntervalSec", "0"),  # the agent and RestartSec hold the pace; giving up helps nobody
        ),
        "Service": (
            *_process(prefix),
            *_identity(groups),
            *(("LoadCredential", f"{name}:{prefix}/etc/{name}") for name in credentials),
            *_walls(prefix),
            *_limits(),
        ),
        "Install": (("WantedBy", "multi-user.target"),),
    }
    texts = []
    for name, directives in sections.items():
        lines = [f"{key}={value}" for key, value in directives if systemd >= _SINCE.get(key, 0)]
        texts.append("\n".join([f"[{name}]", *lines, ""]))
    return "\n".join(texts)


def _process(prefix: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("ExecStart", f"{prefix}/current/venv/bin/farrier-agent run --config {prefix}/etc/agent.toml"),
        ("TimeoutStartSec", str(START_LIMIT_S)),
        ("TimeoutStopSec", str(DRAIN_LIMIT_S)),
        ("KillMode", "mixed"),
        ("WatchdogSec", str(WATCHDOG_S)),
        ("Restart", "always"),
        ("RestartSec", "1"),
        ("RestartSteps", "6"),
        ("RestartMaxDelaySec", "60"),
    )


def _identity(groups: Sequence[str]) -> tuple[tuple[str, str], ...]:
    extra = (("SupplementaryGroups", " ".join(groups)),) if groups else ()
    return (
        ("DynamicUser", "yes"),
        ("StateDirectory", STATE_FOLDER),
        ("StateDirectoryMode", "0700"),
        ("UMask", "0077"),
        *extra,
    )


def _walls(prefix: str) -> tuple[tuple[str, str], ...]:
    return (
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "read-only" if f"{prefix}/".startswith(_HOMES) else "yes"),
        ("PrivateTmp", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectHostname", "yes"),
        ("ProtectProc", "invisible"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
        ("RestrictNamespaces", "yes"),
        ("RestrictRealtime", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("LockPersonality", "yes"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        ("SystemCallFilter", "~@privileged"),
        ("SystemCallErrorNumber", "EPERM"),
        ("CapabilityBoundingSet", ""),
    )


def _limits() -> tuple[tuple[str, str], ...]:
    return (("MemoryHigh", "70%"), ("MemoryMax", "85%"), ("OOMPolicy", "continue"))
