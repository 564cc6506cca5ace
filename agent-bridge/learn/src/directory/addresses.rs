//! Whose an address is.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// Of another node, and the uid: those of this node come first.
type Owner = (bool, Arc<str>);

/// Who has which address; of several that have it, the first in order counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(HashMap<IpAddr, Vec<Owner>>);

impl Addresses {
    pub(super) fn add(&mut self, address: IpAddr, owner: Owner) {
        let owners = self.0.entry(address).or_default();
        if let Err(at) = owners.binary_search(&owner) {
            owners.insert(at, owner);
        }
    }

    pub(super) fn remove(&mut self, address: IpAddr, owner: &Owner) {
        let Some(owners) = self.0.get_mut(&address) else { return };
        owners.retain(|known| known != owner);
        if owners.is_empty() {
            self.0.remove(&address);
        }
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.0.get(&address)?.first().map(|(_, uid)| uid)
    }
}
