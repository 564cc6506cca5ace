//! Host names in rules, and the addresses they stand for.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use crate::PolicyError;

/// Names that one proxy may know.
pub const MAX_NAMES: usize = 2_048;

/// Bytes of a name.
pub const MAX_NAME_BYTES: usize = 255;

/// Addresses that one name may stand for.
pub const MAX_NAME_ADDRESSES: usize = 1_024;

/// A host name, or a wildcard: `*.` and the labels that must follow one or more others. Lower case,
/// without the final dot.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Box<str>);

impl Name {
    /// Reads a name or a wildcard, whatever its case.
    pub fn new(text: &str) -> Result<Self, PolicyError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let labels = name.strip_prefix("*.").unwrap_or(name);
        let is_name =
            !labels.is_empty() && name.len() <= MAX_NAME_BYTES && labels.split('.').all(is_label);
        if is_name {
            Ok(Self(name.to_ascii_lowercase().into()))
        } else {
            Err(PolicyError::Name(text.chars().take(MAX_NAME_BYTES).collect()))
        }
    }

    /// The text, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the first label is `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// Whether a host name is this name or falls under this wildcard. `*.example.com` takes in
    /// `a.b.example.com`, not `example.com`; `*.com` takes in nothing.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let Some(suffix) = self.0.strip_prefix('*') else {
            return host.eq_ignore_ascii_case(&self.0);
        };
        let labels_follow = suffix.get(1..).is_some_and(|labels| labels.contains('.'));
        labels_follow
            && host.len() > suffix.len()
            && host
                .get(host.len() - suffix.len()..)
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    }

    /// The wildcards a name falls under, narrowest first, without any that match nothing.
    pub fn wildcards(&self) -> impl Iterator<Item = String> {
        self.0
            .match_indices('.')
            .map(|(dot, _)| &self.0[dot..])
            .filter(|suffix| suffix.matches('.').count() > 1)
            .map(|suffix| format!("*{suffix}"))
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::new(text)
    }
}

/// What names stand for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NameTable(HashMap<Name, Known>);

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Known {
    addresses: BTreeSet<IpAddr>,
    vhost: bool,
}

impl NameTable {
    /// Adds an address to a name; says whether it is new.
    pub fn add(&mut self, name: &Name, address: IpAddr) -> Result<bool, PolicyError> {
        let known = self.entry(name)?;
        let address = address.to_canonical();
        if known.addresses.len() >= MAX_NAME_ADDRESSES && !known.addresses.contains(&address) {
            return Err(PolicyError::TooManyAddresses);
        }
        Ok(known.addresses.insert(address))
    }

    /// Says whether flows to that name must also carry it as their HTTP host or TLS server name.
    pub fn set_vhost(&mut self, name: &Name, vhost: bool) -> Result<(), PolicyError> {
        self.entry(name)?.vhost = vhost;
        Ok(())
    }

    /// Forgets one address of a name; says whether it was there.
    pub fn remove_address(&mut self, name: &Name, address: IpAddr) -> bool {
        self.0
            .get_mut(name)
            .is_some_and(|known| known.addresses.remove(&address.to_canonical()))
    }

    /// Forgets a name; says whether it was there.
    pub fn remove(&mut self, name: &Name) -> bool {
        self.0.remove(name).is_some()
    }

    /// Every name with its addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, impl Iterator<Item = IpAddr>)> {
        self.0
            .iter()
            .map(|(name, known)| (name, known.addresses.iter().copied()))
    }

    /// Whether flows to that name must also carry it.
    #[must_use]
    pub fn vhost(&self, name: &Name) -> bool {
        self.0.get(name).is_some_and(|known| known.vhost)
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn entry(&mut self, name: &Name) -> Result<&mut Known, PolicyError> {
        if self.0.len() >= MAX_NAMES && !self.0.contains_key(name) {
            return Err(PolicyError::TooManyNames);
        }
        Ok(self.0.entry(name.clone()).or_default())
    }
}

/// The names of one policy by number, and which of them an address has.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    names: Vec<Name>,
    vhost: Vec<bool>,
    by_address: HashMap<IpAddr, Vec<u16>>,
}

