#!/usr/bin/env bash
# Compares mounts, loop devices and our processes before and after the tests: leftovers are a failure.
set -euo pipefail
when=$1 work=$2
mkdir -p "$work"

look() {
    awk '{print "mount", $5, $9, $10}' /proc/self/mountinfo | grep -E 'layer|overlay|fuse|/tmp' || true
    losetup -a 2>/dev/null | sed 's/^/loop /' || true
    pgrep -x 'layerd|layerfs|layerun|layerctl' 2>/dev/null | sed 's/^/process /' || true
}

if [ "$when" = before ]; then
    look | sort >"$work/leftovers.before"
else
    left=$(look | sort | comm -13 "$work/leftovers.before" -)
    if [ -n "$left" ]; then
        printf 'left behind by the tests:\n%s\n' "$left" >&2
        exit 1
    fi
fi
