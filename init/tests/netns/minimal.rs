//! An image with nothing in it but the program and the tools it calls: no shell, no writable file.

use crate::outcomes::BACKENDS;
use crate::world::World;

/// Fills a directory with the program, the tools and the libraries that they are linked to, makes it read-only but
/// for `/dev/shm` and with `/proc`, as a container runtime does, and runs the program in it. Mounts stay in the namespace of this call.
const SCRIPT: &str = r#"
set -eu
root=$(mktemp -d); init=$1; shift
trap 'rm -rf "$root"' EXIT
tools="$(command -v nft) $(command -v xtables-nft-multi) $(command -v xtables-legacy-multi)"
mkdir "$root/image"
for file in $init $tools $(ldd $init $tools | grep -o '/[^ :)]*' | sort -u); do
    [ ! -f "$file" ] || cp -L --parents "$file" "$root/image"
done
cp -rL --parents /usr/lib/*/xtables "$root/image"
for kind in nft legacy; do
    for name in iptables ip6tables; do
        for verb in "" -save -restore; do
            ln -s xtables-$kind-multi "$root/image/usr/sbin/$name-$kind$verb"
        done
    done
done
mkdir -p "$root/image/dev/shm" "$root/image/proc"
mount --bind "$root/image" "$root/image"
mount -t tmpfs none "$root/image/dev/shm"
mount -t proc none "$root/image/proc"
mount -o remount,bind,ro "$root/image"
if touch "$root/image/file" 2>/dev/null || [ -e "$root/image/bin/sh" ]; then
    echo "not an empty read-only image" >&2; exit 99
fi
status=0
PATH=/usr/sbin chroot "$root/image" "$init" "$@" || status=$?
umount "$root/image/dev/shm" "$root/image/proc" "$root/image"
exit $status
"#;

#[test]
fn works_in_an_empty_read_only_image_without_a_shell() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        let run = |verb: &str| {
            let program = env!("CARGO_BIN_EXE_outrider-init");
            let call = [&["-c", SCRIPT, "sh", program, verb], chosen].concat();
            world.pod.output("sh", &call)
        };
        let report = run("apply");
        assert!(report.contains("applied"), "{backend}: {report}");
        let report = run("apply");
        assert!(report.contains("unchanged"), "{backend}: {report}");
        world.init_ok(&["cleanup"]);
    }
}
