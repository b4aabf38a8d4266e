#!/bin/sh
# The serving image without a daemon (buildah, podman, mmdebstrap: Debian packages).
#
#   serving/image.sh base                 make the base image from Debian's packages, where the registry is out of reach
#   serving/image.sh build TAG [MODEL]    build TAG; with MODEL, a folder with a bundle, the model is baked in
#
# A pip.conf and a certificate authority of this network (PIP_CONFIG_FILE, SSL_CERT_FILE) are lent to the build as
# secrets; they do not stay in the image.
set -eu
home=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
base_image=docker.io/library/python:3.11-slim-bookworm

case "${1:-}" in
base)
    mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$work/base.tar"
    podman import --quiet "$work/base.tar" "$base_image"
    ;;
build)
    tag=$2 model=${3:-} target=runtime
    mkdir "$work/requirements"
    cp -R "$home/recsys" "$home/serving" "$work"
    cp "$home/requirements/serving.txt" "$work/requirements"
    find "$work" -name __pycache__ -prune -exec rm -rf {} +
    if [ -n "$model" ]; then
        mkdir -p "$work/var/serving"
        cp -RL "$model" "$work/var/serving/current" # -L: it is a link
        target=baked
    fi
    set --
    if [ -f "${PIP_CONFIG_FILE:-/etc/pip.conf}" ]; then
        set -- "$@" --secret "id=pip,src=${PIP_CONFIG_FILE:-/etc/pip.conf}"
    fi
    if [ -f "${SSL_CERT_FILE:-}" ]; then
        set -- "$@" --secret "id=ca,src=$SSL_CERT_FILE"
    fi
    buildah build --isolation=chroot --network=host --format=docker --layers "$@" \
        --target="$target" --file="$work/serving/Dockerfile" --tag="$tag" "$work"
    ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
