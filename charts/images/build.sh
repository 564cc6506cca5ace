#!/bin/bash
# Builds Outrider's images without Docker and without a registry: static binaries in empty images, one OCI archive each,
# and beside it what is in it (CycloneDX).
# usage: build.sh OUT [NAME...]    NAME: outrider-proxy outrider-init outrider-agent-bridge (all three)
# Settings: PROFILE (release), TARGET (this machine's triple), REPOSITORY (outrider.local), TAG (the workspace's version),
# SOURCES (this tree): another revision's, which is built by this one's compiler flags into the same directory.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:?where to put the archives}
shift
[ $# -gt 0 ] || set -- outrider-proxy outrider-init outrider-agent-bridge

profile=${PROFILE:-release}
target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
sources=${SOURCES:-$root}
tag=${TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$sources/Cargo.toml")}
case $target in
x86_64-*) architecture=amd64 ;;
aarch64-*) architecture=arm64 ;;
*) echo "$target: no image for that processor" >&2 && exit 2 ;;
esac
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Where the sources and crates lie on this machine is kept out of the binaries.
crates=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols"
RUSTFLAGS+=" --remap-path-prefix=$root=/outrider --remap-path-prefix=$crates=/cargo"
export CFLAGS="-ffile-prefix-map=$root=/outrider -ffile-prefix-map=$crates=/cargo"
packages=("${@/#/--package=}")
[[ " $* " != *" outrider-agent-bridge "* ]] || packages+=(--package=outrider-cli)
# A directory of its own: other builds of the same sources neither wait for this one nor undo it.
built=${CARGO_TARGET_DIR:-$root/target}/static
cargo build --quiet --locked --target-dir "$built" --profile "$profile" --target "$target" --manifest-path "$sources/Cargo.toml" "${packages[@]}"
built+=/$target/${profile/#dev/debug}

# What the kernel's rules are installed with: Debian's iptables, the libraries it loads, and nothing else of Debian.
rule_tools() {
    local files=$1 debian=$scratch/debian tool build package
    mkdir -p "$debian" "$files"/usr/{lib,sbin}
    for package in iptables libxtables12 libmnl0 libnftnl11 libip4tc2 libip6tc2 libc6; do
        (cd "$scratch" && apt-get -o APT::Sandbox::User= download -qq "$package" && dpkg -x "$package"_*.deb "$debian")
    done
    cp "$debian"/usr/sbin/xtables-{nft,legacy}-multi "$files/usr/sbin/"
    for build in nft legacy; do
        for tool in {iptables,ip6tables}-$build{-save,-restore}; do
            ln -s xtables-$build-multi "$files/usr/sbin/$tool"
        done
    done
    # Both of Debian's library roots become one, with the links that their programs expect.
    ln -s usr/lib "$files/lib"
    cp -a "$debian/lib/." "$debian/usr/lib/." "$files/usr/lib/"
    [ ! -d "$debian/lib64" ] || cp -a "$debian/lib64" "$files/"
    find "$files/usr/lib" \( -type f -o -type l \) ! -path '*/xtables/*' ! -name 'lib[cm].so.*' ! -name 'ld-linux*' \
        ! -name 'libxtables.*' ! -name 'libmnl.*' ! -name 'libnftnl.*' ! -name 'libip[46]tc.*' -delete
    find "$files/usr/lib" -type d -empty -delete
}

for name; do
    files=$scratch/$name
    user=65532:65532 permitted=""
    mkdir -p "$files"
    cp "$built/$name" "$files/"
    case $name in
    outrider-proxy) user=1771:1771 permitted=$name=net_admin,net_raw ;;
    outrider-init) user=0:0 && rule_tools "$files" ;;
    outrider-agent-bridge) cp "$built/outrider" "$files/" ;;
    esac
    inside=("$name") debs=()
    case $name in
    outrider-init) debs=(-- "$scratch"/*.deb) ;;
    outrider-agent-bridge) inside+=(outrider-cli) ;;
    esac
    mkdir -p "$out"
    (cd "$sources" && python3 "$here/sbom.py" "$(realpath "$out")/$name.cdx.json" "$name" "$tag" "$target" "${inside[@]}" "${debs[@]}")
    PERMITTED=$permitted "$here/pack.sh" "$out/$name.tar" "${REPOSITORY:-outrider.local}/$name:$tag" $architecture $user "$files" "/$name"
done
