//! Figures and times as the pages write them.

use jiff::Timestamp;
use maud::{Markup, html};

use super::shown;
use crate::units;

/// A time for a person, in UTC; as it was written if it is no time.
pub(super) fn time(text: &str) -> Markup {
    match text.parse::<Timestamp>() {
        Ok(time) => html! {
            time datetime=(shown(text)) { (time.strftime("%Y-%m-%d %H:%M UTC")) }
        },
        Err(_) => html! { (shown(text)) },
    }
}

/// A number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things.
pub(super) fn plural(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { several })
}

/// A part of a whole in per cent, never rounded up, so that 100 is all.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", floor_tenth(part * 100.0))
}

fn floor_tenth(percent: f64) -> f64 {
    (percent * 10.0 + 1e-9).floor() / 10.0
}

/// Bytes with their sign; none have none.
pub(super) fn signed(bytes: i64) -> String {
    let size = units::size(bytes.unsigned_abs());
    match bytes {
        0 => size,
        1.. => format!("+{size}"),
        _ => format!("−{size}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
        assert_eq!(
            (plural(1, "file", "files"), plural(2, "file", "files")),
            ("1 file".to_owned(), "2 files".to_owned())
        );
        for (percent, expected) in [(100.0, 100.0), (99.99, 99.9), (98.2, 98.2), (0.0, 0.0)] {
            assert!((floor_tenth(percent) - expected).abs() < 1e-9, "{percent}");
        }
    }

    #[test]
    fn times_that_are_none_are_shown_as_they_are() {
        for (text, expected) in [
            ("2024-01-02T03:04:05.678Z", ">2024-01-02 03:04 UTC<"),
            ("<yesterday>", "&lt;yesterday&gt;"),
        ] {
            let found = time(text).into_string();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn differences_have_a_sign() {
        for (bytes, expected) in [(0, "0B"), (1500, "+1.5kB"), (-7, "−7B"), (i64::MIN, "−9.22EB")]
        {
            assert_eq!(signed(bytes), expected, "{bytes}");
        }
    }
}
