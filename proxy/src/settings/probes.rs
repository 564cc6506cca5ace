//! What the health port may ask the workload on behalf of the kubelet.

use std::{fmt, str::FromStr, time::Duration};

use serde::Deserialize;

/// Questions at most.
const MAX_PROBES: usize = 64;
/// Longest text of the setting, bytes.
const MAX_TEXT: usize = 64 << 10;
/// Longest path, service, and header, bytes; headers of one question.
const MAX_PART: usize = 1024;
const MAX_SERVICE: usize = 127;
const MAX_HEADERS: usize = 16;

/// One question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppProbe {
    /// How the kubelet puts it, after `/healthz/app/`.
    pub ask: String,
    /// What is asked.
    pub what: AppAsk,
    /// The workload's port.
    pub port: u16,
    /// Headers of the question by HTTP; whoever asks us has them too.
    pub headers: Vec<Header>,
    /// Time for the answer: 1 s to 1 min.
    pub patience: Duration,
}

/// A header's name and value. No log shows the value: it may be a password.
#[derive(Clone, Eq, PartialEq, Deserialize)]
pub struct Header(pub String, pub String);

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: <redacted>", self.0)
    }
}

/// What is asked of the workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AppAsk {
    /// This path, without TLS or with it.
    Http {
        /// Path and query, beginning with a slash.
        path: String,
        /// Whether by HTTPS. The certificate is not verified, as the kubelet does not.
        tls: bool,
    },
    /// `grpc.health.v1.Health/Check` of this service, which may be empty.
    Grpc(String),
}

/// The setting: a list in JSON.
#[derive(Debug, Default)]
pub(super) struct Probes(pub(super) Vec<AppProbe>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    ask: String,
    seconds: u64,
    #[serde(default)]
    headers: Vec<Header>,
}

impl FromStr for Probes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("more than {MAX_TEXT} bytes"));
        }
        let said: Vec<Said> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if said.len() > MAX_PROBES {
            return Err(format!("more than {MAX_PROBES} probes"));
        }
        said.into_iter()
            .map(probe)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn probe(said: Said) -> Result<AppProbe, String> {
    const FORM: &str = "http/<port>/<path>, https/<port>/<path> or grpc/<port>/<service>";
    let Said { ask, seconds, headers } = said;
    let bad = |why: &str| format!("{:?}: {why}", ask.chars().take(64).collect::<String>());
    let (kind, rest) = ask.split_once('/').ok_or_else(|| bad(FORM))?;
    let (port, rest) = rest.split_once('/').ok_or_else(|| bad(FORM))?;
    let port: u16 = port.parse().map_err(|_no_port| bad(FORM))?;
    let what = match kind {
        "http" | "https" => AppAsk::Http { path: format!("/{rest}"), tls: kind == "https" },
        "grpc" if rest.len() <= MAX_SERVICE => AppAsk::Grpc(rest.to_owned()),
        _ => return Err(bad(FORM)),
    };
    let printed = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if port == 0 || rest.len() > MAX_PART || !printed(rest) {
        return Err(bad(FORM));
    }
    let long = |Header(name, value): &Header| name.len() + value.len() > MAX_PART;
    if headers.len() > MAX_HEADERS || headers.iter().any(long) {
        return Err(bad("too many headers, or too long"));
    }
    if !(1..=60).contains(&seconds) {
        return Err(bad("seconds: from 1 to 60"));
    }
    Ok(AppProbe { what, port, headers, patience: Duration::from_secs(seconds), ask })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_injection_writes() {
        let text = r#"[{"ask":"http/8080/ready?x=1","seconds":3,"headers":[["X","y"]]},
            {"ask":"https/8443/","seconds":1},{"ask":"grpc/9000/","seconds":1}]"#;
        let Probes(read) = text.parse().unwrap();
        assert_eq!(read[0].what, AppAsk::Http { path: "/ready?x=1".into(), tls: false });
        assert_eq!(read[0].headers, [Header("X".into(), "y".into())]);
        assert!(!format!("{read:?}").contains("\"y\""), "{read:?}");
        assert_eq!(read[1].what, AppAsk::Http { path: "/".into(), tls: true });
        assert_eq!((&read[2].what, read[2].port), (&AppAsk::Grpc(String::new()), 9000));
    }

    #[test]
    fn refuses_what_is_no_probe_and_too_much_of_it() {
        let one = |ask: &str| format!(r#"[{{"ask":{ask:?},"seconds":1}}]"#);
        for ask in [
            "",
            "http",
            "http/80",
            "tcp/80/",
            "http/0/",
            "http/x/",
            "http/80/a b",
            "http/80/\u{e4}",
        ] {
            assert!(one(ask).parse::<Probes>().is_err(), "{ask}");
        }
        assert!(r#"[{"ask":"http/80/","seconds":0}]"#.parse::<Probes>().is_err());
        assert!(r#"[{"ask":"http/80/","seconds":1,"more":1}]"#.parse::<Probes>().is_err());
        assert!(
            one(&format!("http/80/{}", "a".repeat(MAX_PART + 1)))
                .parse::<Probes>()
                .is_err()
        );
        let many: Vec<_> = (0..=MAX_PROBES)
            .map(|at| format!(r#"{{"ask":"http/80/{at}","seconds":1}}"#))
            .collect();
        assert!(format!("[{}]", many.join(",")).parse::<Probes>().is_err());
        assert!(
            format!("[{}]", many[1..].join(","))
                .parse::<Probes>()
                .is_ok()
        );
        let headers = vec![r#"["X","y"]"#; MAX_HEADERS + 1].join(",");
        let text = format!(r#"[{{"ask":"http/80/","seconds":1,"headers":[{headers}]}}]"#);
        assert!(text.parse::<Probes>().is_err());
        assert!(" ".repeat(MAX_TEXT + 1).parse::<Probes>().is_err());
    }
}
