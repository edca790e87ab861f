# Configure release N, make it the current one and (re)start the agent. POSIX sh.
# $1: prefix  $2: N  $3: systemd|plain  $4: 1 to start at boot  $5: state folder of the plain service
# Standard input: a tar of etc/, and of bin/farrier-agentctl or farrier-agent.service.
set -u
prefix=$1 number=$2 service=$3 at_boot=$4 state=$5
unit=/etc/systemd/system/farrier-agent.service
control=$prefix/bin/farrier-agentctl
stage=$prefix/stage.$$

fail() {
    echo "$1" >&2
    exit 1
}
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM PIPE

[ -f "$prefix/releases/$number/digest" ] || fail "release $number is not there"
rm -rf "$prefix"/stage.*
umask 022
mkdir -p "$stage" "$prefix/etc" "$prefix/bin" || fail "cannot make $prefix/etc"
tar -xpmf - -C "$stage" || fail "the configuration did not arrive whole"
[ -f "$stage/complete" ] || fail "the configuration did not arrive whole"

for file in "$stage"/etc/*; do
    mv -f "$file" "$prefix/etc/" || fail "cannot write $prefix/etc"
done
old=$(readlink "$prefix/current" 2>/dev/null)
if [ "$old" != "releases/$number" ]; then
    rm -f "$prefix/next" && ln -s "releases/$number" "$prefix/next" || fail "cannot write to $prefix"
    # rename(2), which ln and mv of every system agree on only through Python
    "$prefix/releases/$number/venv/bin/python" -c 'import os, sys; os.replace(sys.argv[1], sys.argv[2])' \
        "$prefix/next" "$prefix/current" || fail "cannot switch $prefix/current"
    [ -n "$old" ] && rm -f "$prefix/previous" && ln -s "$old" "$prefix/previous"
fi

if [ "$service" = systemd ]; then
    [ -x "$control" ] && "$control" stop # a plain service of an earlier flash
    rm -f "$control"
    install -m 0644 "$stage/farrier-agent.service" "$unit.new" && mv "$unit.new" "$unit" || fail "cannot write $unit"
    systemctl daemon-reload || fail "systemd refused to reload"
    [ "$at_boot" = 1 ] && systemctl enable --quiet farrier-agent
    systemctl restart --no-block farrier-agent || fail "systemd refused to start the agent"
else
    if [ -d /run/systemd/system ] && grep -qF "$prefix/current/" "$unit" 2>/dev/null; then
        systemctl disable --quiet --now farrier-agent && rm -f "$unit"
    fi
    (umask 077 && mkdir -p "$state") || fail "cannot make $state"
    mv -f "$stage/bin/farrier-agentctl" "$control" || fail "cannot write $control"
    if [ "$at_boot" = 1 ]; then
        { crontab -l 2>/dev/null | grep -vF "$control"; echo "@reboot $control start"; } | crontab - ||
            echo "step note: no @reboot line could be added to the crontab"
    fi
    "$control" restart || fail "cannot start the agent"
fi

# Keep this release and the one before it.
previous=$(readlink "$prefix/previous" 2>/dev/null)
for release in "$prefix"/releases/*; do
    case "releases/${release##*/}" in
        "releases/$number" | "$previous") ;;
        *) rm -rf "$release" ;;
    esac
done
