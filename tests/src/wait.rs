//! Waiting for a condition, never for a time.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How long to wait between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `probe` finds what it looks for, or fails once `deadline` has passed, saying `what`
/// was waited for and what the last look found instead.
pub fn until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(found) => return Ok(found),
            Err(error) if start.elapsed() >= deadline => {
                bail!("waited {deadline:?} for {what}: {error:#}")
            }
            Err(_not_yet) => std::thread::sleep(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_was_found() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { bail!("look {looks}") }
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn says_what_it_waited_for_and_what_it_saw() {
        let found: Result<()> = until("rain", Duration::ZERO, || bail!("sun"));
        assert_eq!(found.unwrap_err().to_string(), "waited 0ns for rain: sun");
    }
}
