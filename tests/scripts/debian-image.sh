#!/usr/bin/env bash
# Builds a Debian image of four layers and writes it as every kind of archive into a directory:
# docker.tar, oci-gzip.tar, oci-zstd.tar, and rootfs.tar of its bottom layer.
#
#   debian-image.sh DIR [small|large]
#
# The upper layers delete files, replace a directory by another and a file by a directory, hard-link,
# set file capabilities, ACLs and xattrs. `large` (about 470 MB, 20,000 files) adds packages, for
# benchmarks. Needs mmdebstrap and buildah; does nothing when the archives are there.
set -euo pipefail
dir=$1 size=${2:-small}
mkdir -p "$dir"
dir=$(realpath "$dir")
[ -e "$dir/complete" ] && exit 0

include=attr,acl,libcap2-bin
[ "$size" = large ] && include=$include,gcc,g++,python3,perl,git
if [ ! -s "$dir/rootfs.tar" ]; then
    mmdebstrap --quiet --format=tar --variant=minbase --mode=root --include="$include" bookworm "$dir/rootfs.tar.part"
    mv "$dir/rootfs.tar.part" "$dir/rootfs.tar"
fi

context=$(mktemp -d)
export STORAGE_DRIVER=vfs
buildah() { command buildah --root "$context/root" --runroot "$context/run" "$@"; }
trap 'buildah rmi -af >/dev/null 2>&1 || true; rm -rf "$context"' EXIT
ln "$dir/rootfs.tar" "$context/rootfs.tar" 2>/dev/null || cp "$dir/rootfs.tar" "$context/rootfs.tar"

cat >"$context/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LAYER=four
RUN rm -rf /usr/share/doc/* /etc/motd && rm /usr/share/common-licenses/GPL \
 && rm -rf /opt && mkdir -p /opt/new/deep && echo replaced >/opt/new/deep/file \
 && rm -rf /usr/share/bug && echo file >/usr/share/bug \
 && rm /etc/issue && mkdir /etc/issue && echo inside >/etc/issue/inside
RUN ln /usr/bin/perl /usr/bin/perl-again && ln /etc/hostname /srv/hostname-link 2>/dev/null || true; \
    echo one >/srv/one && ln /srv/one /srv/two && ln /srv/one /srv/three \
 && cp /bin/cat /usr/local/bin/capcat && setcap cap_net_bind_service,cap_net_raw=ep /usr/local/bin/capcat \
 && setfattr -n user.colour -v blue /srv/one && setfacl -m u:1234:rx /opt/new/deep \
 && chmod 4750 /usr/local/bin/capcat && chown 12:34 /srv/two && mkfifo /srv/fifo \
 && ln -s /absolute/dangling /srv/dangling && ln -s ../opt/new /srv/relative \
 && touch -d 1999-12-31T23:59:59.123456789Z /srv/old && truncate -s 5M /srv/sparse && echo x >>/srv/sparse
RUN rm -rf /srv/two /opt/new/deep && mkdir /opt/new/deep && echo again >/opt/new/deep/other \
 && chmod 0711 /srv && mv /usr/share/common-licenses /usr/share/licences-moved \
 && printf 'name with spaces' >'/srv/a b' && printf long >/srv/$(printf 'n%.0s' $(seq 200))
USER 12:34
WORKDIR /srv
CMD ["/bin/sh"]
DOCKERFILE

buildah bud --quiet --layers --isolation chroot --network host --timestamp 1700000000 \
    --tag localhost/debian-four:latest "$context" >/dev/null
push() { buildah push --quiet "${@:2}" localhost/debian-four:latest "$1"; }
rm -f "$dir"/docker.tar "$dir"/oci-gzip.tar "$dir"/oci-zstd.tar
push "docker-archive:$dir/docker.tar:localhost/debian-four:latest"
push "oci-archive:$dir/oci-gzip.tar:localhost/debian-four:latest" --compression-format gzip
push "oci-archive:$dir/oci-zstd.tar:localhost/debian-four:latest" --compression-format zstd
touch "$dir/complete"
