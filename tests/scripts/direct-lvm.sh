#!/usr/bin/env bash
# A direct-lvm pool from its first disk to its last byte and back: run in a machine with three empty disks
# (tests/src/uml.rs). Prints a transcript; ends with an error where anything is not as it must be.
set -euo pipefail
bin=$1 image=$2
root=$TMPDIR/root socket=$TMPDIR/layerd.sock log=$TMPDIR/layerd.log events=$TMPDIR/events
daemon=
opts="--storage-opt dm.thinp_percent=45 --storage-opt dm.basesize=1g"

say() { printf '\n# %s\n' "$*"; }
show() { printf '\n$ %s\n' "$*" | sed "s|$bin/||; s|--socket $socket ||; s|$TMPDIR/||g"; "$@" 2>&1; }
layerctl() { "$bin/layerctl" --socket "$socket" "$@"; }
ctl() { show "$bin/layerctl" --socket "$socket" "$@"; }
fail() { echo "FAILED: $*"; cat "$log"; exit 1; }
number() { layerctl --json pool | tr -d ' ,' | sed -n "/\"$1\"/,\$p" | sed -n "s/\"$2\"://p" | head -1; }

start() {
    "$bin/layerd" serve --root "$root" --socket "$socket" "$@" 2>>"$log" &
    daemon=$!
    until [ -S "$socket" ]; do
        kill -0 "$daemon" || fail "the daemon does not start"
        sleep 0.1
    done
    layerctl events --filter type=pool >>"$events" 2>>"$log" &
}
# Waits until the daemon has told of something, behind what was waited for before.
heard=0
told() {
    local line=
    for _ in $(seq 300); do
        line=$(tail -n +$((heard + 1)) "$events" | grep -n " pool $1 " | head -1 || true)
        [ -z "$line" ] || break
        sleep 0.2
    done
    [ -n "$line" ] || fail "the daemon does not tell: pool $1"
    heard=$((heard + ${line%%:*}))
}
figures() {
    curl -s --unix-socket "$socket" http://layerd/metrics >"$TMPDIR/metrics"
    for name in "$@"; do sed -n "s/^layerd_pool_$name{.*} //p" "$TMPDIR/metrics"; done | tr '\n' ' '
}
kernel() {
    local block metadata of_metadata data of_data
    block=$(dmsetup table layerd-thinpool | cut -d' ' -f6)
    read -r _ _ _ _ metadata of_metadata data of_data _ <<<"$(dmsetup status layerd-thinpool | tr / ' ')"
    echo "$((data * block * 512)) $((of_data * block * 512)) $((metadata * 4096)) $((of_metadata * 4096)) "
}
# The daemon's figures are the kernel's, with which they may be apart while something goes on.
agree() {
    local ours= theirs=
    for _ in $(seq 50); do
        theirs=$(kernel)
        ours=$(figures data_used_bytes data_bytes metadata_used_bytes metadata_bytes)
        [ "$ours" != "$theirs" ] || return 0
        sleep 0.2
    done
    fail "/metrics has $ours, dmsetup $theirs"
}
pool_table() { dmsetup suspend layerd-thinpool && dmsetup reload layerd-thinpool --table "$1" && dmsetup resume layerd-thinpool; }
stop() { kill "$daemon" && wait "$daemon"; }
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true' EXIT

say "Two empty disks become a pool"
printf '\n$ layerd serve --driver devicemapper --storage-opt dm.directlvm_device=/dev/ubdb,/dev/ubdc %s &\n' "$opts"
start --driver devicemapper --storage-opt dm.directlvm_device=/dev/ubdb,/dev/ubdc $opts
ctl pool
show vgs --noheadings -o vg_name,pv_count,vg_size,vg_free
ctl import "$image" --name debian:12

say "Three containers"
for name in one two three; do
    ctl run -u 0 --name $name debian:12 sh -c "echo $name > /name; head -c 20000000 /dev/zero > /data; cat /etc/debian_version"
done
ctl diff one
agree
total=$(number data total)

