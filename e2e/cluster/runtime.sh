#!/bin/bash
# Unpacks what a node runs besides Kubernetes, from Debian's packages: containerd, runc, CNI plugins, a static busybox.
# containerd 1.6 or 1.7 speaks to the kubelets of 1.20 and of 1.34 alike.
. "$(dirname "$0")/env.sh"

[ -x "$runtime/usr/bin/containerd" ] && [ -x "$runtime/bin/busybox" ] && exit
missing=
for pair in ip:iproute2 iptables:iptables conntrack:conntrack mount:mount openssl:openssl nsenter:util-linux; do
    command -v "${pair%%:*}" >/dev/null || missing+=" ${pair#*:}"
done
private_apt
if [ -n "$missing" ]; then
    say "installing from Debian:$missing"
    # shellcheck disable=SC2086 # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
unpack "$runtime" containerd runc containernetworking-plugins busybox-static
rm -rf "$work/apt/debs"
say "containerd, runc and CNI plugins: $(du -sm "$runtime" | cut -f1) MB"
