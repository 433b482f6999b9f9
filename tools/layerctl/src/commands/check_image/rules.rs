//! The rules that an image is held to, and dive's file of them.

use anyhow::{Context as _, bail};

/// What is asked of an image; what is none is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rules {
    /// The least part of what is stored that is seen.
    pub(super) min_efficiency: Option<f64>,
    /// The most wasted bytes.
    pub(super) max_wasted: Option<u64>,
    /// The most wasted bytes, as a part of what the layers above the lowest store.
    pub(super) max_wasted_part: Option<f64>,
}

impl Rules {
    /// What dive asks unless told otherwise.
    pub(super) fn of_dive() -> Self {
        Self { min_efficiency: Some(0.9), max_wasted: None, max_wasted_part: Some(0.1) }
    }

    /// These, and those of `other` where these ask nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            min_efficiency: self.min_efficiency.or(other.min_efficiency),
            max_wasted: self.max_wasted.or(other.max_wasted),
            max_wasted_part: self.max_wasted_part.or(other.max_wasted_part),
        }
    }

    /// Reads dive's `.dive-ci`, which is YAML of one kind: below `rules:`, a line for each rule with
    /// a number, a size or `disabled`. What it leaves out is dive's default.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut rules = Self::of_dive();
        for (at, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with('#') || line == "rules:" || line == "---" {
                continue;
            }
            let at = at + 1;
            let (key, value) =
                line.split_once(':').with_context(|| format!("line {at}: no rule"))?;
            let value = value.trim().trim_matches(['"', '\'']);
            let bad = |reason: String| anyhow::anyhow!("line {at}: {key}: {reason}");
            let part = || match value {
                "disabled" => Ok(None),
                _ => parse_part(value).map(Some).map_err(bad),
            };
            match key.trim().replace('-', "").to_ascii_lowercase().as_str() {
                "lowestefficiency" => rules.min_efficiency = part()?,
                "highestuserwastedpercent" => rules.max_wasted_part = part()?,
                "highestwastedbytes" => {
                    rules.max_wasted = match value {
                        "disabled" => None,
                        _ => Some(parse_size(value).map_err(bad)?),
                    }
                }
                _ => bail!("line {at}: there is no rule {key:?}"),
            }
        }
        Ok(rules)
    }
}

/// A part of a whole: `0.95` or `95%`.
pub(super) fn parse_part(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let value = number.trim().parse::<f64>().map_err(|_| format!("{text:?} is no number"))? / whole;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("{text:?} is not 0 to 1")) }
}

/// A size in bytes: `20MB` in powers of 1000, `20MiB` in powers of 1024.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole number in range"
)]
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size");
    let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits.trim().parse().map_err(|_| bad())?;
    let unit = text.trim()[digits.len()..].to_ascii_lowercase();
    let power = |letters: &str| match letters {
        "" => Some(0),
        "k" => Some(1),
        "m" => Some(2),
        "g" => Some(3),
        "t" => Some(4),
        _ => None,
    };
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let factor = match unit.strip_suffix('i') {
        Some(letters) => 1024_f64.powi(power(letters).ok_or_else(bad)?),
        None => 1000_f64.powi(power(unit).ok_or_else(bad)?),
    };
    let bytes = value * factor;
    if (0.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_dive_are_read() {
        let file = "rules:\n  # a remark\n  lowestEfficiency: 0.95\n  highestWastedBytes: 20MB # or so\n  \
                    highestUserWastedPercent: disabled\n";
        let expected = Rules {
            min_efficiency: Some(0.95),
            max_wasted: Some(20_000_000),
            max_wasted_part: None,
        };
        assert_eq!(Rules::parse(file).expect("good rules"), expected);
        assert_eq!(Rules::parse("rules:\n").expect("no rules"), Rules::of_dive());
        let quoted = Rules::parse("lowest-efficiency: \"0.5\"").expect("quoted");
        assert_eq!(quoted.min_efficiency, Some(0.5));
        for bad in ["nonsense", "unknown: 3", "lowestEfficiency: 3", "highestWastedBytes: lots"] {
            assert!(Rules::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn sizes_and_parts_are_read() {
        for (text, expected) in [
            ("20", Some(20)),
            ("20MB", Some(20_000_000)),
            ("1.5 kB", Some(1500)),
            ("2MiB", Some(2 << 20)),
            ("1G", Some(1_000_000_000)),
            ("MB", None),
            ("-1", None),
            ("3XB", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "{text:?}");
        }
        for (text, expected) in
            [("0.5", Some(0.5)), ("50%", Some(0.5)), ("1", Some(1.0)), ("2", None), ("x", None)]
        {
            assert_eq!(parse_part(text).ok(), expected, "{text:?}");
        }
    }
}
