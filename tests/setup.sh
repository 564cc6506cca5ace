#!/bin/sh
# Installs, by Debian package name, what the tests and the demo drive: the kernel's rule tools and
# real clients and servers. Does nothing, and says so, when everything is there.
set -eu

missing=""
# need COMMAND PACKAGE: remembers PACKAGE when COMMAND is not found.
need() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

need cc build-essential
need c++ build-essential
need curl curl
need editcap wireshark-common
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

if [ -z "$missing" ]; then
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
echo "setup: done"
