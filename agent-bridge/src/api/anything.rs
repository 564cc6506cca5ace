//! Whatever is asked, the API answers, and never that it failed itself.

use std::time::Duration;

use axum::http::{
    HeaderName, HeaderValue, Method, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use proptest::prelude::*;
use tokio::time::timeout;
use tower::Service as _;

use super::*;
use crate::node::bare;

const LONG: Duration = Duration::from_secs(60);

/// A word that means something here, or anything.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "cache",
        "default/cache",
        "default",
        "redis",
        "flow,mode",
        "policy",
        "protect",
        "5",
        "0",
        "10000",
        "4294967296",
        "-1",
        "AAAA",
        "10.0.0.2",
        "fd00::2",
        "1-0.0.0.0.0",
    ];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        "[ -~]{0,24}",
        any::<String>(),
    ]
}

/// Text as a part of a URI: some of it escaped, some not.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b',' | b':' | b'+' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02x}"),
    };
    text.bytes().map(escape).collect()
}

fn path() -> impl Strategy<Value = String> {
    let known: Vec<&str> = routes().iter().map(|(path, ..)| *path).collect();
    let known = (prop::sample::select(known), word(), word()).prop_map(|(path, one, other)| {
        let parts = path.split('/').map(|part| match part {
            "{name}" | "{id}" => escaped(&one),
            "{namespace}" => escaped(&other),
            fixed => fixed.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    });
    prop_oneof![9 => known, 1 => "/[ -~]{0,40}"]
}

fn query() -> impl Strategy<Value = String> {
    let names =
        ["limit", "cursor", "workload", "app", "since", "kinds", "client", "server", "port", "odd"];
    let pair = (prop::sample::select(names.to_vec()), word())
        .prop_map(|(name, value)| format!("{name}={}", escaped(&value)));
    let pairs = prop::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"));
    prop_oneof![4 => pairs, 1 => "[!-~]{0,40}"]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let known = word().prop_map(|word| {
        let text = serde_json::json!({
            "mode": word, "filter": word, "snap_length": 5, "packets": word.len(), "seconds": 0,
        });
        text.to_string().into_bytes()
    });
    let mode = word().prop_map(|mode| serde_json::json!({ "mode": mode }).to_string().into_bytes());
    prop_oneof![known, mode, prop::collection::vec(any::<u8>(), 0..64)]
}

#[derive(Debug)]
struct Asked {
    method: &'static str,
    target: String,
    authorization: Vec<u8>,
    host: String,
    last: String,
    body: Vec<u8>,
}

fn request() -> impl Strategy<Value = Asked> {
    let method = prop::sample::select(vec!["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"]);
    let authorization = prop_oneof![
        Just(Vec::new()),
        word().prop_map(|word| format!("Bearer {word}").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let host = prop_oneof![Just("localhost".to_owned()), word()];
    (method, path(), query(), authorization, host, word(), body()).prop_map(
        |(method, path, query, authorization, host, last, body)| Asked {
            method,
            target: format!("{path}?{query}"),
            authorization,
            host,
            last,
            body,
        },
    )
}

impl Asked {
    /// As HTTP would bring it; `None` if it would not.
    fn built(&self) -> Option<Request> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.parse::<Method>().ok()?;
        *request.uri_mut() = self.target.parse::<Uri>().ok()?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let sent = [
            (AUTHORIZATION, self.authorization.as_slice()),
            (HOST, self.host.as_bytes()),
            (HeaderName::from_static("last-event-id"), self.last.as_bytes()),
        ];
        for (name, value) in sent {
            if let Ok(value) = HeaderValue::from_bytes(value)
                && !value.is_empty()
            {
                headers.insert(name, value);
            }
        }
        Some(request)
    }
}

/// A router over the unix socket, and one over TCP.
fn routers(dir: &tempfile::TempDir) -> [Router; 2] {
    let node = bare(dir);
    let gate = Gate { tokens: Arc::new(Tokens::None), review: None, is_loopback: true };
    [Access::Unix, Access::Tcp(Arc::new(gate))].map(|access| router(Arc::clone(&node), access))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_request_is_answered(asked in prop::collection::vec(request(), 64)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            for mut router in routers(&dir) {
                for asked in &asked {
                    let Some(request) = asked.built() else { continue };
                    let answer = timeout(LONG, router.call(request)).await;
                    let status = answer.expect("an answer").unwrap().status();
                    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{asked:?}");
                }
            }
        });
    }

    #[test]
    fn any_file_of_tokens_is_read_and_gives_no_more_than_it_says(text in any::<String>(), lines in prop::collection::vec(word(), 0..20)) {
        for text in [text, lines.join("\n"), lines.join(" read ")] {
            let found = tokens::counted(&text);
            prop_assert!(found.0 <= text.lines().count());
        }
    }
}
