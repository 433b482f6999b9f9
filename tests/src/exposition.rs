//! A strict reader of Prometheus's text format (exposition formats, version 0.0.4): what `promtool check
//! metrics` would refuse is an error here.

use std::collections::{BTreeMap, BTreeSet};

/// A sample's labels.
pub type Labels = BTreeMap<String, String>;

/// The samples of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: BTreeMap<(String, Labels), f64>,
}

/// What is known of a family from its comments.
#[derive(Debug, Default)]
struct Family {
    help: bool,
    kind: Option<String>,
}

impl Samples {
    /// Reads a scrape.
    ///
    /// # Errors
    /// The first thing that is not as it must be, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        let mut samples = Self::default();
        for line in text.lines() {
            let failed = |reason: &str| format!("{reason}: {line}");
            if let Some(comment) = line.strip_prefix("# ") {
                let (word, rest) =
                    comment.split_once(' ').ok_or_else(|| failed("half a comment"))?;
                let (name, rest) = rest.split_once(' ').ok_or_else(|| failed("half a comment"))?;
                if name != current && families.contains_key(name) {
                    return Err(failed("a family in two places"));
                }
                name.clone_into(&mut current);
                let family = families.entry(current.clone()).or_default();
                match word {
                    "HELP" if family.help || rest.is_empty() => return Err(failed("HELP")),
                    "HELP" => family.help = true,
                    "TYPE" if family.kind.is_some() => return Err(failed("a second TYPE")),
                    "TYPE" if !["counter", "gauge", "histogram"].contains(&rest) => {
                        return Err(failed("a type that we do not have"));
                    }
                    "TYPE" => family.kind = Some(rest.to_owned()),
                    _ => return Err(failed("an unknown comment")),
                }
                continue;
            }
            let (name, labels, value) = sample(line).ok_or_else(|| failed("no sample"))?;
            let family = families.get(&current).ok_or_else(|| failed("a sample of no family"))?;
            let kind = family.kind.as_deref().ok_or_else(|| failed("a sample without TYPE"))?;
            if !family.help || !belongs(&name, &current, kind) {
                return Err(failed("a sample without HELP, or of another family"));
            }
            if kind == "counter" && (!name.ends_with("_total") || value < 0.0) {
                return Err(failed("a counter that is none"));
            }
            if samples.values.insert((name, labels), value).is_some() {
                return Err(failed("a sample twice"));
            }
        }
        samples.check_histograms(&families)?;
        Ok(samples)
    }

    /// The value of a sample.
    #[must_use]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.values.get(&(name.to_owned(), labels)).copied()
    }

    /// The names of all samples.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.values.keys().map(|(name, _)| name.as_str()).collect()
    }

    /// Counts of buckets never fall, and the last is the count of all.
    fn check_histograms(&self, families: &BTreeMap<String, Family>) -> Result<(), String> {
        let histograms = families.iter().filter(|(_, f)| f.kind.as_deref() == Some("histogram"));
        for (name, _) in histograms {
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((sample, labels), count) in &self.values {
                if *sample == format!("{name}_bucket") {
                    let mut labels = labels.clone();
                    let bound = labels.remove("le").as_deref().and_then(number);
                    let bound = bound.ok_or_else(|| format!("{name}: a bucket without a bound"))?;
                    series.entry(labels).or_default().push((bound, *count));
                }
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                let all = self.values.get(&(format!("{name}_count"), labels.clone()));
                let rises = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
                let last = buckets.last().filter(|(bound, _)| bound.is_infinite());
                if !rises || last.map(|(_, count)| count) != all {
                    return Err(format!("{name}{labels:?}: buckets {buckets:?} of {all:?}"));
                }
                if !self.values.contains_key(&(format!("{name}_sum"), labels.clone())) {
                    return Err(format!("{name}{labels:?} has no sum"));
                }
            }
        }
        Ok(())
    }
}

fn belongs(sample: &str, family: &str, kind: &str) -> bool {
    match sample.strip_prefix(family) {
        Some("") => kind != "histogram",
        Some("_bucket" | "_sum" | "_count") => kind == "histogram",
        _ => false,
    }
}

/// `NAME[{LABEL="VALUE",...}] VALUE`; timestamps are not ours.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, value) = rest.split_once("=\"")?;
            let (value, behind) = unescaped(value)?;
            if !is_name(label, false) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match behind.strip_prefix(',') {
                Some(more) => rest = more,
                None => break rest = behind.strip_prefix('}')?,
            }
        }
    }
    let value = number(rest.strip_prefix(' ')?)?;
    is_name(name, true).then(|| (name.to_owned(), labels, value))
}

/// A quoted value, and what is behind its closing quote.
fn unescaped(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            '\n' => return None,
            other => value.push(other),
        }
    }
    None
}

fn is_name(text: &str, colons: bool) -> bool {
    let lawful = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colons && b == b':');
    !text.is_empty() && text.bytes().all(lawful) && !text.as_bytes()[0].is_ascii_digit()
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "NaN" => None,
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_format_is_refused() {
        let good = "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"q\\\"\\\\\\n\"} 1\n";
        let samples = Samples::parse(good).expect("a good scrape");
        assert_eq!(samples.get("a_total", &[("x", "q\"\\\n")]), Some(1.0), "escapes are undone");
        for bad in [
            "a_total 1\n",
            "# HELP a_total What.\na_total 1\n",
            "# TYPE a_total counter\na_total 1\n",
            "# HELP a What.\n# TYPE a counter\na 1\n",
            "# HELP a_total What.\n# TYPE a_total counter\na_total 1\na_total 2\n",
            "# HELP a_total What.\n# TYPE a_total counter\nb_total 1\n",
            "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"\\x\"} 1\n",
            "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"\"y=\"\"} 1\n",
            "# HELP a_total What.\n# TYPE a_total counter\na_total{1=\"\"} 1\n",
            "# HELP a_total What.\n# TYPE a_total counter\na_total one\n",
            "# HELP a_total What.\n# TYPE a_total counter\na_total 1",
            "# HELP h What.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\n\
             h_sum 1\nh_count 1\n",
            "# HELP h What.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n",
        ] {
            assert!(Samples::parse(bad).is_err(), "this was taken:\n{bad}");
        }
    }
}
