# Read by every script here: where things are, and the few functions they share. Needs bash.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${OUTRIDER_E2E_DIR:-$root/target/e2e}
version=${KUBERNETES:-1.34}              # 1.34: native sidecars, 1.20: without them
case $version in
1.34 | 1.20) ;;
*) echo "KUBERNETES=$version: 1.34 or 1.20" >&2 && exit 2 ;;
esac
minor=${version#1.}
pinned=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$here/kubernetes/go.mod") # what is built by Go modules
bin=$work/kubernetes-$version            # the cluster's programs
runtime=$work/runtime                    # containerd, runc, CNI plugins, busybox: Debian's, unpacked
images=$work/images                      # archives that a node imports
plugins=$work/plugins                    # kubectl-outrider
run=$work/run-$version                   # all state of the running cluster

# Both versions may run at once, so each has addresses of its own.
host_ip=10.200.$minor.1
node_ip=10.200.$minor.2
pod_cidr=10.201.$minor.0/24
service_cidr=10.202.$minor.0/24
api_ip=10.202.$minor.1
dns_ip=$node_ip
link=outrider-e2e-$minor                 # the host's end of the pair that leads to the node
cgroup=outrider-e2e-$minor               # parent of all pods' cgroups
node=node-$minor
next_tag=e2e-next                        # of Outrider's images, what an upgrade goes to
previous= previous_tag=e2e-previous      # sources and images of the revision PREVIOUS, which an upgrade comes from
[ -z "${PREVIOUS:-}" ] || previous=$work/previous/$(git -C "$root" rev-parse --short=12 "$PREVIOUS^{commit}")

export PATH=$bin:$runtime/usr/bin:$runtime/usr/sbin:$PATH:/usr/sbin:/sbin
export KUBECONFIG=$run/admin.kubeconfig

# Prints a line with the seconds since the script began.
say() { printf '%5d s  %s\n' "$SECONDS" "$*"; }

# wait_for SECONDS COMMAND...: repeats the command until it succeeds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > until)); then
            echo "gave up waiting for: $*" >&2
            return 1
        fi
        sleep 0.2
    done
}

# Runs a command where the node is: its network and its mounts.
in_node() { nsenter --target "$(<"$run/pids/node")" --net --mount -- "$@"; }

# Debian's packages in a private place: nothing is installed, `deb-src` needs no change of the machine's own lists.
private_apt() {
    mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
    cat >"$work/apt/apt.conf" <<CONF
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt";
Dir::Etc::sourcelist "$work/apt/debian.sources";
Dir::Etc::sourceparts "-";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
    sed 's/^Types: .*/Types: deb deb-src/' /etc/apt/sources.list.d/debian.sources >"$work/apt/debian.sources"
    export APT_CONFIG=$work/apt/apt.conf
    apt-get update -qq
}

# unpack DIRECTORY PACKAGE...: puts packages' files below a directory.
unpack() {
    local into=$1 package
    shift
    mkdir -p "$into" "$work/apt/debs"
    (cd "$work/apt/debs" && apt-get download -qq "$@")
    for package in "$@"; do
        dpkg -x "$work/apt/debs/${package}"_*.deb "$into"
    done
}
