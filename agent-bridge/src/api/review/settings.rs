//! Settings of the token review.

use std::path::PathBuf;

use hyper::Uri;

use crate::{
    cluster::client::{ClientError, client_at},
    settings::Reader,
};

/// Every setting, its default and what it is for, as `--help` shows them.
pub(crate) const HELP: [(&str, &str, &str); 4] = [
    (
        "OUTRIDER_BRIDGE_REVIEW",
        "none",
        "who reviews tokens that are in no file: `cluster`, or an API server's https://HOST:PORT",
    ),
    ("OUTRIDER_BRIDGE_REVIEW_CA", DEFAULT_CA, "who signs its certificate, PEM"),
    ("OUTRIDER_BRIDGE_REVIEW_TOKEN", DEFAULT_TOKEN, "file with the token that it knows us by"),
    (
        "OUTRIDER_BRIDGE_REVIEW_AUDIENCE",
        DEFAULT_AUDIENCE,
        "audience that tokens must be made for; `none`: the API server's own",
    ),
];

const DEFAULT_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const DEFAULT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const DEFAULT_AUDIENCE: &str = "outrider.dev";
const DEFAULT_PORT: u16 = 443;

/// Whom to ask, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ReviewSettings {
    /// Name or address of the API server, without brackets.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Who signs its certificate.
    pub(crate) ca: PathBuf,
    /// Our own token.
    pub(crate) token: PathBuf,
    /// Whom tokens must be made for.
    pub(crate) audience: Option<String>,
}

impl ReviewSettings {
    /// Reads them; mistakes are noted in the reader.
    pub(crate) fn read(env: &mut Reader<impl Fn(&str) -> Option<String>>) -> Option<Self> {
        let server: Option<Server> = env.option("OUTRIDER_BRIDGE_REVIEW");
        let ca = env.path("OUTRIDER_BRIDGE_REVIEW_CA", DEFAULT_CA);
        let token = env.path("OUTRIDER_BRIDGE_REVIEW_TOKEN", DEFAULT_TOKEN);
        let audience = env.value("OUTRIDER_BRIDGE_REVIEW_AUDIENCE", DEFAULT_AUDIENCE.to_owned());
        let audience = (audience != "none").then_some(audience);
        let (host, port) = match server? {
            Server::At(host, port) => (host, port),
            Server::Cluster => {
                let unset = "only set in a pod; name the API server instead";
                let host = env.needed::<String>("KUBERNETES_SERVICE_HOST", unset)?;
                let port = env.needed("KUBERNETES_SERVICE_PORT", unset)?;
                (host.trim_matches(['[', ']']).to_owned(), port)
            }
        };
        Some(Self { host, port, ca, token, audience })
    }

    /// A client of the API server, by files as they are now.
    pub(super) async fn client(&self) -> Result<kube::Client, ClientError> {
        let Self { host, port, ca, token, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        client_at(&format!("https://{host}:{port}"), ca, token).await
    }
}

/// Which API server.
enum Server {
    /// The one of the cluster that the bridge's own pod is in.
    Cluster,
    /// This one.
    At(String, u16),
}

impl std::str::FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be `cluster` or https://HOST[:PORT]";
        if text == "cluster" {
            return Ok(Self::Cluster);
        }
        let uri: Uri = text.parse().map_err(|_error| FORM)?;
        let is_bare =
            uri.scheme_str() == Some("https") && uri.path() == "/" && uri.query().is_none();
        let host = uri
            .host()
            .filter(|_| is_bare && !text.contains('@'))
            .ok_or(FORM)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self::At(host, uri.port_u16().unwrap_or(DEFAULT_PORT)))
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::{Settings, SettingsError};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<ReviewSettings>, SettingsError> {
        let find = |key: &str| pairs.iter().find(|(name, _)| *name == key);
        let read = Settings::read(|key| find(key).map(|(_, text)| (*text).to_owned()));
        read.map(|settings| settings.review)
    }

    #[test]
    fn nobody_reviews_unless_one_is_named() {
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn in_a_pod_the_service_account_is_enough() {
        let pairs = [
            ("OUTRIDER_BRIDGE_REVIEW", "cluster"),
            ("KUBERNETES_SERVICE_HOST", "fd00::1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
        ];
        let found = read(&pairs).unwrap().unwrap();
        assert_eq!((found.host.as_str(), found.port), ("fd00::1", 443));
        assert_eq!(found.audience.as_deref(), Some("outrider.dev"));
        assert_eq!(found.ca, PathBuf::from(DEFAULT_CA));
        let error = read(&pairs[..1]).unwrap_err();
        assert!(error.to_string().contains("KUBERNETES_SERVICE_HOST"), "{error}");
    }

    #[test]
    fn elsewhere_it_is_named() {
        for (text, host, port) in [
            ("https://api.example", "api.example", 443),
            ("https://10.0.0.1:6443/", "10.0.0.1", 6443),
            ("https://[fd00::1]:6443", "fd00::1", 6443),
        ] {
            let pairs =
                [("OUTRIDER_BRIDGE_REVIEW", text), ("OUTRIDER_BRIDGE_REVIEW_AUDIENCE", "none")];
            let found = read(&pairs).unwrap().unwrap();
            assert_eq!((found.host.as_str(), found.port, found.audience), (host, port, None));
        }
        for text in ["api.example", "http://api.example", "https://a@b", "https://a/path", ""] {
            assert!(read(&[("OUTRIDER_BRIDGE_REVIEW", text)]).is_err(), "{text}");
        }
    }
}