impl NameIndex {
    /// `names` and `given` (addresses that rules themselves give) come from a checked policy.
    pub(crate) fn new(names: &[Name], given: &[(u16, IpAddr)], table: &NameTable) -> Self {
        let mut index = Self {
            names: names.to_vec(),
            vhost: names.iter().map(|name| table.vhost(name)).collect(),
            by_address: HashMap::new(),
        };
        let codes: HashMap<&str, u16> = names.iter().map(Name::as_str).zip(0..).collect();
        for (name, addresses) in table.iter() {
            let under = name
                .wildcards()
                .filter_map(|wildcard| codes.get(wildcard.as_str()));
            let codes: Vec<u16> = codes
                .get(name.as_str())
                .into_iter()
                .chain(under)
                .copied()
                .collect();
            for address in addresses {
                index.add(address, &codes);
            }
        }
        for (code, address) in given {
            index.add(*address, &[*code]);
        }
        index
    }

    fn add(&mut self, address: IpAddr, codes: &[u16]) {
        if codes.is_empty() {
            return;
        }
        let known = self.by_address.entry(address).or_default();
        known.extend_from_slice(codes);
        known.sort_unstable();
        known.dedup();
    }

    /// The numbers of the names that an address has.
    pub(crate) fn of(&self, address: IpAddr) -> &[u16] {
        if self.by_address.is_empty() {
            return &[];
        }
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// A host name under each name that an address has.
    pub(crate) fn examples(&self, address: IpAddr) -> impl Iterator<Item = String> {
        self.of(address)
            .iter()
            .filter_map(|code| self.names.get(usize::from(*code)))
            .map(|name| name.as_str().replace('*', "any"))
    }

    pub(crate) fn needs_host(&self, code: u16) -> bool {
        self.vhost
            .get(usize::from(code))
            .is_some_and(|vhost| *vhost)
    }

    pub(crate) fn matches(&self, code: u16, host: &str) -> bool {
        self.names
            .get(usize::from(code))
            .is_some_and(|name| name.matches(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn reads_names_whatever_their_case() {
        assert_eq!(name("API.Example.COM.").as_str(), "api.example.com");
        assert!(name("*.example.com").is_wildcard());
    }

    #[test]
    fn refuses_what_is_no_name() {
        let long = format!("{}.com", "a".repeat(MAX_NAME_BYTES - 3));
        for bad in ["", ".", "*", "*.", "a..b", "a b", "a.*.b", "*a.b", "b\u{fc}cher.de", &long] {
            assert!(matches!(Name::new(bad), Err(PolicyError::Name(_))), "{bad}");
        }
        assert!(Name::new(&format!("{}.com", "a".repeat(MAX_NAME_BYTES - 4))).is_ok());
    }

    #[test]
    fn a_wildcard_takes_in_what_has_labels_before_it() {
        let wildcard = name("*.example.com");
        assert!(wildcard.matches("a.example.com") && wildcard.matches("a.b.EXAMPLE.com."));
        for other in ["example.com", ".example.com.evil", "anexample.com", "", "\u{e9}.com"] {
            assert!(!wildcard.matches(other), "{other}");
        }
        assert!(!name("*.com").matches("example.com"));
        assert!(name("www.example.com").wildcards().eq(["*.example.com"]));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = NameTable::default();
        let known = name("known.example");
        for at in 0..MAX_NAME_ADDRESSES {
            let address = IpAddr::from(u128::try_from(at + 1_000_000).unwrap().to_be_bytes());
            assert_eq!(table.add(&known, address), Ok(true));
        }
        let one_more = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(table.add(&known, one_more), Err(PolicyError::TooManyAddresses));
        for at in 1..MAX_NAMES {
            table
                .set_vhost(&name(&format!("n{at}.example")), true)
                .unwrap();
        }
        assert_eq!(table.add(&name("late.example"), one_more), Err(PolicyError::TooManyNames));
        assert!(table.remove(&name("n7.example")) && !table.remove(&name("n7.example")));
        assert_eq!(table.add(&name("late.example"), one_more), Ok(true));
        assert!(table.remove_address(&name("late.example"), one_more));
        assert_eq!(table.len(), MAX_NAMES);
    }
}
