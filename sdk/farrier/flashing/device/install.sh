# Install the agent from the tar on standard input into PREFIX/releases/N. POSIX sh.
# $1: prefix  $2: python  $3: digest of the wheelhouse
# What is current stays as it is. Prints `step ...` lines and at last `release N`. A release without its digest
# file is a half one: the next run removes it.
set -u
umask 022
prefix=$1 python=$2 digest=$3
release=

fail() {
    echo "$1" >&2
    exit 1
}
clean() {
    [ -n "$release" ] && [ ! -f "$release/digest" ] && rm -rf "$release"
    rm -rf "$prefix/lock"
}

mkdir -p "$prefix/releases" || fail "cannot make $prefix"
if ! mkdir "$prefix/lock" 2>/dev/null; then
    owner=$(cat "$prefix/lock/pid" 2>/dev/null)
    if [ -n "$owner" ] && grep -q farrier-flash "/proc/$owner/cmdline" 2>/dev/null; then
        fail "another flash of this device is running (process $owner there); wait for it"
    fi
    rm -rf "$prefix/lock" && mkdir "$prefix/lock" || fail "cannot lock $prefix"
fi
trap clean EXIT
trap 'exit 1' HUP INT TERM PIPE
echo $$ >"$prefix/lock/pid" || fail "cannot write to $prefix"

number=0
for old in "$prefix"/releases/*; do
    [ -d "$old" ] || continue
    if [ ! -f "$old/digest" ]; then
        rm -rf "$old"
    elif [ "${old##*/}" -gt "$number" ] 2>/dev/null; then
        number=${old##*/}
    fi
done
release=$prefix/releases/$((number + 1))

echo "step upload"
mkdir "$release" "$release/wheels" || fail "cannot make $release"
tar -xmf - -C "$release/wheels" || fail "the upload did not arrive whole"
[ -f "$release/wheels/complete" ] || fail "the upload did not arrive whole"

echo "step install"
"$python" -m venv --without-pip "$release/venv" || fail "cannot make a Python environment"
pip=$(echo "$release"/wheels/pip-*.whl)
TMPDIR=$release PIP_CONFIG_FILE=/dev/null "$release/venv/bin/python" "$pip/pip" install --quiet --no-index --no-deps \
    --no-cache-dir --disable-pip-version-check --find-links "$release/wheels" --require-hashes \
    -r "$release/wheels/requirements.txt" </dev/null || fail "pip could not install the wheels"
rm -rf "$release/wheels"

echo "step check"
version=$("$release/venv/bin/farrier-agent" version </dev/null) || fail "the installed agent does not start"
echo "agent $version"
echo "$digest" >"$release/digest.new" && sync && mv "$release/digest.new" "$release/digest" || fail "cannot finish the release"
echo "release $((number + 1))"
