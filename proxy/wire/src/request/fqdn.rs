//! `ctrl_cfg_set_fqdn`, `ctrl_cfg_del_fqdn`.

use serde::Serialize;

use super::{TextIp, fields::Fields};
use crate::{
    List, WireError,
    error::within,
    limits::{MAX_NAME, NAMES_PER_REQUEST},
};

/// Adds addresses to a name. Without addresses nothing happens at all.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SetFqdn {
    /// The name.
    #[serde(rename = "fqdn_name")]
    pub name: String,
    /// Its addresses.
    #[serde(rename = "fqdn_ips")]
    pub addresses: List<TextIp>,
    /// Whether the name must also be the virtual host.
    pub vhost: bool,
}

impl SetFqdn {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            name: fields.short_text("fqdn_name", MAX_NAME)?,
            addresses: fields.texts("fqdn_ips")?.parsed(),
            vhost: fields.is_true("vhost"),
        })
    }
}

impl List<String> {
    fn parsed(&self) -> List<TextIp> {
        if self.is_nil() {
            List::nil()
        } else {
            self.iter()
                .map(|text| TextIp::parse(text).unwrap_or_default())
                .collect()
        }
    }
}

/// Names that no policy uses any more.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct DelFqdn {
    /// The names, unknown ones ignored.
    pub names: List<String>,
}

impl DelFqdn {
    /// Splits names of any number, as the agent does: by number alone.
    pub fn split(names: &[String]) -> impl Iterator<Item = Self> {
        names
            .chunks(NAMES_PER_REQUEST)
            .map(|names| Self { names: names.to_vec().into() })
    }

    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        let names = fields.texts("names")?;
        let longest = names.iter().map(String::len).max().unwrap_or_default();
        within("name bytes", longest, MAX_NAME)?;
        Ok(Self { names })
    }
}
