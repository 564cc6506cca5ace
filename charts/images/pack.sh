#!/bin/bash
# Packs a directory into an OCI archive of one layer, the same bytes each time: times zero, names sorted, owners 0.
# usage: pack.sh ARCHIVE NAME:TAG amd64|arm64 USER DIRECTORY ENTRYPOINT...
# PERMITTED, such as `outrider-proxy=net_admin,net_raw`, says which capabilities a file is permitted.
set -euo pipefail
archive=$(realpath -m "$1") name=$2 architecture=$3 user=$4 files=$5
shift 5
entrypoint=$(printf ', "%s"' "$@")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
layout=$scratch/layout
mkdir -p "$layout/blobs/sha256" "$(dirname "$archive")"

same_bytes=(--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=ustar)
kind=application/vnd.oci.image

# blob FILE: moves it to where its own digest says; prints `"digest": …, "size": …`.
blob() {
    local digest
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    printf '"digest": "sha256:%s", "size": %s' "$digest" "$(stat -c %s "$1")"
    mv "$1" "$layout/blobs/sha256/$digest"
}

python3 "$(dirname "${BASH_SOURCE[0]}")/layer.py" "$scratch/layer" "$files" ${PERMITTED:-}
unpacked=$(sha256sum "$scratch/layer" | cut -d' ' -f1)
gzip -n -9 "$scratch/layer"
layer=$(blob "$scratch/layer.gz")
cat >"$scratch/config" <<JSON
{"architecture": "$architecture", "os": "linux", "created": "1970-01-01T00:00:00Z",
 "config": {"User": "$user", "Entrypoint": [${entrypoint#, }], "WorkingDir": "/",
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$unpacked"]}}
JSON
config=$(blob "$scratch/config")
cat >"$scratch/manifest" <<JSON
{"schemaVersion": 2, "mediaType": "$kind.manifest.v1+json",
 "config": {"mediaType": "$kind.config.v1+json", $config},
 "layers": [{"mediaType": "$kind.layer.v1.tar+gzip", $layer}]}
JSON
manifest=$(blob "$scratch/manifest")
echo '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
cat >"$layout/index.json" <<JSON
{"schemaVersion": 2, "manifests": [{"mediaType": "$kind.manifest.v1+json", $manifest,
 "platform": {"os": "linux", "architecture": "$architecture"},
 "annotations": {"io.containerd.image.name": "$name", "org.opencontainers.image.ref.name": "${name##*:}"}}]}
JSON
tar "${same_bytes[@]}" -cf "$archive" -C "$layout" blobs index.json oci-layout
echo "$name: $(($(du -sk --apparent-size "$files" | cut -f1) / 1024)) MB, packed $(($(stat -c %s "$archive") / 1024)) kB"
