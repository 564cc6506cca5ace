#!/bin/bash
# Ends the cluster that up.sh started, and only that: processes, containers, links, rules, mounts, cgroups, state.
# usage: [KUBERNETES=1.34|1.20] down.sh [--keep]      --keep leaves logs and state
. "$(dirname "$0")/env.sh"
set +e

# end NAME: by the number that up.sh wrote down. At once: nothing here outlives the cluster, so nothing needs a good end.
end() {
    local pid
    pid=$(cat "$run/pids/$1" 2>/dev/null) || return
    # All of them are in the node's network; a number that another program has by now is not.
    [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ] || kill -9 "$pid" 2>/dev/null
    rm -f "$run/pids/$1"
}

for name in kubelet kube-proxy dns scheduler controller-manager; do end $name; done

# What pods left: every process below our cgroup, the runtime's helpers, which carry our socket in their arguments.
groups() { find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" 2>/dev/null; }
end_containers() {
    local file
    for file in $(groups | sed 's|$|/cgroup.procs|'); do
        xargs -r kill -9 <"$file" 2>/dev/null
    done
    pgrep -f "containerd-shim.* -address $run/" | xargs -r kill -9 2>/dev/null
}
end containerd
end_containers
wait_for 10 sh -c "! cat \$(find /sys/fs/cgroup -type d -path '*/$cgroup*' | sed 's|\$|/cgroup.procs|') 2>/dev/null | grep -q ."
groups | xargs -r rmdir 2>/dev/null
for name in apiserver etcd node; do end $name; done # with the node go its mounts, links and rules
ip link delete "$link" 2>/dev/null
[ "${1:-}" = --keep ] || rm -rf --one-file-system "$run"
exit 0
