//! Much traffic: nothing fails, nothing changes on its way, everything is counted once.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{Pod, Scene, process::run, require_netns, wait::until};

/// How long curl may take for one batch.
const BATCH: Duration = Duration::from_secs(120);
/// One GiB.
const GIB: u64 = 1 << 30;

#[test]
fn a_thousand_requests_one_after_another_each_counted() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let mut bytes = 0;
        for v6 in [false, true] {
            // One connection a request: 500 sessions a family.
            let batch = requests(&scene.shop, &scene.web, v6, 500, &["-H", "Connection: close"])?;
            bytes += batch;
        }
        scene.reported_exactly(&scene.web, 80, 1000, bytes)?;
        // A thousand more on one connection: one session.
        bytes += requests(&scene.shop, &scene.web, false, 1000, &[])?;
        scene.reported_exactly(&scene.web, 80, 1001, bytes)?;
        flows_agree(scene, 1001)
    })
}

#[test]
fn two_hundred_requests_at_once_each_counted() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let at_once = ["--parallel", "--parallel-immediate", "--parallel-max", "200"];
        let mut bytes = 0;
        for v6 in [false, true] {
            let close = [&at_once[..], &["-H", "Connection: close"]].concat();
            bytes += requests(&scene.shop, &scene.web, v6, 200, &close)?;
        }
        scene.reported_exactly(&scene.web, 80, 400, bytes)?;
        flows_agree(scene, 400)
    })
}

#[test]
fn a_gibibyte_arrives_as_it_was_sent_and_is_counted() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let file = scene.web.files().join("gib");
        random_file(&file, GIB)?;
        let sum = run(Command::new("sh").args(["-c", &format!("sha256sum < {}", file.display())]))?;
        let mut bytes = 0;
        for v6 in [false, true] {
            let url = format!("http://{}/files/gib", scene.web.at(v6, 80));
            let script = format!(
                "curl -sS --noproxy '*' -w '%{{stderr}}{COUNTS}' {url} 2>{counts} | sha256sum",
                counts = scene.shop.file("counts").display()
            );
            ensure!(scene.shop.netns.sh(BATCH, &script)? == sum, "the checksum differs, v6 {v6}");
            bytes += counted(&std::fs::read_to_string(scene.shop.file("counts"))?)?;
        }
        ensure!(bytes > 2 * GIB);
        scene.reported_exactly(&scene.web, 80, 2, bytes)
    })
}

#[test]
fn an_upload_arrives_as_it_was_sent_and_half_close_passes() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let file = scene.shop.file("upload");
        random_file(&file, GIB / 8)?;
        let sum = run(Command::new("sh").args(["-c", &format!("sha256sum < {}", file.display())]))?;
        for (v6, port) in [(false, 7001), (true, 7002)] {
            // A server that answers only when the client has sent its last byte.
            let address = scene.web.at(v6, port);
            let listener = scene.web.netns.enter(|| Ok(TcpListener::bind(address)?))?;
            let server = std::thread::spawn(move || checksum_server(&listener));
            let answer = upload(&scene.shop, address, &file)?;
            ensure!(answer == sum, "the checksum differs, v6 {v6}: {answer:?}");
            server.join().ok().context("the server panicked")??;
            scene.reported_exactly(&scene.web, port, 1, GIB / 8 + sum.len() as u64)?;
        }
        Ok(())
    })
}

const COUNTS: &str =
    "%{http_code} %{size_request} %{size_upload} %{size_header} %{size_download}\\n";

/// Makes `count` requests with one run of curl; all must succeed. Returns the bytes both ways.
fn requests(client: &Pod, server: &Pod, v6: bool, count: u32, extra: &[&str]) -> Result<u64> {
    let url = format!("http://{}/1k?[1-{count}]", server.at(v6, 80));
    // Brackets mean a range to curl, but not those of an IPv6 address.
    let fixed = ["--fail", "-o", "/dev/null", "-w", COUNTS, &url];
    let curl = client.curl_for(BATCH, &[extra, &fixed].concat())?;
    ensure!(curl.code == 0, "curl failed: {} {}", curl.code, curl.err);
    let lines = curl.out.lines().count();
    ensure!(lines == count as usize, "{lines} answers to {count} requests");
    counted(&curl.out)
}

/// Sums what curl counted: requests with their bodies, headers and bodies of answers.
fn counted(text: &str) -> Result<u64> {
    let mut sum = 0;
    for line in text.lines() {
        let mut fields = line.split(' ');
        ensure!(fields.next() == Some("200"), "not a success: {line}");
        for field in fields {
            sum += field.parse::<u64>().with_context(|| line.to_owned())?;
        }
    }
    Ok(sum)
}

/// Both proxies took in as many flows as there were, and hold none any more.
fn flows_agree(scene: &Scene, flows: u32) -> Result<()> {
    until("the proxies' counters to agree", Duration::from_secs(40), || {
        for (pod, direction) in [(&scene.web, "inbound"), (&scene.shop, "outbound")] {
            let (metrics, labels) = (pod.metrics()?, [("direction", direction)]);
            let opened = metrics.sum("outrider_flows_opened_total", &labels);
            let closed = metrics.sum("outrider_flows_closed_total", &labels);
            let open = metrics.sum("outrider_flows_open", &labels);
            let sums = (opened, closed, open);
            ensure!(sums == (f64::from(flows), f64::from(flows), 0.0), "{}: {sums:?}", pod.name);
        }
        Ok(())
    })
}

/// A file of bytes that do not repeat: AES-CTR of zeroes.
fn random_file(path: &Path, bytes: u64) -> Result<()> {
    let script = format!(
        "head -c {bytes} /dev/zero | openssl enc -aes-128-ctr -K 0123456789abcdef0123456789abcdef \
         -iv 00000000000000000000000000000000 > {}",
        path.display()
    );
    run(Command::new("sh").args(["-c", &script])).map(drop)
}

/// Takes one connection, reads it to its end through sha256sum, and answers with the sum.
fn checksum_server(listener: &TcpListener) -> Result<()> {
    let (stream, _) = listener.accept()?;
    let (input, output) = (stream.try_clone()?, stream);
    let mut sum = Command::new("sha256sum")
        .stdin(std::os::fd::OwnedFd::from(input))
        .stdout(std::os::fd::OwnedFd::from(output))
        .spawn()?;
    ensure!(sum.wait()?.success());
    Ok(())
}

/// Sends a file, then the end of the stream, and reads the answer.
fn upload(client: &Pod, server: SocketAddr, file: &Path) -> Result<String> {
    client.netns.enter(|| {
        let stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(BATCH))?;
        let mut source = std::fs::File::open(file)?;
        std::io::copy(&mut source, &mut &stream)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        Ok(std::io::read_to_string(&stream)?)
    })
}
