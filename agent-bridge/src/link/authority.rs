//! Who signs the controller's certificate: a file says it, or the ConfigMap that the controller keeps. A ConfigMap is
//! read by the API and not as a volume: kubelets bring a volume up to date a minute or two later, and a replica that leads
//! is to be known at once.

use std::{fmt, fs, io, path::PathBuf, str::FromStr, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    cluster::client::{Source, client},
    controller::CA_KEY,
    mailbox::watch::is_name,
};

/// Longest file that is read, and longest ConfigMap's text.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// Time for the API server's answer.
const CALL_TIME: Duration = Duration::from_secs(5);

/// `OUTRIDER_BRIDGE_CLUSTER_CA`: the path of a file, or `configmap/<namespace>/<name>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// A file of certificates, PEM.
    File(PathBuf),
    /// A ConfigMap with such a text.
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = PathBuf::from(text);
        if path.is_absolute() {
            return Ok(Self::File(path));
        }
        let names = text
            .strip_prefix("configmap/")
            .and_then(|rest| rest.split_once('/'));
        match names {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self::ConfigMap { namespace: namespace.into(), name: name.into() })
            }
            _ => Err("must be an absolute path or configmap/<namespace>/<name>"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::ConfigMap { namespace, name } => write!(f, "configmap/{namespace}/{name}"),
        }
    }
}

impl Place {
    /// What is there now. `kube` is the way to the API server; without one there is no ConfigMap.
    pub(super) async fn read(&self, kube: Option<&Source>) -> io::Result<Vec<u8>> {
        let (namespace, name) = match self {
            Self::File(path) => {
                let path = path.clone();
                let read = spawn_blocking(move || file(&path));
                return read.await.map_err(io::Error::other)?;
            }
            Self::ConfigMap { namespace, name } => (namespace, name),
        };
        let source = kube.ok_or_else(|| self.odd("no way to the API server"))?;
        let client = client(source).await.map_err(|error| self.odd(error))?;
        let maps = Api::<ConfigMap>::namespaced(client, namespace);
        let found = timeout(CALL_TIME, maps.get(name)).await?;
        let found = found.map_err(|error| match error {
            kube::Error::Api(status) => self.odd(status.message),
            error => self.odd(error),
        })?;
        let mut data = found.data.unwrap_or_default();
        let text = data.remove(CA_KEY).ok_or_else(|| self.odd("is empty"))?;
        Ok(text.into_bytes())
    }

    pub(super) fn odd(&self, why: impl fmt::Display) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{self}: {why}"))
    }
}

/// A file that is not too long.
pub(super) fn file(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let odd = |why: &dyn fmt::Display| Place::File(path.to_owned()).odd(why);
    let found = fs::metadata(path).map_err(|error| odd(&error))?;
    if found.len() > MAX_FILE {
        return Err(odd(&"is too long"));
    }
    fs::read(path).map_err(|error| odd(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_or_a_configmap() {
        let same = |text: &str| {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), text);
            place
        };
        assert_eq!(same("/etc/ca.crt"), Place::File("/etc/ca.crt".into()));
        same("configmap/outrider/outrider-controller-ca");
        for wrong in ["", "ca.crt", "configmap/outrider", "configmap/../a", "configmap/a/b/c"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let place: Place = "configmap/a/b".parse().unwrap();
        let error = place.read(None).await.unwrap_err().to_string();
        assert!(error.starts_with("configmap/a/b: no way"), "{error}");
        let source = Source::File("/nowhere/config".into());
        let error = place.read(Some(&source)).await.unwrap_err().to_string();
        assert!(error.starts_with("configmap/a/b: /nowhere"), "{error}");
        let place: Place = "/nowhere/ca.crt".parse().unwrap();
        let error = place.read(None).await.unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/ca.crt: "), "{error}");
    }
}