say "The pool is filled until it extends by itself"
ctl run -u 0 --name filler debian:12 sh -c 'for i in 1 2 3 4 5 6 7 8; do head -c 20000000 /dev/zero > /fill$i; done; sync; ls / | grep -c fill'
for _ in $(seq 100); do [ "$(number data total)" = "$total" ] || break; sleep 0.2; done
[ "$(number data total)" -gt "$total" ] || fail "the pool has not grown"
told extend
agree
ctl pool
grep -o 'data extended.*' "$log" | head -3

say "Filled until nothing is left"
ctl run -u 0 --name glutton debian:12 sh -c 'i=0; while dd if=/dev/zero of=/fat$i bs=1M count=30 conv=fsync 2>&1; do i=$((i + 1)); done; echo $i files are synced; exit 3' \
    | grep -v records | tee "$TMPDIR/glutton" || true
synced=$(sed -n 's/ files are synced$//p' "$TMPDIR/glutton")
[ "${synced:-0}" -gt 0 ] || fail "nothing was written before the end"
[ "$(layerctl inspect --format '{{.state.exit_code}}' glutton 2>/dev/null || echo 3)" != 0 ] || fail "no end was reached"
told full
agree
[ "$(figures writable)" = "0 " ] || fail "/metrics does not say that the pool is full"
ctl pool
printf '\n$ layerctl run --rm debian:12 true\n'
if layerctl run --rm debian:12 true >"$TMPDIR/refused" 2>&1; then fail "a layer was made without space"; fi
cat "$TMPDIR/refused"
grep -q 'dm.min_free_space' "$TMPDIR/refused" || fail "the refusal does not say why"

say "Deleting works when nothing is left, and gives the space back"
ctl rm filler
told recover
ctl pool

say "No corruption: the file system of every layer is looked at, the one that met the end included"
stop
show "$bin/layerd" check --repair --root "$root" || [ $? = 1 ]
show "$bin/layerd" check --root "$root"
for name in $(dmsetup ls | sed -n 's/^\(layerd-[0-9a-f]*-[0-9]*\)\t.*/\1/p'); do dmsetup remove "$name"; done
tag=$(sed -n 's/.*"tag":"\([^"]*\)".*/\1/p' "$root/devicemapper/pool.json")
for device in $(sed -n 's/.*"device":\([0-9]*\).*"size":\([0-9]*\).*/\1:\2/p' "$root"/devicemapper/layers/*/device.json); do
    dmsetup create "$tag-fsck" --table "0 $((${device#*:} / 512)) thin /dev/mapper/layerd-thinpool ${device%:*}"
    printf 'device %s: ' "${device%:*}"
    e2fsck -f -n "/dev/mapper/$tag-fsck" 2>/dev/null | tail -1 | sed 's|.*: ||' || fail "e2fsck"
    dmsetup remove "$tag-fsck"
done

say "And all goes on"
start
ctl run --rm debian:12 sh -c 'echo works again'
printf '\n$ layerctl diff glutton | grep -c /fat\n'
kept=$(layerctl diff glutton | grep -c /fat)
echo "$kept"
[ "$kept" -ge "$synced" ] || fail "of $synced files that were synced $kept are left"
ctl rm glutton

say "A third disk, while it runs"
ctl pool add-device /dev/ubdd
told add-device
ctl run --rm -u 0 debian:12 sh -c 'head -c 300000000 /dev/zero > /data; sync; ls -l /data | cut -d" " -f5'
for name in one two three; do
    [ "$(layerctl diff $name | tr '\n' ' ')" = "A /data A /name " ] || fail "container $name is not what it was"
done

say "A pool that takes no writes for a while"
table=$(dmsetup table layerd-thinpool)
read -r start length target metadata data block low count features <<<"$table"
pool_table "$start $length $target $metadata $data $block $low $((count + 1)) $features read_only"
told read-only
printf '\n$ layerctl run --rm debian:12 true\n'
if layerctl run --rm debian:12 true >"$TMPDIR/refused" 2>&1; then fail "a layer was made without writes"; fi
cat "$TMPDIR/refused"
pool_table "$table"
told recover
ctl run --rm debian:12 sh -c 'echo works again'
agree
[ "$(figures writable)" = "1 " ] || fail "/metrics does not say that the pool is well"
stop
printf '\n# layerctl events --filter type=pool\n'
cut -d' ' -f2- "$events"
show "$bin/layerd" check --root "$root"
show vgs --noheadings -o vg_name,pv_count,vg_size,vg_free
