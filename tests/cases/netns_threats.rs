//! Threats by real clients: reported once with their evidence, stopped in Protect only.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use outrider_tests::{
    Pod, Scene, cli::Threat, exchange::exchange, pod::Curl, require_netns, scene::REPORTED, until,
};

/// An answer comes at once or not at all.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn both_framings_are_reported_once_with_their_evidence() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        scene.reported_by_both(&scene.web, || {
            let curl = smuggle(scene)?;
            ensure!(curl.code == 0, "Discover blocked it: {curl:?}");
            Ok(())
        })?;
        ensure!(nginx_saw(&scene.web, "POST")? == 1, "nginx never saw it");
        let threat = only(scene, 2014)?;
        ensure!(
            (threat.name.as_str(), threat.severity.as_str()) == ("HTTP.Request.Smuggling", "high")
        );
        ensure!((threat.action.as_str(), threat.count) == ("alert", 1), "{threat:?}");
        ensure!(threat.workload == "default/web" && threat.server_port == 80, "{threat:?}");
        ensure!(threat.client_ip == scene.shop.ip(false).to_string(), "{threat:?}");
        let evidence = decode_base64(&threat.evidence)?;
        let text = String::from_utf8_lossy(&evidence);
        ensure!(text.contains("Transfer-Encoding: chunked"), "evidence: {text:?}");
        ensure!(text.contains("Content-Length: 5"), "evidence: {text:?}");
        Ok(())
    })
}

#[test]
fn a_threat_is_stopped_in_protect_and_the_server_never_sees_it() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let url = format!("http://{}/", scene.web.at(false, 80));
        scene.learn(&scene.web, 80, || scene.shop.fetch(&url).map(drop))?;
        scene.node.set_mode("web", "protect")?;
        scene.shop.fetch(&url)?;
        scene.reported_by_both(&scene.web, || {
            let curl = smuggle(scene)?;
            // The body is left out: what remains is the status.
            ensure!(curl.code != 0 || curl.out == "403", "it went through: {curl:?}");
            Ok(())
        })?;
        let threat = only(scene, 2014)?;
        ensure!(threat.action == "block", "{threat:?}");
        ensure!(nginx_saw(&scene.web, "POST")? == 0, "nginx saw the request");
        // The next flow is not touched.
        scene.shop.fetch(&url).map(drop)
    })
}

#[test]
fn ordinary_traffic_raises_no_threat() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        for v6 in [false, true] {
            scene
                .shop
                .fetch(&format!("http://{}/", scene.web.at(v6, 80)))?;
            scene
                .shop
                .fetch(&format!("https://{}/", scene.web.at(v6, 443)))?;
            scene
                .shop
                .redis_cli(scene.cache.at(v6, 6379), &["set", "a", "b"])?;
            let post = ["-d", "a=b", &format!("http://{}/", scene.web.at(v6, 80))];
            scene.shop.curl(&post)?;
        }
        scene.reported(&scene.web, 80, 4)?;
        let threats = scene.node.threats()?;
        ensure!(threats.is_empty(), "{threats:?}");
        Ok(())
    })
}

#[test]
fn an_sslv3_hello_and_an_ssh_1_client_are_reported() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        // No shipped client speaks these any more: the bytes are what such a client would send.
        let hello = ssl3_hello();
        let web = scene.web.at(true, 443);
        let client = &scene.shop.netns;
        scene.reported_by_both(&scene.web, || exchange(client, web, &hello, AT_ONCE).map(drop))?;
        let threat = only(scene, 2011)?;
        ensure!(threat.client_ip == scene.shop.ip(true).to_string(), "{threat:?}");
        let evidence = decode_base64(&threat.evidence)?;
        ensure!(contains(&evidence, &hello[..5]), "evidence: {evidence:?}");
        let (cache, banner) = (scene.cache.at(false, 6379), b"SSH-1.5-old\r\n");
        scene.reported_by_both(&scene.cache, || {
            exchange(client, cache, banner, AT_ONCE).map(drop)
        })?;
        let threat = only(scene, 2008)?;
        ensure!(threat.workload == "default/cache" && threat.severity == "low", "{threat:?}");
        Ok(())
    })
}

#[test]
fn a_tls_session_by_openssl_is_named_by_its_server_name() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let web = scene.web.at(false, 443);
        let script = format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -connect {web} -servername \
             web.example -quiet 2>/dev/null"
        );
        let answer = scene.shop.sh(&script)?;
        ensure!(answer.contains("hello from web"), "{answer}");
        until("the flow's name", REPORTED, || {
            let flows = scene.node.flows()?;
            let named = flows
                .iter()
                .find(|flow| flow.sni.as_deref() == Some("web.example"));
            let named = named.with_context(|| format!("none among {flows:?}"))?;
            ensure!(named.app == "SSL", "{named:?}");
            Ok(())
        })
    })
}

/// curl sends one request with both framings to web.
fn smuggle(scene: &Scene) -> Result<Curl> {
    let url = format!("http://{}/", scene.web.at(false, 80));
    let headers = ["-H", "Transfer-Encoding: chunked", "-H", "Content-Length: 5"];
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    // nginx answers 400 to it: that is an answer, and what it says is up to nginx.
    scene
        .shop
        .curl(&[&["--data-binary", "abcde"][..], &headers, &status, &[&url]].concat())
}

/// Requests of a method in nginx's access log.
fn nginx_saw(web: &Pod, method: &str) -> Result<usize> {
    let log = std::fs::read_to_string(web.file("nginx").join("access.log"))?;
    Ok(log
        .lines()
        .filter(|line| line.contains(&format!("\"{method} ")))
        .count())
}

/// The only threat with this number.
fn only(scene: &Scene, id: u32) -> Result<Threat> {
    until("the threat", REPORTED, || {
        let mut threats = scene.node.threats()?;
        threats.retain(|threat| threat.id == id);
        match &threats[..] {
            [threat] => Ok(threat.clone()),
            _ => bail!("{} threats {id}: {threats:?}", threats.len()),
        }
    })
}

/// An SSL 3.0 client hello with one cipher.
fn ssl3_hello() -> Vec<u8> {
    let mut body = vec![3, 0];
    body.extend([0x5a; 32]);
    body.extend([0, 0, 2, 0, 0x0a, 1, 0]);
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    let mut record = vec![22, 3, 0, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("not base64: {text}"),
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff)?);
        }
    }
    Ok(out)
}
