#!/usr/bin/env bash
# Installs the Debian packages of one purpose (build, run, test, bench) that are not there yet.
set -euo pipefail

case "${1:-build}" in
build) packages="gcc libc6-dev pkg-config libclang-dev libdevmapper-dev libseccomp-dev make" ;;
run) packages="mmdebstrap" ;;
test)
    packages="mmdebstrap buildah umoci rsync attr acl libcap2-bin busybox-static e2fsprogs btrfs-progs python3"
    packages="$packages fuse-overlayfs git"
    # The explorer runs in a terminal.
    packages="$packages tmux"
    # A kernel with a device mapper, run as a process, and what sets up and checks its pools.
    packages="$packages user-mode-linux kmod lvm2 thin-provisioning-tools xfsprogs"
    # Podman and Buildah run on layerfs.
    packages="$packages podman conmon fuse3"
    # Read the pages and the graphs that layerctl writes.
    packages="$packages chromium graphviz"
    # The engines that are clients, and what their own suites are compiled from.
    packages="$packages docker.io containerd runc golang-go golang-github-containerd-containerd-dev"
    packages="$packages golang-github-docker-docker-dev golang-github-vbatts-tar-split-dev"
    packages="$packages golang-github-gotestyourself-gotest.tools-dev"
    ;;
bench) packages="fuse-overlayfs mmdebstrap buildah docker.io containerd runc umoci attr libcap2-bin btrfs-progs time" ;;
*)
    echo "usage: $0 build|run|test|bench" >&2
    exit 2
    ;;
esac

missing=()
for package in $packages; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing Debian packages, install them as root: ${missing[*]}" >&2
        exit 1
    fi
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # A first try without an update is quick where the lists are fresh.
    apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
        apt-get update -q >/dev/null
        apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null
    }
fi

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: layerd needs Rust 1.88 or newer (Debian 12's own is too old; see rustup.rs)" >&2
    exit 1
fi
