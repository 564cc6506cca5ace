//! Killed at any point: each table of each family is as before or as after, and running again mends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::outcomes::BACKENDS;
use crate::world::{APP, ROOT, World};

/// Tools in whose place a script stands, that kills init before or after it calls the real one.
const TOOLS: [&str; 7] = [
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft-restore",
    "iptables-legacy-restore",
    "ip6tables-legacy-restore",
    "ip6tables-nft-save",
    "nft",
];

/// A directory of such scripts.
struct Shims(PathBuf);

impl Shims {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!(
            "outrider-shims-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir_all(&path).expect("a directory for scripts");
        for tool in TOOLS {
            let script = format!(
                "#!/bin/sh\n\
                 [ \"$KILL\" = \"before {tool}\" ] && {{ kill -9 $PPID; exit 1; }}\n\
                 PATH=/usr/sbin:/sbin:/usr/bin:/bin\n\
                 {tool} \"$@\"; code=$?\n\
                 [ \"$KILL\" = \"after {tool}\" ] && kill -9 $PPID\n\
                 exit $code\n"
            );
            let file = path.join(tool);
            fs::write(&file, script).expect("write a script");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("make it run");
        }
        Self(path)
    }

    /// Applies and is killed at `point`, if that point is reached.
    fn apply(&self, world: &World, point: &str, arguments: &[&str]) -> bool {
        let path = format!("{}:/usr/sbin:/sbin:/usr/bin:/bin", self.0.display());
        let output = Command::new("ip")
            .args(["netns", "exec", &world.pod.name, env!("CARGO_BIN_EXE_outrider-init"), "apply"])
            .args(arguments)
            .env("PATH", path)
            .env("KILL", point)
            .output()
            .expect("ip");
        !output.status.success()
    }
}

impl Drop for Shims {
    fn drop(&mut self) {
        // A directory that stays behind is not worth a panic.
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// The rules by build, family and table; absent and empty are the same.
fn tables(world: &World) -> BTreeMap<String, String> {
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    let (mut tool, mut table) = (String::new(), String::new());
    for line in world.rules().lines() {
        if let Some(name) = line.strip_prefix("# ") {
            tool = name.to_owned();
        } else if line.starts_with(['*', 't']) {
            table = line.to_owned();
        }
        let ours = line.contains("OUTRIDER") || (tool.is_empty() && !line.starts_with("table"));
        if ours {
            let text = tables.entry(format!("{tool} {table}")).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    tables
}

/// Every table is one of the two that it may be.
fn is_old_or_new(
    now: &BTreeMap<String, String>,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    point: &str,
) {
    for name in old.keys().chain(new.keys()).chain(now.keys()) {
        let (now, old, new) = (now.get(name), old.get(name), new.get(name));
        assert!(now == old || now == new, "{point}: {name} is neither old nor new: {now:?}");
    }
}

#[test]
fn killed_at_any_point_each_table_is_old_or_new_and_running_again_mends() {
    let shims = Shims::new();
    let points: Vec<String> = ["before", "after"]
        .into_iter()
        .flat_map(|when| TOOLS.map(|tool| format!("{when} {tool}")))
        .collect();
    let mut killed = 0;
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::without_listeners() else { return };
        let next = [chosen, &["--mode", "tproxy", "--dns", "all", "--guard", "all"]].concat();
        world.init_ok(&[&["apply"], chosen].concat());
        let old = tables(&world);
        world.init_ok(&[&["apply"], next.as_slice()].concat());
        let new = tables(&world);
        let nothing = BTreeMap::new();
        for point in &points {
            world.init_ok(&["cleanup"]);
            killed += usize::from(shims.apply(&world, point, chosen));
            is_old_or_new(&tables(&world), &nothing, &old, &format!("{backend}, first, {point}"));
            world.init_ok(&[&["apply"], chosen].concat());
            assert_eq!(tables(&world), old, "{backend}: {point} was not mended");

            killed += usize::from(shims.apply(&world, point, &next));
            is_old_or_new(&tables(&world), &old, &new, &format!("{backend}, replace, {point}"));
            world.init_ok(&[&["apply"], next.as_slice()].concat());
            assert_eq!(tables(&world), new, "{backend}: {point} was not mended");
        }
    }
    assert!(killed > 20, "too few points were reached: {killed}");
}

#[test]
fn killed_before_the_flush_running_again_flushes() {
    let shims = Shims::new();
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::without_listeners() else { return };
        // Somebody uses conntrack before us, so that it knows the older flow as it is.
        world.pod.output(
            "nft",
            &["add table ip user; add chain ip user c { type filter hook output priority 0; }; \
                add rule ip user c ct state established accept"],
        );
        let listener = world
            .peer
            .run(ROOT, || TcpListener::bind("192.0.2.10:7000"))
            .expect("bind");
        let mut client = world
            .pod
            .run(APP, || TcpStream::connect("192.0.2.10:7000"))
            .expect("nothing is captured yet");
        let (mut server, _) = listener.accept().expect("accept");
        server
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("timeout");
        let arguments = [chosen, &["--guard", "off"]].concat();
        let last = match backend {
            "nft" => "after nft",
            "legacy iptables" => "after ip6tables-legacy-restore",
            _ => "after ip6tables-nft-restore",
        };
        assert!(shims.apply(&world, last, &arguments), "{backend}: not killed");
        let mut bytes = [0; 8];
        client
            .write_all(b"before")
            .expect("the flow is known and goes on");
        assert_eq!(server.read(&mut bytes).ok(), Some(6), "{backend}");

        let report = world.init_ok(&[&["apply"], arguments.as_slice()].concat());
        assert!(report.contains("flushed"), "{backend}: {report}");
        client.write_all(b"after").expect("the buffer takes it");
        assert_eq!(server.read(&mut bytes).unwrap_or(0), 0, "{backend}: the flow went on");
        let report = world.init_ok(&[&["apply"], arguments.as_slice()].concat());
        assert!(!report.contains("flushed"), "{backend}: once is enough: {report}");
    }
}
