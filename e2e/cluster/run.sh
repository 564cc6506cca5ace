#!/bin/bash
# What `make e2e` does. For each of KUBERNETES (1.34; "1.34 1.20" for both): builds what is missing of the cluster and of
# Outrider's images, starts a cluster, runs outrider-cluster against it, takes it down. With KUBECONFIG set: the tests alone.
# KEEP=1 leaves the cluster and what was installed in it. PREVIOUS=REVISION: that revision is installed, and upgraded
# from it under traffic, and back.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
versions=${KUBERNETES:-1.34}
unset KUBERNETES
keep=()
[ "${KEEP:-}" != 1 ] || keep=(--keep)
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo -E)

test_cluster() { cargo run --quiet --locked --package outrider-e2e --bin outrider-cluster -- "${keep[@]}"; }

if [ -n "${KUBECONFIG:-}" ]; then
    test_cluster
    exit
fi
down() { [ "${KEEP:-}" = 1 ] || "${sudo[@]}" "$here/down.sh"; }

"${sudo[@]}" "$here/runtime.sh"
"$here/images.sh"
for version in $versions; do
    printf '\n== Kubernetes %s\n' "$version"
    export KUBERNETES=$version
    "$here/build-$version.sh"
    "${sudo[@]}" "$here/up.sh"
    trap down EXIT
    (
        . "$here/env.sh"
        export OUTRIDER_E2E_NEXT_TAG=$next_tag OUTRIDER_E2E_PLUGINS=$plugins OUTRIDER_E2E_KUBELET=$run/kubelet
        if [ -n "$previous" ]; then
            export OUTRIDER_E2E_PREVIOUS_CHART=$previous/tree/charts/outrider OUTRIDER_E2E_PREVIOUS_TAG=$previous_tag
        fi
        test_cluster
    )
    trap - EXIT
    down
done
