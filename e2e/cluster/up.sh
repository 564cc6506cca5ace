#!/bin/bash
# Starts a cluster of one node on this machine, in network and mount namespaces of its own. Needs root.
# usage: [KUBERNETES=1.34|1.20] up.sh [l1|l2|l3]
#   l1: etcd and API server; l2: controllers and scheduler too; l3: and a node that runs pods
# Then: KUBECONFIG=target/e2e/run-<version>/admin.kubeconfig. down.sh ends it.
. "$(dirname "$0")/env.sh"
level=${1:-l3}

if [ -e "$run/pids/node" ]; then
    echo "there is one already: down.sh first" >&2
    exit 1
fi
rm -rf --one-file-system "$run" # of one that ended, kept to be looked at
mkdir -p -m 0700 "$run"
mkdir -p "$run"/{pids,logs,etcd}
trap '[ $? = 0 ] || { echo "not started; the logs are in $run/logs" >&2; "$here/down.sh" --keep; }' EXIT
"$here/identity.sh"

# start NAME PROGRAM...: in the node, its output to a file.
start() {
    local name=$1
    shift
    nsenter --target "$(<"$run/pids/node")" --net --mount -- setsid "$@" </dev/null >"$run/logs/$name.log" 2>&1 &
    echo $! >"$run/pids/$name"
}

# The node: a process that does nothing but hold its namespaces.
node_up() {
    setsid unshare --net --mount --propagation private -- sleep infinity </dev/null >/dev/null 2>&1 &
    echo $! >"$run/pids/node"
    local pid=$!
    wait_for 20 sh -c "test \$(readlink /proc/$pid/ns/net) != \$(readlink /proc/self/ns/net) && grep -q sleep /proc/$pid/comm"
    ip link add "$link" type veth peer name eth0 netns "$pid"
    ip address add "$host_ip/24" dev "$link"
    ip link set "$link" up
    ip route add "$pod_cidr" via "$node_ip"
    ip route add "$service_cidr" via "$node_ip"
    in_node bash -euc "
        ip link set lo up
        ip address add $node_ip/24 dev eth0
        ip link set eth0 up
        ip route add default via $host_ip
        echo 1 >/proc/sys/net/ipv4/ip_forward
    "
}

api_up() {
    local id=$run/identity
    start etcd etcd --data-dir="$run/etcd" --unsafe-no-fsync --log-level=warn \
        --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
        --listen-peer-urls=http://127.0.0.1:2380
    # shellcheck disable=SC2086 # API_FLAGS is a list of flags
    start apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$node_ip" --service-cluster-ip-range="$service_cidr" --allow-privileged \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --token-auth-file="$id/tokens.csv" --client-ca-file="$id/ca.crt" \
        --tls-cert-file="$id/apiserver.crt" --tls-private-key-file="$id/apiserver.key" \
        --kubelet-client-certificate="$id/apiserver.crt" --kubelet-client-key="$id/apiserver.key" \
        --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-account-key-file="$id/service-accounts.pub" \
        --service-account-signing-key-file="$id/service-accounts.key" ${API_FLAGS:-}
    wait_for 240 kubectl get --raw /readyz
    say "API server ready: $(kubectl version -o json 2>/dev/null | sed -n '/serverVersion/,$s/.*"gitVersion": "\(.*\)".*/\1/p')"
}

controllers_up() {
    start controller-manager kube-controller-manager --kubeconfig="$run/controller-manager.kubeconfig" \
        --authentication-kubeconfig="$run/controller-manager.kubeconfig" \
        --authorization-kubeconfig="$run/controller-manager.kubeconfig" \
        --use-service-account-credentials --leader-elect=false \
        --root-ca-file="$run/identity/ca.crt" \
        --service-account-private-key-file="$run/identity/service-accounts.key"
    start scheduler kube-scheduler --kubeconfig="$run/scheduler.kubeconfig" \
        --authentication-kubeconfig="$run/scheduler.kubeconfig" \
        --authorization-kubeconfig="$run/scheduler.kubeconfig" --leader-elect=false
    wait_for 120 kubectl get serviceaccount default
    say "controllers at work"
}

node_up
api_up
[ "$level" = l1 ] && exit
controllers_up
[ "$level" = l2 ] && exit
. "$here/node.sh"
