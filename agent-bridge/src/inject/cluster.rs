//! What the cluster and a namespace say about injection.

use std::{collections::BTreeMap, str::FromStr};

use super::neighbours::Exemption;

/// The cluster's settings, which no namespace and no pod can change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// Namespaces that are left alone whatever they say.
    pub ignored: Vec<String>,
    /// What holds for a namespace without a label of ours.
    pub unlabelled: Injection,
    /// What the containers run.
    pub images: Images,
    /// Version of the API server, if known.
    pub kubernetes: Option<Version>,
    /// Version of the oldest kubelet, if known.
    pub oldest_node: Option<Version>,
    /// Values of keys that hold whatever namespace and pod say.
    pub policy: BTreeMap<String, String>,
    /// Values of keys where nobody says anything.
    pub defaults: BTreeMap<String, String>,
    /// What pods of every namespace may do though it gets around the proxy.
    pub exempt: Vec<Exemption>,
    /// Root of the mailboxes on a node.
    pub pods_dir: String,
    /// The driver that makes a mailbox for each pod where `mailbox` is `csi`.
    pub csi_driver: String,
}

/// What the containers run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Images {
    /// Image of `outrider-init`.
    pub init: String,
    /// Image of `outrider-proxy`.
    pub proxy: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull: String,
}

/// A namespace, as far as injection looks at it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Namespace {
    /// The label that says what holds for its pods.
    pub const LABEL: &'static str = "outrider.dev/injection";
}

/// What holds for the pods of a namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Injection {
    /// Every pod, whatever it says.
    Enforced,
    /// Every pod that does not ask to be left out.
    Enabled,
    /// Only pods that ask for it.
    OptIn,
    /// No pod.
    Disabled,
}

impl Injection {
    /// What one may say.
    pub const FORM: &'static str = "enforced, enabled, opt-in or disabled";
}

impl FromStr for Injection {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "enforced" => Ok(Self::Enforced),
            "enabled" => Ok(Self::Enabled),
            "opt-in" => Ok(Self::OptIn),
            "disabled" => Ok(Self::Disabled),
            _ => Err(Self::FORM),
        }
    }
}

/// Major and minor version of Kubernetes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(pub u16, pub u16);

impl Version {
    /// The first one whose sidecars are on by default.
    pub const NATIVE: Self = Self(1, 29);
    /// Minor versions that a kubelet may be behind its API server.
    const SKEW: u16 = 3;

    /// Whether every node that may belong to an API server of this version has native sidecars.
    #[must_use]
    pub fn vouches_for_nodes(self) -> bool {
        self.0 > Self::NATIVE.0 || self >= Self(Self::NATIVE.0, Self::NATIVE.1 + Self::SKEW)
    }
}

impl FromStr for Version {
    type Err = &'static str;

    /// `1.33`, `v1.33.4`, `v1.33.4-gke.100`, and `1.33+` as some clouds have it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a version like 1.33 or v1.33.4";
        let text = text.strip_prefix('v').unwrap_or(text);
        let (major, rest) = text.split_once('.').ok_or(FORM)?;
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(rest.len());
        let number = |digits: &str| digits.parse().map_err(|_not_a_number| FORM);
        Ok(Self(number(major)?, number(&rest[..end])?))
    }
}

/// Most entries of a list in a setting.
pub const MAX_ENTRIES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_clouds_write_them() {
        for text in ["1.33", "v1.33.4", "1.33+", "v1.33.4-gke.100"] {
            assert_eq!(text.parse(), Ok(Version(1, 33)), "{text}");
        }
        for text in ["", "1", "v", "1.", "one.two", "1.99999999"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn nodes_may_be_three_versions_behind() {
        assert!(!Version(1, 31).vouches_for_nodes());
        assert!(Version(1, 32).vouches_for_nodes());
        assert!(Version(2, 0).vouches_for_nodes());
    }
}
