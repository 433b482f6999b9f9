#!/usr/bin/env bash
# Kills layerd at every step between pool and home, and looks what check and repair make of it: run in a
# machine with two empty disks (tests/src/uml.rs). Prints one line a step.
set -euo pipefail
bin=$1
root=$TMPDIR/root socket=$TMPDIR/layerd.sock log=$TMPDIR/layerd.log
daemon=

fail() { echo "FAILED at $point: $*"; cat "$log" "$TMPDIR/out"; exit 1; }
layerctl() { "$bin/layerctl" --socket "$socket" "$@" >"$TMPDIR/out" 2>&1; }
start() {
    rm -f "$socket"
    LAYERD_CRASH_AT=${crash-} "$bin/layerd" serve --root "$root" --socket "$socket" "$@" 2>>"$log" &
    daemon=$!
    until [ -S "$socket" ]; do
        kill -0 "$daemon" 2>/dev/null || return 1
        sleep 0.05
    done
}
# Waits for the end that the crash point brings.
dies() {
    if wait "$daemon"; then fail "the daemon ended well"; elif [ $? != 137 ]; then fail "another end"; fi
}
stop() { kill "$daemon" && wait "$daemon" || fail "no clean end"; }
# What check says, what repair says, and that nothing is left after it.
look() {
    found=$("$bin/layerd" check --root "$root" 2>&1) || true
    mended=$("$bin/layerd" check --repair --root "$root" 2>&1) || true
    "$bin/layerd" check --root "$root" >"$TMPDIR/out" 2>&1 || fail "not sound after a repair"
    printf '%-24s | %s\n' "$point" "$(printf '%s' "${found:-nothing}" | tr '\n' ';')"
}

mkdir "$TMPDIR/tree" && echo content >"$TMPDIR/tree/file"
tar -C "$TMPDIR/tree" -cf "$TMPDIR/image.tar" .
pool="--driver devicemapper --storage-opt dm.directlvm_device=/dev/ubdb --storage-opt dm.thinp_percent=40
    --storage-opt dm.basesize=128m"

# The set-up: the next start goes on.
for point in "setup begun" "physical volume made" "volume group made" "pool made" "window moved" \
    "base device made" "base file system made"; do
    crash=$point
    if start $pool; then fail "it started"; fi
    dies
    printf '%-24s | the next start goes on\n' "$point"
done
crash='' point="set-up"
start $pool || fail "it does not start"
stop
look

# Layers: each is killed, looked at, and then done again.
for point in "snapshot made" "layer made" "file system sealed"; do
    crash=$point start || fail "no start"
    if layerctl import "$TMPDIR/image.tar" --name a:1; then fail "the import ended"; fi
    dies
    look
    crash='' start || fail "no start"
    layerctl import "$TMPDIR/image.tar" --name a:1 || fail "import again"
    layerctl rmi a:1 || fail "remove"
    stop
done
for point in "layer out of sight" "device deleted"; do
    crash='' start || fail "no start"
    layerctl import "$TMPDIR/image.tar" --name a:1 || fail "import"
    stop
    crash=$point start || fail "no start"
    layerctl rmi a:1 || true
    dies
    look
done

# The pool: killed while it grows, and while it is given a disk.
for point in "pool to be extended" "pool extended"; do
    crash=$point start --storage-opt dm.thinp_autoextend_threshold=50 || true
    head -c 60000000 /dev/urandom >"$TMPDIR/tree/file"
    tar -C "$TMPDIR/tree" -cf "$TMPDIR/image.tar" .
    layerctl import "$TMPDIR/image.tar" --name "b:1" || true
    dies
    look
done
point="device added"
crash=$point start || fail "no start"
if layerctl pool add-device /dev/ubdc; then fail "the device was added"; fi
dies
look
crash='' start || fail "no start"
layerctl pool || fail "pool"
grep -q rw "$TMPDIR/out" || fail "the pool does not write"
layerctl import "$TMPDIR/image.tar" --name last:1 || fail "the last import"
stop
"$bin/layerd" check --root "$root" >"$TMPDIR/out" 2>&1 || fail "not sound at the end"
echo "every step was survived"
