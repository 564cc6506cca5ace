//! Numbers and times as people read them.

/// `512 B`, `1.5 KiB`, `20 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Tenths of the unit, rounded to the nearest; carried into the next unit when that is 1024.
    let mut tenths = u128::from(count) * 10;
    let mut name = "B";
    for unit in UNITS {
        tenths = (tenths + 512) / 1024;
        name = unit;
        if tenths < 10240 {
            break;
        }
    }
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", tenths / 10)
    }
}

/// `8s`, `4m12s`, `3h20m`, `5d6h`.
pub(crate) fn seconds(count: u64) -> String {
    let (days, hours, minutes, rest) =
        (count / 86_400, count / 3600 % 24, count / 60 % 60, count % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// How long ago a Unix time was; `-` for never.
pub(crate) fn ago(now: u64, then: u64) -> String {
    if then == 0 { "-".into() } else { format!("{} ago", seconds(now.saturating_sub(then))) }
}

/// Makes control characters visible: what a pod wrote must not drive somebody's terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut plain, letter| {
            if letter.is_control() {
                plain.extend(letter.escape_default());
            } else {
                plain.push(letter);
            }
            plain
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_more_digits_and_a_unit() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 10, "10 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (20 << 30, "20 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn ages_show_the_two_largest_units() {
        for (count, text) in
            [(8, "8s"), (252, "4m12s"), (12_000, "3h20m"), (453_600, "5d6h"), (0, "0s")]
        {
            assert_eq!(seconds(count), text);
        }
        assert_eq!(ago(100, 0), "-");
        assert_eq!(ago(100, 92), "8s ago");
        assert_eq!(ago(100, 101), "0s ago");
    }

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(plain("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(plain("straße"), "straße");
    }
}
