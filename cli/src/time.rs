//! Times and sizes as people read them.

use std::time::Duration;

use indicatif::HumanBytes;
use larder::Timestamp;

/// The first moment of the year 10000, from which on dates have another form.
const YEAR_10000_MS: i64 = 253_402_300_800_000;

/// Returns a time in UTC to the second.
pub(crate) fn shown(time: Timestamp) -> String {
    if (0..YEAR_10000_MS).contains(&time.0) {
        humantime::format_rfc3339_seconds(time.to_system_time()).to_string()
    } else {
        format!("{} ms", time.0)
    }
}

pub(crate) fn shown_or_none(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, shown)
}

pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// Reads a duration such as `90s`, `1h 30m` or `7days`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error} (such as 90s, 30m, 12h, 7days)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_form() {
        assert_eq!(shown(Timestamp(0)), "1970-01-01T00:00:00Z");
        for time in [i64::MIN, -1, YEAR_10000_MS, i64::MAX] {
            assert_eq!(shown(Timestamp(time)), format!("{time} ms"));
        }
        assert_eq!(shown(Timestamp(YEAR_10000_MS - 1)), "9999-12-31T23:59:59Z");
    }
}
