//! Probes of the kubelet. It asks from the node: the kernel accepts a captured connection before the proxy has asked
//! the application, so a TCP probe would always succeed, and a policy that does not know the node would deny the others.
//! They become questions to the proxy's health port, the one that is not captured, and the proxy asks the application:
//!
//! | Probe | Asks, after [`PATH`] |
//! |---|---|
//! | `tcpSocket` | `tcp/<port>` |
//! | `httpGet` | `http/<port>/<path>`, `https/<port>/<path>` |
//! | `grpc` | `grpc/<port>/<service>` |
//!
//! All that the proxy may ask is in what the probe says then, so a second pass finds what the first one made. Commands
//! never leave the container. Hooks by HTTP stay: who may set off what they do is for the policy to say.

use std::collections::BTreeSet;

use outrider_model::names;
use serde_json::{Value, json};

use super::{
    neighbours::is_own_port,
    patch::Patch,
    pod::{Container, List, Pod, items, text},
    settings::Settings,
    values,
};

/// Questions of one pod that the proxy answers.
pub const MAX_PROBES: usize = 64;
/// Bytes of all of them but TCP ones, as the proxy is told.
const MAX_TOLD: usize = 16 << 10;
/// Longest path, service, and header, and headers of one probe: others stay as they are.
const MAX_TEXT: usize = 1024;
const MAX_SERVICE: usize = 127;
const MAX_HEADERS: usize = 16;

/// Probes of a container.
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// Where the proxy answers for the application.
const PATH: &str = "/healthz/app/";

/// What the proxy is to ask the application.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Ports that are only connected to.
    pub(super) ports: BTreeSet<u16>,
    /// The others: what is asked, headers, seconds.
    others: BTreeSet<(String, Vec<[String; 2]>, u64)>,
}

impl Asked {
    /// The others as the proxy's setting has them, if there are any.
    pub(super) fn others(&self) -> Option<String> {
        let all = self.others.iter().map(|(ask, headers, seconds)| {
            let mut told = json!({ "ask": ask, "seconds": seconds });
            if !headers.is_empty() {
                told["headers"] = json!(headers);
            }
            told
        });
        let all: Vec<_> = all.collect();
        // The kubelet takes `$(NAME)` in a variable for another one's value, and two of these signs for one.
        (!all.is_empty()).then(|| Value::from(all).to_string().replace('$', "$$"))
    }

    fn take(&mut self, container: &Container<'_>, probe: &str, ask: String) {
        let probe = &container.value[probe];
        if let Some(port) = ask.strip_prefix("tcp/").and_then(values::port) {
            self.ports.insert(port);
            return;
        }
        let headers = items(&probe["httpGet"], "httpHeaders").iter();
        let headers = headers.map(|header| {
            ["name", "value"].map(|field| text(header, field).unwrap_or_default().to_owned())
        });
        let seconds = probe["timeoutSeconds"].as_u64().unwrap_or(1).clamp(1, 60);
        self.others.insert((ask, headers.collect(), seconds));
    }
}

/// Rewrites what must be, and says what the proxy answers for.
///
/// # Errors
/// When it is too much.
pub(super) fn rewrite(
    pod: &Pod<'_>,
    settings: &Settings,
    patch: &mut Patch,
    warnings: &mut Vec<String>,
) -> Result<Asked, Vec<String>> {
    let mut asked = Asked::default();
    let which = settings.get("probes");
    for list in [List::Containers, List::Init] {
        for container in pod.neighbours(list) {
            for probe in PROBES {
                if let Some(ask) = rewritten(&container, probe) {
                    asked.take(&container, probe, ask);
                } else if which != "off" {
                    let all = which == "all";
                    match wanted(&container, probe, all) {
                        Ok(None) => {}
                        Ok(Some(ask)) => {
                            rewrite_one(&container, probe, &ask, patch);
                            asked.take(&container, probe, ask);
                        }
                        Err(why) => {
                            let name = container.shown();
                            warnings.push(format!("{name}: {probe}: {why}, left as it is"));
                        }
                    }
                }
            }
        }
    }
    if asked.ports.len() + asked.others.len() > MAX_PROBES {
        return Err(vec![format!("more than {MAX_PROBES} different probes")]);
    }
    if asked.others().is_some_and(|told| told.len() > MAX_TOLD) {
        return Err(vec![format!("probes: paths and headers of more than {MAX_TOLD} bytes")]);
    }
    Ok(asked)
}

