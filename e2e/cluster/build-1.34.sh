#!/bin/bash
# Builds Kubernetes and etcd at the versions that kubernetes/go.mod pins, through the Go module proxy.
# usage: build-1.34.sh [l1|l3]     l1: etcd, API server, kubectl alone. What is there already is left alone.
KUBERNETES=1.34
. "$(dirname "$0")/env.sh"

mkdir -p "$bin"
cd "$here/kubernetes"
[ "$(cat "$bin/version" 2>/dev/null)" = "$pinned" ] || rm -f "$bin"/*

. "$here/go.sh"
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$pinned -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    flags+=" -X $package.gitTreeState=clean"
done

# program NAME PACKAGE
program() {
    [ -x "$bin/$1" ] && return
    nice -n 19 go build -ldflags "$flags" -o "$bin/$1.new" "$2"
    mv "$bin/$1.new" "$bin/$1"
    say "$1: $(du -m "$bin/$1" | cut -f1) MB"
}

program etcd go.etcd.io/etcd/server/v3
echo "$pinned" >"$bin/version"
for name in kube-apiserver kubectl; do program $name k8s.io/kubernetes/cmd/$name; done
[ "${1:-l3}" = l1 ] && exit
for name in kube-controller-manager kube-scheduler kubelet kube-proxy; do
    program $name k8s.io/kubernetes/cmd/$name
done
rm -rf "$GOCACHE"
