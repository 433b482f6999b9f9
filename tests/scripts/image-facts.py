#!/usr/bin/env python3
"""Who gave each file of a docker-archive its content, and what is wasted, by tar and sha256sum alone.

    image-facts.py ARCHIVE SCRATCH-DIR

Prints {"files": {path: [sha256, layer]}, "deleted": {path: layer}, "stored": bytes, "wasted": bytes}.
Layers count from 1. Shares no code and no thought with layerctl.
"""

import json
import os
import stat
import subprocess
import sys

archive, scratch = sys.argv[1:]
subprocess.run(["tar", "-xf", archive, "-C", scratch], check=True)
with open(os.path.join(scratch, "manifest.json")) as file:
    layers = json.load(file)[0]["Layers"]

seen = {}  # path -> (what it is, layer of its content, stored file)
deleted = {}
stored = {}  # (layer, inode) -> bytes


def hide(path, layer, itself):
    for other in [o for o in seen if o.startswith(path + "/") or (itself and o == path)]:
        del seen[other]
        deleted[other] = layer


for layer, name in enumerate(layers, 1):
    tree = os.path.join(scratch, f"tree{layer}")
    os.mkdir(tree)
    tar = os.path.join(scratch, name)
    subprocess.run(["tar", "-xf", tar, "-C", tree, "--xattrs", "--numeric-owner"], check=True)
    names, files = [], []
    for parent, dirs, others in os.walk(tree):
        for entry in dirs + others:
            path = os.path.join(parent, entry)
            mode = os.lstat(path).st_mode
            names.append((os.path.relpath(path, tree), mode))
            if stat.S_ISREG(mode) and not entry.startswith(".wh."):
                files.append(path)
    for path, _ in names:
        parent, base = os.path.split(path)
        if base == ".wh..wh..opq":
            hide(parent, layer, itself=False)
        elif base.startswith(".wh.") and not base.startswith(".wh..wh."):
            hide(os.path.join(parent, base[4:]), layer, itself=True)
    sums = {}
    out = subprocess.run(
        ["sha256sum", "-z", "--"] + files, check=True, capture_output=True
    ).stdout if files else b""
    for line in out.split(b"\0")[:-1]:
        digest, path = line.split(b"  ", 1)
        sums[os.path.relpath(os.fsdecode(path), tree)] = digest.decode()
    for path, mode in names:
        if os.path.basename(path).startswith(".wh."):
            continue
        if not stat.S_ISDIR(mode):
            hide(path, layer, itself=False)
        info = os.lstat(os.path.join(tree, path))
        if stat.S_ISREG(mode):
            what, inode = sums[path], (layer, info.st_ino)
            stored[inode] = info.st_size
        elif stat.S_ISLNK(mode):
            what, inode = "link " + os.readlink(os.path.join(tree, path)), None
        else:
            what, inode = stat.filemode(mode)[0], None
        before = seen.get(path)
        source = before[1] if before and before[0] == what else layer
        deleted.pop(path, None)
        seen[path] = (what, source, inode)

shown = {inode for _, _, inode in seen.values()}
print(
    json.dumps(
        {
            "files": {"/" + path: [what, source] for path, (what, source, _) in seen.items()},
            "deleted": {"/" + path: layer for path, layer in deleted.items()},
            "stored": sum(stored.values()),
            "wasted": sum(size for inode, size in stored.items() if inode not in shown),
        }
    )
)
