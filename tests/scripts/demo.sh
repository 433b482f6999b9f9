#!/usr/bin/env bash
# The main job in one go: build a Debian root file system, import it, run a container, show its changes.
set -euo pipefail
work=$1
bin=target/release
mkdir -p "$work"
work=$(realpath "$work")
store=$work/demo
socket=$store/layerd.sock
layerctl() { "$bin/layerctl" --socket "$socket" "$@"; }
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

if [ ! -s "$work/debian.tar" ]; then
    echo "building a Debian root file system (mmdebstrap, about half a minute)"
    mmdebstrap --quiet --format=tar --variant=minbase --mode=root bookworm "$work/debian.tar.part"
    mv "$work/debian.tar.part" "$work/debian.tar"
fi

mkdir -p "$store"
"$bin/layerd" serve --root "$store/root" --socket "$socket" 2>"$store/layerd.log" &
daemon=$!
finish() {
    kill "$daemon" 2>/dev/null && wait "$daemon" || true
}
trap finish EXIT
for _ in $(seq 100); do
    [ -S "$socket" ] && break
    kill -0 "$daemon" 2>/dev/null || { cat "$store/layerd.log" >&2; exit 1; }
    sleep 0.05
done

say "layerctl import debian.tar --name debian:bookworm"
layerctl import "$work/debian.tar" --name debian:bookworm
say "layerctl images"
layerctl images
script='cat /etc/debian_version; id -u; echo hello > /srv/greeting; rm /etc/motd; chmod 700 /opt'
say "layerctl run --name demo debian:bookworm sh -c '$script'"
layerctl rm demo >/dev/null 2>&1 || true
layerctl run --name demo debian:bookworm sh -c "$script"
say "layerctl diff demo        # what the container changed"
layerctl diff demo
say "layerctl rm demo"
layerctl rm demo
