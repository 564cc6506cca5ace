//! `outrider capture` and the sniffer calls of gRPC against a live pod: what comes is what tcpdump sees,
//! every bound ends it, and whoever dies, nothing is left behind.

#[path = "netns_capture/stage.rs"]
mod stage;

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use outrider_tests::{
    binaries,
    process::{Process, output, run},
    require_netns, until,
};

use self::stage::{LONG, Stage};

#[test]
fn what_is_captured_is_what_tcpdump_sees() -> Result<()> {
    require_netns!();
    let stage = Stage::build()?;
    let theirs = stage.file("theirs.pcap");
    let mut command = stage.web.netns.command("tcpdump");
    command
        .args(["-i", "eth0", "-U", "--immediate-mode", "-w"])
        .arg(&theirs);
    let log = stage.file("tcpdump.log");
    let mut tcpdump = Process::spawn("tcpdump", command, &log)?;
    tcpdump.ready(LONG, || {
        ensure!(fs::read_to_string(&log)?.contains("listening on"), "no");
        Ok(())
    })?;
    let ours = stage.file("ours.pcapng");
    let capture = stage.capture("ours", &["default/web", "-w", ours.to_str().context("path")?])?;
    stage.running(1)?;
    for v6 in [false, true] {
        for _ in 0..3 {
            stage.fetch(v6)?;
        }
        let ping = format!("ping -q -c 2 -i 0.2 -W 5 {}", stage.web.ip(v6));
        stage.shop.sh(&ping)?;
    }
    let flows = |file| -> Result<Vec<String>> {
        let mut inspect = Command::new(binaries::find("outrider")?);
        let rows = run(inspect.args(["inspect", "--json"]).arg(file))?;
        let mut rows: Vec<_> = rows
            .lines()
            .filter(|row| {
                row.contains(r#""proto":"tcp""#) || row.contains("Echo") || row.contains("icmp")
            })
            .filter(|row| !row.contains("ff02:") && !row.contains("fe80:"))
            .map(str::to_owned)
            .collect();
        rows.sort_unstable();
        Ok(rows)
    };
    until("tcpdump to have written all", LONG, || {
        let seen = flows(&theirs)?;
        let whole = seen.iter().filter(|row| row.contains("HTTP")).count();
        ensure!(whole == 6 && seen.len() >= 8, "{seen:#?}");
        Ok(())
    })?;
    capture.signal(Signal::SIGINT)?;
    let log = capture.log().to_owned();
    let status = capture.wait(LONG)?;
    let said = fs::read_to_string(log)?;
    ensure!(status.success() && said.contains("packets of default/web"), "{status}: {said}");
    tcpdump.terminate(LONG)?;
    let (seen, want) = (flows(&ours)?, flows(&theirs)?);
    ensure!(seen == want, "{seen:#?}\ntcpdump: {want:#?}");
    let local = stage.tcpdump(&ours, "host 127.0.0.1 or host ::1 or port 15106")?;
    ensure!(local == 0, "{local} packets of loopback");
    stage.nothing_is_left()
}

#[test]
fn bounds_filters_and_refusals() -> Result<()> {
    require_netns!();
    let stage = Stage::build()?;
    let _traffic = stage.traffic()?;
    let few = stage.file("few.pcapng");
    let name = few.to_str().context("path")?.to_owned();
    let filter = format!("tcp port 80 and src host {}", stage.shop.ip(false));
    let said =
        stage.outrider(&["capture", "web", "-f", &filter, "-c", "5", "-s", "96", "-w", &name])?;
    ensure!(said.contains("5 packets of default/web"), "{said}");
    ensure!(stage.tcpdump(&few, "")? == 5 && stage.tcpdump(&few, &filter)? == 5);
    let json = stage.outrider(&["--json", "capture", "web", "-d", "1s", "-w", &name])?;
    ensure!(json.contains(r#""state":"ended""#), "{json}");
    ensure!(stage.tcpdump(&few, "host 127.0.0.1 or port 15106")? == 0, "loopback is left out");
    stage.outrider(&["capture", "web", "--loopback", "-d", "2s", "-w", &name])?;
    ensure!(stage.tcpdump(&few, "port 80")? > 0);
    let size = ["capture", "web", "--size", "1", "-d", "60s", "-w", &name];
    let flood = stage.flood()?;
    stage.outrider(&size)?;
    drop(flood);
    let length = fs::metadata(&few)?.len();
    ensure!((900_000..=1 << 20).contains(&length), "{length} bytes");
    let socket = stage.socket();
    let piped = format!(
        "set -o pipefail; {0} --bridge unix:{socket} capture web -f 'port 80' -c 20 | {0} inspect -",
        binaries::find("outrider")?.display()
    );
    let rows = run(stage.node.netns.command("bash").args(["-c", &piped]))?;
    ensure!(rows.contains("tcp"), "{rows}");
    let [_one, _two] = [stage.capture("one", &["web", "-w", "/dev/null"])?, {
        stage.running(1)?;
        stage.capture("two", &["web", "-w", "/dev/null"])?
    }];
    stage.running(2)?;
    for (arguments, code, why) in [
        (&["web"][..], 1, "of this pod"),
        (&["cache"], 1, "NET_RAW"),
        (&["nobody"], 1, "no workload"),
        (&["web", "-f", "host cache"], 2, "names are not looked up"),
        (&["web", "-d", "2h"], 2, "an hour at most"),
        (&["web", "-c", "0"], 2, "0 is not in"),
    ] {
        let refused = stage.file("refused.pcapng");
        let arguments =
            [&["capture"], arguments, &["-w", refused.to_str().context("path")?]].concat();
        let outcome = output(&mut stage.node.outrider(&arguments)?)?;
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        ensure!(outcome.status.code() == Some(code) && said.contains(why), "{arguments:?}: {said}");
        ensure!(!refused.exists(), "a capture that never was has no file");
    }
    Ok(())
}

#[test]
fn whoever_dies_nothing_is_left() -> Result<()> {
    require_netns!();
    let mut stage = Stage::build()?;
    let traffic = stage.traffic()?;
    let file = stage.file("cut.pcapng");
    let name = file.to_str().context("path")?.to_owned();
    // The command line.
    let capture = stage.capture("killed", &["web", "-w", &name])?;
    stage.packets_come()?;
    capture.kill()?;
    stage.over()?;
    // The bridge: the proxy notices that nobody reads.
    let capture = stage.capture("bridgeless", &["web", "-w", &name])?;
    stage.packets_come()?;
    stage.node.kill_bridge()?;
    let status = capture.wait(LONG)?;
    ensure!(!status.success(), "{status}");
    stage.proxy_captures_nothing()?;
    stage.node.start_bridge()?;
    stage.node.connected(&[&stage.web])?;
    // The proxy: what came before is there.
    let capture = stage.capture("proxyless", &["web", "-w", &name])?;
    stage.packets_come()?;
    stage.web.kill_proxy()?;
    let log = capture.log().to_owned();
    let status = capture.wait(LONG)?;
    let said = fs::read_to_string(log)?;
    ensure!(status.code() == Some(1) && said.contains("broke off"), "{status}: {said}");
    ensure!(stage.tcpdump(&file, "")? > 0);
    drop(traffic);
    stage.nothing_is_left()
}

#[test]
fn grpc_starts_lists_downloads_and_removes() -> Result<()> {
    require_netns!();
    let stage = Stage::build()?;
    let _traffic = stage.traffic()?;
    let python = stage::python()?;
    let protos = stage::root().join("agent-bridge/api/proto");
    let made = stage.file("generated");
    fs::create_dir_all(&made)?;
    let (proto, made_in) = (protos.display().to_string(), made.display().to_string());
    run(Command::new(&python)
        .args(["-m", "grpc_tools.protoc", "-I", &proto])
        .args([format!("--python_out={made_in}"), format!("--grpc_python_out={made_in}")])
        .args(["common.proto", "enforcer.proto"]))?;
    let script = stage::root().join("tests/cases/netns_capture/sniff.py");
    let pcap = stage.file("sniffed.pcapng");
    let socket = stage.socket().replace("api.sock", "grpc.sock");
    let mut command = stage.node.netns.limited(Duration::from_secs(120), &python);
    run(command
        .arg(script)
        .args([&made_in, &socket, "uid-web"])
        .arg(&pcap))?;
    ensure!(stage.tcpdump(&pcap, "tcp port 80")? >= 10);
    ensure!(stage.tcpdump(&pcap, "not tcp port 80")? == 0);
    stage.nothing_is_left()
}
