//! Authorities of several replicas in one place: each adds its own, keeps those of the others until they expire, and
//! whoever writes it makes the same of it.

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{authority::pem, validity::Validity};

/// Authorities of this replica, PEM.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Of what is served, or will be.
    pub(crate) current: Vec<String>,
    /// Of what was.
    pub(crate) gone: Vec<String>,
}

/// The bundle as it should be, and how many are in it: ours, and of others what has not expired, `most` in all.
pub(crate) fn merged(held: &[u8], own: &Own, now: u64, most: usize) -> (String, usize) {
    let mut others: Vec<(u64, String)> = CertificateDer::pem_slice_iter(held)
        .filter_map(Result::ok)
        .filter_map(|found| {
            let until = Validity::read(&found)?.until;
            Some((until, pem(&found)))
        })
        .filter(|(until, text)| {
            *until >= now && !own.current.contains(text) && !own.gone.contains(text)
        })
        .collect();
    // The same bundle whoever writes it, and the youngest first.
    let ours = own.current.iter().map(|text| {
        let read = CertificateDer::from_pem_slice(text.as_bytes());
        let until = read.ok().and_then(|found| Validity::read(&found));
        (until.map_or(0, |validity| validity.until), text.clone())
    });
    others.sort_by(|one, other| other.cmp(one));
    others.dedup();
    others.truncate(most.saturating_sub(own.current.len()));
    others.extend(ours);
    others.sort_by(|one, other| other.cmp(one));
    let count = others.len();
    (others.into_iter().map(|(_, text)| text).collect(), count)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const MOST: usize = 16;

    /// One that ends then, seconds since the epoch.
    fn authority(until: u64) -> String {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = SystemTime::UNIX_EPOCH.into();
        params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(until)).into();
        let key = KeyPair::generate().unwrap();
        pem(params.self_signed(&key).unwrap().der())
    }

    fn own(current: &[&String], gone: &[&String]) -> Own {
        let texts = |list: &[&String]| list.iter().map(|text| (*text).clone()).collect();
        Own { current: texts(current), gone: texts(gone) }
    }

    fn made(held: &str, own: &Own) -> (String, usize) {
        merged(held.as_bytes(), own, 1000, MOST)
    }

    #[test]
    fn others_stay_until_they_expire_and_ours_are_there() {
        let [mine, before, other, old] = [2000, 1500, 1800, 900].map(authority);
        let (text, count) = made(&format!("{before}{other}{old}"), &own(&[&mine], &[&before]));
        assert_eq!((text.as_str(), count), (&*format!("{mine}{other}"), 2));
        // Whoever looks at it next finds nothing to do.
        assert_eq!(made(&text, &own(&[&mine], &[&before])).0, text);
        assert_eq!(made(&text, &own(&[&other], &[])).0, text);
    }

    #[test]
    fn what_is_no_certificate_is_not_kept() {
        let mine = authority(2000);
        let block = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for held in ["", "nothing", block, "-----BEGIN CERTIFICATE-----\n"] {
            assert_eq!(made(held, &own(&[&mine], &[])), (mine.clone(), 1));
        }
    }

    #[test]
    fn the_bundle_is_bounded_and_the_youngest_stay() {
        let held: Vec<_> = (0..MOST as u64 + 5)
            .map(|at| authority(2000 + at))
            .collect();
        let mine = authority(1900);
        let (text, count) = made(&held.concat(), &own(&[&mine], &[]));
        assert_eq!(count, MOST);
        assert!(text.ends_with(&mine) && text.starts_with(held.last().unwrap()));
        assert!(!text.contains(&held[0]));
    }
}
