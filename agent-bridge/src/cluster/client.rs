//! How the API server is reached: as a pod, by the token that is mounted into it, or by a kubeconfig.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// Time to connect. There is none for an answer, since a watch has none: calls that must end have a deadline of
/// their own.
const CONNECT: Duration = Duration::from_secs(5);
/// Largest token of our own.
const MAX_TOKEN: usize = 16 << 10;

/// Where the way to the API server is said: the value of a setting `off|in-cluster|<path>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// `in-cluster`: the service's address and the token and authority that are mounted into every pod.
    InCluster,
    /// The path of a kubeconfig, of which the current context is taken.
    File(PathBuf),
}

/// A setting that may be `off`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MaybeSource(pub Option<Source>);

impl FromStr for MaybeSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self(None)) } else { Ok(Self(Some(text.parse()?))) }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        match text {
            "in-cluster" => Ok(Self::InCluster),
            _ if path.is_absolute() => Ok(Self::File(path)),
            _ => Err("must be in-cluster or the absolute path of a kubeconfig".into()),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// This is no pod, or its token is not mounted.
    #[error("not in a cluster: {0}")]
    InCluster(#[from] InClusterError),
    /// The kubeconfig cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: KubeconfigError,
    },
    /// A file of ours cannot be used.
    #[error("{}: {why}", path.display())]
    Ours {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// What it says cannot be used.
    #[error("client of the API server: {0}")]
    Client(#[from] kube::Error),
}

/// A client as `source` says. Nothing is asked of the API server yet.
///
/// # Errors
/// Files that are missing or cannot be used.
pub async fn client(source: &Source) -> Result<kube::Client, ClientError> {
    let mut config = match source {
        Source::InCluster => kube::Config::incluster()?,
        Source::File(path) => from_file(path)
            .await
            .map_err(|source| ClientError::File { path: path.clone(), source })?,
    };
    config.connect_timeout = Some(CONNECT);
    Ok(kube::Client::try_from(config)?)
}

/// A client of the API server there, which `ca` (PEM) vouches for and which knows us by the token in a file, as it is
/// now: it is renewed every hour.
///
/// # Errors
/// Files that are missing or cannot be used.
pub(crate) async fn client_at(
    at: &str,
    ca: &Path,
    token: &Path,
) -> Result<kube::Client, ClientError> {
    let ours = |path: &Path, why: String| ClientError::Ours { path: path.to_owned(), why };
    let uri = at
        .parse()
        .map_err(|error: hyper::http::uri::InvalidUri| ours(Path::new(at), error.to_string()))?;
    let pem = tokio::fs::read(ca)
        .await
        .map_err(|error| ours(ca, error.to_string()))?;
    let roots: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .map(|one| one.to_vec())
        .collect();
    if roots.is_empty() {
        return Err(ours(ca, "holds no certificate".into()));
    }
    let text = tokio::fs::read(token)
        .await
        .map_err(|error| ours(token, error.to_string()))?;
    let text = text.trim_ascii();
    if text.is_empty() || text.len() > MAX_TOKEN || !text.iter().all(u8::is_ascii_graphic) {
        return Err(ours(token, "holds no token".into()));
    }
    let mut config = kube::Config::new(uri);
    config.connect_timeout = Some(CONNECT);
    config.default_retry = false;
    config.root_cert = Some(roots);
    config.auth_info.token = Some(String::from_utf8_lossy(text).into_owned().into());
    Ok(kube::Client::try_from(config)?)
}

async fn from_file(path: &PathBuf) -> Result<kube::Config, KubeconfigError> {
    let file = Kubeconfig::read_from(path)?;
    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_off_a_pods_or_a_file() {
        let read = |text: &str| text.parse::<MaybeSource>().map(|source| source.0);
        assert_eq!(read("off"), Ok(None));
        assert_eq!(read("in-cluster"), Ok(Some(Source::InCluster)));
        assert_eq!(read("/a/config"), Ok(Some(Source::File("/a/config".into()))));
        assert!(read("config").is_err() && read("").is_err());
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let source = Source::File("/nowhere/config".into());
        let error = client(&source).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/config: "), "{error}");
    }
}
