# The second half of up.sh: the node's mounts, containerd, the images, kubelet, kube-proxy. Read by up.sh, not run.

# What a node writes outside its own directories goes to look-alikes: /run and /var/log, the names that containers'
# networks are kept under, and six settings of the kernel that are the machine's.
node_mounts() {
    mkdir -p "$run"/{node-log,node-lib,node-lib-work,sysctl}
    in_node bash -euc "
        mount --make-rshared /
        mount -t tmpfs outrider-e2e /run
        mount --bind '$run/node-log' /var/log
        mount -t overlay outrider-e2e -o 'lowerdir=/var/lib,upperdir=$run/node-lib,workdir=$run/node-lib-work' /var/lib
        mkdir -p /run/netns /run/lock
        for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
            kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
            file='$run/sysctl/'\$(basename \${setting%=*})
            echo \${setting#*=} >\$file
            mount --bind \$file /proc/sys/\${setting%=*}
        done
    "
    local hierarchy
    for hierarchy in $(awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/self/mounts); do
        mkdir -p "$hierarchy/$cgroup" 2>/dev/null || true
    done
}

containerd_up() {
    mkdir -p "$run/cni"
    cat >"$run/cni/10-pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$run/addresses",
            "ranges": [[{"subnet": "$pod_cidr"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    cat >"$run/containerd.toml" <<TOML
version = 2
root = "$run/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "outrider.local/busybox:e2e"
disable_apparmor = true
restrict_oom_score_adj = true # root without CAP_SYS_RESOURCE may not lower it
cni = { bin_dir = "$runtime/usr/lib/cni", conf_dir = "$run/cni" }
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = { BinaryName = "$runtime/usr/sbin/runc", SystemdCgroup = false }
TOML
    start containerd containerd --config "$run/containerd.toml"
    wait_for 60 ctr --address "$run/containerd.sock" version
    local image
    for image in "$images"/*.tar ${previous:+"$previous"/images/*.tar}; do
        ctr --address "$run/containerd.sock" --namespace k8s.io images import "$image" >>"$run/logs/import.log"
    done
    # The same under another tag, to be upgraded to.
    for image in outrider-proxy outrider-init outrider-agent-bridge; do
        ctr --address "$run/containerd.sock" --namespace k8s.io images tag "outrider.local/$image:e2e" \
            "outrider.local/$image:$next_tag" >>"$run/logs/import.log"
    done
    say "containerd at work, images: $(ls "$images")"
}

kubelet_up() {
    : >"$run/resolv.conf"
    cat >"$run/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $run/identity/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
clusterDomain: cluster.local
clusterDNS: ["$dns_ip"]
failSwapOn: false
hairpinMode: none
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
resolvConf: $run/resolv.conf
volumePluginDir: $run/volume-plugins
YAML
    local flags=()
    if [ "$version" = 1.20 ]; then
        flags=(--container-runtime=remote --container-runtime-endpoint="unix://$run/containerd.sock")
    else
        echo "containerRuntimeEndpoint: unix://$run/containerd.sock" >>"$run/kubelet.yaml"
    fi
    start kubelet kubelet --config="$run/kubelet.yaml" --kubeconfig="$run/kubelet.kubeconfig" \
        --hostname-override="$node" --node-ip="$node_ip" --root-dir="$run/kubelet" "${flags[@]}"
    kubectl create clusterrolebinding e2e-kube-proxy --clusterrole=system:node-proxier --user=system:kube-proxy
    start kube-proxy kube-proxy --kubeconfig="$run/proxy.kubeconfig" --proxy-mode=iptables \
        --cluster-cidr="$pod_cidr" --hostname-override="$node" --conntrack-max-per-core=0 \
        --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
    start dns python3 "$here/dns.py" "$dns_ip" "$run/admin.kubeconfig"
    wait_for 120 kubectl get node "$node"
    kubectl wait --for=condition=Ready "node/$node" --timeout=180s
    say "node ready"
}

node_mounts
containerd_up
kubelet_up