/// What the proxy would have to ask instead of the kubelet, if it is to.
///
/// # Errors
/// Why the probe cannot be put so.
fn wanted(
    container: &Container<'_>,
    probe: &str,
    all: bool,
) -> Result<Option<String>, &'static str> {
    let probe = &container.value[probe];
    let kinds = if all { &["tcpSocket", "httpGet", "grpc"][..] } else { &["tcpSocket"] };
    let Some(kind) = kinds.iter().find(|kind| probe[**kind].is_object()) else { return Ok(None) };
    let handler = &probe[*kind];
    // A probe of another host does not come to this pod.
    if text(handler, "host").is_some_and(|host| !host.is_empty()) {
        return Ok(None);
    }
    let port = container
        .port(&handler["port"])
        .ok_or("no port of that name")?;
    match *kind {
        "tcpSocket" => Ok(Some(format!("tcp/{port}"))),
        "grpc" => {
            let service = text(handler, "service").unwrap_or_default();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if service.len() > MAX_SERVICE || !service.bytes().all(plain) {
                return Err("a service that is not up to 127 letters, digits, . _ -");
            }
            Ok(Some(format!("grpc/{port}/{service}")))
        }
        _ => {
            let headers = items(handler, "httpHeaders");
            let long = |header: &Value| {
                let of = |field| text(header, field).map_or(0, str::len);
                of("name") + of("value") > MAX_TEXT
            };
            if headers.len() > MAX_HEADERS || headers.iter().any(long) {
                return Err("too many headers, or too long");
            }
            let path = text(handler, "path").unwrap_or_default();
            let path = path.strip_prefix('/').unwrap_or(path);
            if path.len() > MAX_TEXT || !passes(path) {
                return Err("a path that is not in its own final form");
            }
            let scheme = match text(handler, "scheme") {
                Some("HTTPS") => "https",
                _ => "http",
            };
            Ok(Some(format!("{scheme}/{port}/{path}")))
        }
    }
}

/// Whether a path with its query is sent as it is written, by whoever sends it.
fn passes(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    let mut escapes = path.split('%').skip(1);
    path.bytes().all(plain)
        && !path.starts_with('/')
        && !path
            .split(['/', '?'])
            .any(|part| matches!(part, "." | ".."))
        && escapes.all(|rest| {
            let digits = rest.as_bytes().first_chunk::<2>();
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        })
}

fn rewrite_one(container: &Container<'_>, probe: &str, ask: &str, patch: &mut Patch) {
    let path = format!("{}/{probe}", container.path());
    let mut asked = json!({
        "path": format!("{PATH}{ask}"),
        "port": names::HEALTH_PORT,
        "scheme": "HTTP",
    });
    let probe = &container.value[probe];
    for other in ["tcpSocket", "grpc"] {
        if probe[other].is_object() {
            patch.remove(format!("{path}/{other}"));
        }
    }
    let headers = &probe["httpGet"]["httpHeaders"];
    if headers.is_array() {
        asked["httpHeaders"] = headers.clone();
    }
    patch.add(format!("{path}/httpGet"), asked);
}

/// What a probe of our making asks for.
fn rewritten(container: &Container<'_>, probe: &str) -> Option<String> {
    let http = &container.value[probe]["httpGet"];
    let to_us = http["port"].as_u64() == Some(names::HEALTH_PORT.into());
    let ask = text(http, "path").filter(|_| to_us)?.strip_prefix(PATH)?;
    let (kind, rest) = ask.split_once('/')?;
    let (port, rest) = match kind {
        "tcp" => (rest, None),
        "http" | "https" | "grpc" => rest
            .split_once('/')
            .map(|(port, rest)| (port, Some(rest)))?,
        _ => return None,
    };
    let port = values::port(port)?;
    let fits = rest.is_none_or(|rest| rest.len() <= MAX_TEXT && passes(rest));
    (fits && !is_own_port(port)).then(|| ask.to_owned())
}

/// Probes and hooks of a container that ask the proxy itself: they would say nothing of the application.
pub(super) fn refused(container: &Container<'_>) -> Vec<String> {
    let ours = |handler: &serde_json::Value| {
        ["httpGet", "tcpSocket", "grpc"].iter().any(|kind| {
            container
                .port(&handler[*kind]["port"])
                .is_some_and(is_own_port)
        })
    };
    let mut reasons = Vec::new();
    for probe in PROBES {
        if ours(&container.value[probe]) && rewritten(container, probe).is_none() {
            reasons.push(format!("{}: {probe} asks a port of the proxy", container.shown()));
        }
    }
    for hook in ["postStart", "preStop"] {
        if ours(&container.value["lifecycle"][hook]) {
            reasons.push(format!("{}: {hook} asks a port of the proxy", container.shown()));
        }
    }
    reasons
}
