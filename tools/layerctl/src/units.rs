//! Sizes, ages and limits as people write and read them.

use anyhow::Context as _;
use jiff::Timestamp;

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// Bytes in decimal units with three significant digits, as docker shows them: `1.24GB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 would be rounded to 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// A number of bytes with an optional binary unit, as docker takes limits: `512m`, `1.5g`, `1024`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole number in range"
)]
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, power) = match number.as_bytes().last() {
        Some(b'k') => (&number[..number.len() - 1], 10),
        Some(b'm') => (&number[..number.len() - 1], 20),
        Some(b'g') => (&number[..number.len() - 1], 30),
        Some(b't') => (&number[..number.len() - 1], 40),
        _ => (number, 0),
    };
    let value: f64 = number.trim().parse().map_err(|_| format!("{text:?} is no size"))?;
    let bytes = value * (1_u64 << power) as f64;
    if !(0.0..9e18).contains(&bytes) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok(bytes as u64)
}

/// A number of processors in thousandths: `1.5` is 1500.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a number in range"
)]
pub(crate) fn parse_cpus(text: &str) -> Result<u64, String> {
    let value: f64 = text.trim().parse().map_err(|_| format!("{text:?} is no number"))?;
    let thousandths = (value * 1000.0).round();
    if !(1.0..1e9).contains(&thousandths) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok(thousandths as u64)
}

/// How long ago an RFC 3339 time was: `3 days ago`; `N/A` for a time that is not known.
pub(crate) fn ago(time: Option<&str>) -> String {
    match time.and_then(|time| time.parse::<Timestamp>().ok()) {
        Some(time) => format!("{} ago", span(seconds_since(time))),
        None => "N/A".to_owned(),
    }
}

/// How long something has lasted: `About an hour`.
pub(crate) fn lasted(since: Option<&str>) -> String {
    let since = since.and_then(|time| time.parse::<Timestamp>().ok());
    since.map_or_else(|| "N/A".to_owned(), |time| span(seconds_since(time)))
}

/// A time for comparison: a time that is not known is before all others.
pub(crate) fn moment(time: Option<&str>) -> Timestamp {
    time.and_then(|time| time.parse().ok()).unwrap_or(Timestamp::MIN)
}

/// An RFC 3339 time for a person, in UTC.
pub(crate) fn at(time: Option<&str>) -> anyhow::Result<String> {
    let Some(time) = time else { return Ok("N/A".to_owned()) };
    let time: Timestamp = time.parse().with_context(|| format!("the time {time:?}"))?;
    Ok(time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}

fn seconds_since(time: Timestamp) -> u64 {
    u64::try_from(Timestamp::now().as_second() - time.as_second()).unwrap_or(0)
}

/// The words that docker uses, each span rounded down but hours, which are rounded.
fn span(seconds: u64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    let days = hours / 24;
    match seconds {
        0 => return "Less than a second".to_owned(),
        1 => return "1 second".to_owned(),
        2..60 => return format!("{seconds} seconds"),
        60..120 => return "About a minute".to_owned(),
        120..3600 => return format!("{minutes} minutes"),
        _ => {}
    }
    match hours {
        0 | 1 => "About an hour".to_owned(),
        2..48 => format!("{hours} hours"),
        _ => match days {
            0..14 => format!("{days} days"),
            14..60 => format!("{} weeks", days / 7),
            60..730 => format!("{} months", days / 30),
            _ => format!("{} years", days / 365),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (117_000_000, "117MB"),
            (7_800_000, "7.8MB"),
            (77_840_000, "77.8MB"),
            (999_600, "1MB"),
            (1_240_000_000, "1.24GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes} bytes");
        }
    }

    #[test]
    fn limits_are_parsed() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("512M", Some(512 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2GiB", Some(2 << 30)),
            ("64mb", Some(64 << 20)),
            ("-1", None),
            ("", None),
            ("g", None),
            ("1x", None),
            ("nan", None),
            ("99999999t", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), expected, "{text:?}");
        }
        for (text, expected) in
            [("1.5", Some(1500)), ("2", Some(2000)), ("0", None), ("x", None), ("-1", None)]
        {
            assert_eq!(parse_cpus(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn spans_are_told_as_docker_tells_them() {
        const DAY: u64 = 86400;
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (600, "10 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (3 * DAY, "3 days"),
            (14 * DAY, "2 weeks"),
            (90 * DAY, "3 months"),
            (800 * DAY, "2 years"),
        ] {
            assert_eq!(span(seconds), expected, "{seconds} s");
        }
    }

    #[test]
    fn times_are_read_in_any_zone() {
        let at = |time| at(Some(time)).expect("a good time");
        assert_eq!(at("2026-01-02T03:04:05.678+01:00"), "2026-01-02 02:04:05 +0000 UTC");
        assert_eq!(ago(None), "N/A");
        assert_eq!(ago(Some("yesterday")), "N/A");
        assert!(ago(Some("2001-01-01T00:00:00Z")).ends_with("years ago"));
        assert!(moment(None) < moment(Some("1970-01-01T00:00:00Z")));
    }
}
