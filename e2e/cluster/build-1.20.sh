#!/bin/bash
# Builds Kubernetes 1.20.2 from Debian's source package, which holds everything it is made from, with Debian's Go 1.19;
# etcd is Debian's own. Nothing is installed. About 4 GB below target/e2e while it builds.
# usage: build-1.20.sh [l1|l3]     l1: etcd, API server, kubectl alone. What is there already is left alone.
KUBERNETES=1.20
. "$(dirname "$0")/env.sh"

if [ "${1:-l3}" = l1 ]; then programs=(kube-apiserver kubectl); else
    programs=(kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy)
fi
missing=0
for name in etcd "${programs[@]}"; do [ -x "$bin/$name" ] || missing=1; done
[ $missing = 1 ] || exit 0

scratch=$work/build-1.20
tree=$scratch/path/src/k8s.io/kubernetes
debian=$scratch/debian
# GOPATH, as it was done then: the tree's own vendor directory is all that a build may use.
export GOROOT=$debian/usr/lib/go-1.19 GOPATH=$scratch/path GO111MODULE=off CGO_ENABLED=0 GOCACHE=$scratch/cache
GOFLAGS="-trimpath $(tr ' ' '\n' <<<"${GOFLAGS:-}" | sed -n '/^-p=/p')"
export GOFLAGS PATH=$GOROOT/bin:$PATH

fetch() {
    private_apt
    if ! command -v dpkg-source >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends dpkg-dev >/dev/null
    fi
    mkdir -p "$bin" "$scratch/source" "$(dirname "$tree")"
    (cd "$scratch/source" && apt-get source -qq --download-only kubernetes >/dev/null)
    if ! ls "$scratch"/source/kubernetes_*1.20.2-*.dsc >/dev/null; then
        echo "this Debian has another Kubernetes than 1.20.2, which bookworm has" >&2
        exit 1
    fi
    unpack "$debian" golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev etcd-server
    cp "$debian/usr/bin/etcd" "$bin/"
    dpkg-source --no-check -x "$scratch"/source/kubernetes_*.dsc "$tree" >/dev/null 2>&1
    # The vendored reflect2 does not work with a Go of 1.18 or later; Debian's does.
    local reflect2=$tree/vendor/github.com/modern-go/reflect2
    rm -f "$reflect2"/*.{go,s}
    cp "$debian"/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect2/"
    say "source and Go"
}

# The one file that upstream generates and Debian's source lacks: the OpenAPI definitions of every marked package.
generate() {
    local openapi=pkg/generated/openapi marked
    go build -o "$scratch/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    marked=$(grep -rl --include='*.go' --exclude='*_test.go' '^// +k8s:openapi-gen=' pkg cmd plugin $(printf '%s/ ' vendor/k8s.io/*) |
        grep -vE '/(code-generator|sample-apiserver|testdata|_examples)/' |
        sed 's|/[^/]*$||; s|//*|/|g; s|^|k8s.io/kubernetes/|' | sort -u | paste -sd,)
    "$scratch/openapi-gen" --input-dirs "$marked" --output-package k8s.io/kubernetes/$openapi \
        --output-base "$scratch/generated" --output-file-base zz_generated.openapi \
        --go-header-file vendor/k8s.io/code-generator/hack/boilerplate.go.txt \
        --report-filename "$scratch/violations" 2>"$scratch/openapi-gen.log"
    cmp "$scratch/violations" api/api-rules/violation_exceptions.list # upstream's own check: all packages, no other
    cp "$scratch/generated/k8s.io/kubernetes/$openapi/zz_generated.openapi.go" $openapi/
    say "OpenAPI definitions"
}

[ -d "$tree" ] || fetch
cd "$tree"
[ -f pkg/generated/openapi/zz_generated.openapi.go ] || generate

flags="-s -w"
for package in component-base/version client-go/pkg/version; do
    for value in gitVersion=v1.20.2 gitMajor=1 gitMinor=20 gitTreeState=clean; do
        flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.$value"
    done
done
for name in "${programs[@]}"; do
    [ -x "$bin/$name" ] && continue
    nice -n 19 go build -tags "providerless dockerless" -ldflags "$flags" -o "$bin/$name.new" ./cmd/$name
    mv "$bin/$name.new" "$bin/$name"
    say "$name: $(du -m "$bin/$name" | cut -f1) MB"
done
[ "${1:-l3}" = l1 ] || { chmod -R u+w "$scratch" && rm -rf "$scratch"; }
