#!/usr/bin/env bash
# Compiles the engines' own suites, and a client of containerd, against Debian's Go packages:
#   build.sh DIR    writes DIR/snapshotter.test, DIR/graphtest.test and DIR/pull
set -euo pipefail
out=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
debian=/usr/share/gocode

# Debian ships gotest.tools without the /v3 in its path that Docker's suite imports.
mkdir -p "$out/gopath/src/gotest.tools"
rm -rf "$out/gopath/src/gotest.tools/v3"
cp -r "$debian/src/gotest.tools" "$out/gopath/src/gotest.tools/v3"
find "$out/gopath/src/gotest.tools/v3" -name '*.go' \
    -exec sed -i 's#"gotest.tools/\(assert\|internal\|x\|poll\|fs\|icmd\|env\|golden\|skip\)#"gotest.tools/v3/\1#' {} +

export GO111MODULE=off GOFLAGS= GOPATH="$here/gopath:$out/gopath:$debian" GOCACHE="$out/gocache"
for suite in snapshotter graphtest; do
    (cd "$here/$suite" && go test -c -o "$out/$suite.test" .)
done
(cd "$here/pull" && go build -o "$out/pull" .)
