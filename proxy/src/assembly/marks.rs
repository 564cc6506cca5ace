//! The marks that the pod's rules know the proxy's connections by, beside its uid.

use outrider_relay::Source;

use crate::{rights::Rights, settings::Settings};

/// Marks of our sockets; there only if we may set marks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Marks {
    /// The pod's secret, on whatever is ours.
    pub own: Option<u32>,
    /// The mark of connections that borrow a client's address: answers to them are routed back to us.
    pub borrowed: u32,
}

impl Marks {
    /// The marks to use; none without the right to set any.
    #[must_use]
    pub(crate) fn new(settings: &Settings, rights: &Rights) -> Option<Self> {
        let secret = settings.mark.map(|mark| mark.reveal());
        rights
            .raw_sockets()
            .then_some(Self { own: secret, borrowed: settings.tproxy_mark })
    }

    /// The mark of a connection that we dial.
    #[must_use]
    pub(crate) fn of(self, source: Source) -> Option<u32> {
        match source {
            Source::Borrowed(_) => Some(self.borrowed),
            Source::Route | Source::Own(_) => self.own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_borrowed_address_has_the_mark_of_the_policy_route_and_everything_else_the_secret() {
        let marks = Marks { own: Some(7), borrowed: 0x6eb };
        let any = "10.0.0.9:0".parse().unwrap();
        assert_eq!(marks.of(Source::Borrowed(any)), Some(0x6eb));
        assert_eq!(marks.of(Source::Own(any)), Some(7));
        assert_eq!(marks.of(Source::Route), Some(7));
        assert_eq!(Marks { own: None, ..marks }.of(Source::Route), None);
    }
}
