#!/bin/sh
# Installs, by Debian package name, what the tests and the demo drive: the kernel's rule tools and
# real clients and servers. Does nothing, and says so, when everything is there.
set -eu

missing=""
# Another implementation of gRPC, which asks the bridge: from PyPI, since Debian's generator is too old for its
# library. Without it that test is skipped, loudly; with OUTRIDER_REQUIRE_NETNS=1 it fails.
venv="$(dirname "$0")/../target/grpc-venv"
python_grpc() {
    "$venv/bin/python" -c "import grpc_tools" 2>/dev/null && return
    echo "setup: installing grpcio and grpcio-tools into $venv"
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q grpcio==1.85.1 grpcio-tools==1.85.1; }; then
        echo "setup: no Python gRPC; its test will not run" >&2
        return "${OUTRIDER_REQUIRE_NETNS:-0}"
    fi
}

# need COMMAND PACKAGE: remembers PACKAGE when COMMAND is not found.
need() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

need cc build-essential
need c++ build-essential
need curl curl
need editcap wireshark-common
need etcd etcd-server
need ip iproute2
need iptables-restore iptables
need knotd knot
need nft nftables
need nginx nginx-light
need openssl openssl
need ping iputils-ping
need python3 python3
need redis-server redis-server
need redis-cli redis-tools
need setpriv util-linux
need sysctl procps
need tcpdump tcpdump
need tcprewrite tcpreplay

/usr/bin/python3 -c "import ensurepip" 2>/dev/null || missing="$missing python3-venv"

if [ -z "$missing" ]; then
    python_grpc
    echo "setup: every tool is installed"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing:$missing; install them, or run this as root (apt-get install$missing)" >&2
    exit "${OUTRIDER_REQUIRE_NETNS:-0}"
fi
echo "setup: installing from Debian:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A package's own service must not start: the tests start what they need, in namespaces.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086 # a list of package names, split on purpose
apt-get install -y -qq --no-install-recommends $missing >/dev/null
python_grpc
echo "setup: done"
