//! Settings that hold for everything.

use serde::Serialize;

use super::{fields::Fields, member};
use crate::{List, WireError};

/// Asks for a proof of life.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct KeepAlive {
    /// Comes back in the answer.
    pub seq_num: u32,
}

impl KeepAlive {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { seq_num: fields.u32("seq_num") })
    }
}

/// Which categories to log besides "init" and "error".
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SetDebug {
    /// Their names, unknown ones ignored; nil changes nothing.
    pub categories: List<String>,
}

impl SetDebug {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { categories: fields.texts("categories")? })
    }
}

/// Declares a switch of its own member name.
macro_rules! switch {
    ($(#[$doc:meta])* $name:ident { $field:ident }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
        pub struct $name {
            /// Anything but true means off.
            pub $field: Option<bool>,
        }

        impl $name {
            /// The request that switches it.
            #[must_use]
            pub fn new(on: bool) -> Self {
                Self { $field: Some(on) }
            }

            /// Whether it is to be on.
            #[must_use]
            pub fn is_on(self) -> bool {
                self.$field.unwrap_or_default()
            }

            pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
                Ok(Self { $field: fields.switch(member!($field)) })
            }
        }
    };
}

switch! {
    /// Whether X-Forwarded-For makes a second, virtual check and connection row.
    SysConf { xff_enabled }
}
switch! {
    /// Whether network policy is off altogether.
    DisableNetPolicy { disable_net_policy }
}
switch! {
    /// Whether unmanaged peers are subject to policy.
    DetectUnmanaged { detect_unmanaged_wl }
}
/// Whether ICMP is subject to policy, and what is neither TCP nor UDP nor ICMP. Read when a policy is loaded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct EnableIcmpPolicy {
    /// Anything but true means off.
    pub enable_icmp_policy: Option<bool>,
    /// Whether all that IP carries is, ICMP too: an extension, absent where nothing else than ICMP is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_ip_policy: Option<bool>,
}

impl EnableIcmpPolicy {
    /// The request that switches both.
    #[must_use]
    pub fn new(icmp: bool, ip: bool) -> Self {
        Self { enable_icmp_policy: Some(icmp), enable_ip_policy: ip.then_some(true) }
    }

    /// Whether ICMP is to be subject to policy.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.enable_icmp_policy.unwrap_or_default()
    }

    /// Whether all that IP carries is to be.
    #[must_use]
    pub fn is_on_for_all(self) -> bool {
        self.enable_ip_policy.unwrap_or_default()
    }

    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            enable_icmp_policy: fields.switch("enable_icmp_policy"),
            enable_ip_policy: fields.switch("enable_ip_policy"),
        })
    }
}

switch! {
    /// Whether a denying workload checks east-west traffic in both directions.
    StrictGroupMode { strict_group_mode }
}
