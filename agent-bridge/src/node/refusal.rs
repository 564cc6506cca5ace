//! Why the node does not do what it was asked.

use thiserror::Error;

use super::roster::Unnamed;

/// Why the node does not do what it was asked.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The question makes no sense.
    #[error("{0}")]
    Bad(String),
    /// A bare name means several workloads.
    #[error("{0}")]
    Ambiguous(String),
    /// There is no room for it now.
    #[error("{0}")]
    Busy(String),
    /// Whoever would have to do it cannot.
    #[error("{0}")]
    Unable(String),
    /// The store does not take it.
    #[error("{0}")]
    NotStored(String),
}

impl From<(&str, Unnamed)> for Refusal {
    fn from((name, why): (&str, Unnamed)) -> Self {
        match why {
            Unnamed::Unknown => Self::NotFound(format!(
                "no workload {name:?} on this node; `outrider workloads` lists them"
            )),
            Unnamed::Ambiguous(names) => Self::Ambiguous(format!(
                "{name:?} may be {}: give the namespace too",
                names.join(" or ")
            )),
        }
    }
}
