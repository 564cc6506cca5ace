//! Policy as code: objects that people write, as text and as values, compared, and made of what was learned. No I/O.
//!
//! Objects are JSON values here: whether they make sense only the bridge or the API server says.

mod date;
mod diff;
mod documents;
mod edges;
mod export;
mod labels;
mod network_policy;
mod neuvector;
mod read_neuvector;
mod yaml;

pub use diff::{Change, Difference, diff};
pub use documents::{MAX_ALIASED, MAX_BYTES, MAX_DEPTH, MAX_EVENTS, MAX_OBJECTS, ReadError, read};
pub use export::{Exported, Form, export};
pub use labels::lasting;
pub use read_neuvector::{NEUVECTOR_KINDS, Translated, from_neuvector, names_services};
pub use yaml::{COMMENT, plain, write};

/// `apiVersion` of our objects.
pub const API_VERSION: &str = "outrider.dev/v1alpha1";

/// The label of a namespace with its name.
pub const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
