#!/bin/bash
# Builds what the tests of webhook and controller need of Kubernetes: the API server that kubernetes/go.mod pins, without
# optimisation, which halves the time, beside Debian's etcd. What build-1.34.sh made is used instead if it is there.
KUBERNETES=1.34
. "$(dirname "$0")/env.sh"

[ ! -x "$bin/kube-apiserver" ] || exit 0
into=$work/apiserver
cd "$here/kubernetes"
if [ "$(cat "$into/version" 2>/dev/null)" != "$pinned" ]; then
    say "building the API server of Kubernetes $pinned"
    . "$here/go.sh"
    mkdir -p "$into"
    package=k8s.io/component-base/version
    go build -gcflags "all=-N -l -dwarf=false" -o "$into/kube-apiserver" \
        -ldflags "-s -w -X $package.gitVersion=$pinned -X $package.gitMajor=1 -X $package.gitMinor=$minor" \
        k8s.io/kubernetes/cmd/kube-apiserver
    rm -rf "$GOCACHE"
    echo "$pinned" >"$into/version"
fi
ln -sf "$(command -v etcd)" "$into/etcd"
