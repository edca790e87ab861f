# Print the facts that decide how a device is flashed, one `key=value` a line. POSIX sh; changes nothing.
# $1: the prefix asked for, or empty for the defaults.
say() { printf '%s=%s\n' "$1" "$2"; }
have() { command -v "$1" >/dev/null 2>&1; }

say kernel "$(uname -s)"
say arch "$(uname -m)"
say hostname "$(uname -n)"
say uid "$(id -u)"
say home "$HOME"
say connection "${SSH_CONNECTION:-}"

libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
if [ -z "$libc" ] && have ldd; then
    libc=$(ldd --version 2>&1 | grep -qi musl && echo "musl 0")
fi
say libc "$libc"

for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
    have "$python" || continue
    say python "$("$python" -c '
import os, struct, sys
try:
    import venv, ssl, ctypes
    complete = 1
except ImportError:
    complete = 0
print(os.path.realpath(sys.executable), "%d.%d" % sys.version_info[:2], struct.calcsize("P") * 8, complete)
' 2>/dev/null)"
done

say memory_kb "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo 2>/dev/null)"

if [ -d /run/systemd/system ]; then
    say systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
fi
[ "$(id -u)" != 0 ] && have sudo && sudo -n true 2>/dev/null && say sudo 1
for tool in tar df crontab setsid; do
    have "$tool" && say tool "$tool"
done
for group in video render plugdev apex gpio i2c; do
    grep -q "^$group:" /etc/group 2>/dev/null && say group "$group"
done

place() {
    folder=$1
    while [ ! -d "$folder" ]; do
        folder=$(dirname "$folder")
    done
    release=$(readlink "$1/current" 2>/dev/null)
    say place "$1"
    say free_kb "$(df -Pk "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }')"
    say release "${release##*/}"
    say digest "$(cat "$1/current/digest" 2>/dev/null)"
    say device "$(sed -n 's/^device = "\(.*\)"$/\1/p' "$1/etc/agent.toml" 2>/dev/null | head -n 1)"
}
if [ -n "$1" ]; then
    place "$1"
else
    place /opt/farrier
    [ "${HOME:-/}" != / ] && place "$HOME/.local/share/farrier"
fi
say end 1
