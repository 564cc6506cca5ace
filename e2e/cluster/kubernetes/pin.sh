#!/bin/sh
# Pins another version: rewrites go.mod and go.sum beside this file for `pin.sh v1.34.4`, to be reviewed and committed.
# Needs go, jq and the Go module proxy. Kubernetes is not made to be required by others: it asks for its own libraries
# (k8s.io/api and so on) at v0.0.0 from a folder beside it. Each is also published, as v0.34.4: that is what is put there.
set -eu
version=${1:?which version, for instance v1.34.4}
cd "$(dirname "$0")"
export GOFLAGS=-mod=mod GOTOOLCHAIN=local

upstream=$(go mod download -json "k8s.io/kubernetes@$version" | jq -r .GoMod)
sed "/^\/\//d" "$upstream" >go.mod
rm -f go.sum
go mod edit -module=outrider.local/e2e/kubernetes -require="k8s.io/kubernetes@$version"
for library in $(go mod edit -json | jq -r '.Replace[] | select(.New.Path | startswith("./")) | .Old.Path'); do
    go mod edit -replace="$library=$library@v0.${version#v1.}"
done
for command in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
    go mod edit -tool="k8s.io/kubernetes/cmd/$command"
done
go mod edit -tool=go.etcd.io/etcd/server/v3
go mod tidy
