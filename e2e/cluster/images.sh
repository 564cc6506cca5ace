#!/bin/bash
# Builds what a node imports: Outrider's three images (PROFILE says how, see charts/images/build.sh) and one of busybox,
# which sandboxes, workloads and clients of pods run.
. "$(dirname "$0")/env.sh"

mkdir -p "$images"
export REPOSITORY=outrider.local TAG=e2e
if [ ! -f "$images/busybox.tar" ]; then
    files=$(mktemp -d)
    trap 'rm -rf "$files"' EXIT
    mkdir -p "$files"/{bin,www}
    cp "$runtime/bin/busybox" "$files/bin/"
    for name in $("$files/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$files/bin/$name"
    done
    echo hello >"$files/www/index.html"
    "$root/charts/images/pack.sh" "$images/busybox.tar" $REPOSITORY/busybox:$TAG \
        "$(dpkg --print-architecture)" 65534:65534 "$files" /bin/sleep 2147483647
fi
"$root/charts/images/build.sh" "$images"
