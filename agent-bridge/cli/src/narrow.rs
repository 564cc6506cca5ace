//! What a list is narrowed to.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use outrider_api::MAX_LIMIT;

use crate::client::with_query;

/// Filters of a list.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Narrow {
    /// Only what this workload took part in
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: Option<String>,
    /// Only this application
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// Only what was seen since: 30s, 10m, 2h, 1d ago, or a Unix time
    #[arg(long, value_name = "AGE|TIME", value_parser = since)]
    pub(crate) since: Option<u64>,
    /// At most so many, the first ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
    pub(crate) limit: Option<u32>,
}

impl Narrow {
    /// The path of a list with these filters; how many are wanted is for who reads it.
    pub(crate) fn path(&self, path: &str) -> String {
        let since = self.since.map(|since| since.to_string());
        let filters = [
            ("workload", self.workload.as_deref()),
            ("app", self.app.as_deref()),
            ("since", since.as_deref()),
        ];
        with_query(path, &filters)
    }
}

/// Filters of the list of what is open now, which has no past.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Open {
    /// Only this workload's
    #[arg(value_name = "WORKLOAD", conflicts_with = "of")]
    workload: Option<String>,
    /// The same
    #[arg(long = "workload", value_name = "NAME")]
    of: Option<String>,
    /// Only this application
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// At most so many, the first ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
    limit: Option<u32>,
}

impl From<&Open> for Narrow {
    fn from(open: &Open) -> Self {
        let workload = open.workload.as_ref().or(open.of.as_ref());
        Self { workload: workload.cloned(), app: open.app.clone(), since: None, limit: open.limit }
    }
}

/// Filters of a list, and whether to go on with what comes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Followed {
    /// Print what happens from now on, until interrupted; a lost bridge is looked for again
    #[arg(long, short, conflicts_with_all = ["since", "limit"])]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) narrow: Narrow,
}

/// A Unix time, given as such or as an age.
fn since(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (&text[..at], Some(unit)),
        _ => (text, None),
    };
    let wrong = || "write 30s, 10m, 2h, 1d, or a Unix time in seconds".to_owned();
    let number: u64 = number.parse().map_err(|_not_one| wrong())?;
    let seconds = match unit {
        None => return Ok(number),
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some(_) => return Err(wrong()),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    Ok(now.saturating_sub(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_times_are_told_apart() {
        assert_eq!(since("1700000000"), Ok(1_700_000_000));
        let day = since("1d").unwrap();
        assert!((86_399..=86_401).contains(&(since("0s").unwrap() - day)));
        assert!((599..=601).contains(&(since("0s").unwrap() - since("10m").unwrap())));
        for wrong in ["", "m", "10y", "-1", "1.5h", "é"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn filters_become_parameters() {
        let narrow = Narrow { app: Some("a b".into()), since: Some(5), ..Narrow::default() };
        assert_eq!(narrow.path("/v1/rules"), "/v1/rules?app=a%20b&since=5");
        assert_eq!(Narrow::default().path("/v1/rules"), "/v1/rules");
    }
}
