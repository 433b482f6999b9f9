//! `--filter KEY=VALUE`, as docker takes it: values of one key are alternatives, keys must all
//! hold.

use std::collections::BTreeMap;

use crate::exit::usage;

/// The filters of one command line, by key.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Sorts the given filters, each of which must have one of the known keys.
    pub(crate) fn parse(given: &[String], known: &[&str]) -> anyhow::Result<Self> {
        let mut filters = BTreeMap::<_, Vec<_>>::new();
        for filter in given {
            let (key, value) = filter
                .split_once('=')
                .ok_or_else(|| usage(format!("the filter {filter:?} is not KEY=VALUE")))?;
            if !known.contains(&key) {
                let known = known.join(", ");
                return Err(usage(format!("the filter {key:?} is unknown; there are {known}")));
            }
            filters.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Ok(Self(filters))
    }

    /// The values that were given for a key.
    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether no value was given for the key, or `test` holds for one of them.
    pub(crate) fn any(&self, key: &str, test: impl FnMut(&String) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(test)
    }

    /// Whether `test` holds for every value that was given for the key.
    pub(crate) fn all(&self, key: &str, test: impl FnMut(&String) -> bool) -> bool {
        self.values(key).iter().all(test)
    }

    /// The value of a key that takes one truth value.
    pub(crate) fn truth(&self, key: &str) -> anyhow::Result<Option<bool>> {
        match self.values(key) {
            [] => Ok(None),
            [value] => match value.as_str() {
                "true" | "1" => Ok(Some(true)),
                "false" | "0" => Ok(Some(false)),
                _ => Err(usage(format!("the filter {key} is true or false, not {value:?}"))),
            },
            _ => Err(usage(format!("the filter {key} was given more than once"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_sorted_and_checked() {
        let given = ["a=1".to_owned(), "a=2".to_owned(), "b=x=y".to_owned(), "c=true".to_owned()];
        let filters = Filters::parse(&given, &["a", "b", "c", "d"]).expect("good filters");
        assert_eq!(filters.values("a"), ["1", "2"]);
        assert_eq!(filters.values("b"), ["x=y"], "only the first = divides");
        assert!(filters.any("a", |v| v == "2") && !filters.all("a", |v| v == "2"));
        assert!(filters.any("d", |_| false), "a filter that was not given holds");
        assert_eq!(filters.truth("c").expect("a truth value"), Some(true));
        assert_eq!(filters.truth("d").expect("not given"), None);
        assert!(filters.truth("a").is_err() && filters.truth("b").is_err());
        for bad in ["a", "z=1", ""] {
            assert!(Filters::parse(&[bad.to_owned()], &["a"]).is_err(), "{bad:?}");
        }
    }
}
