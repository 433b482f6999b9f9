//! The filters of containerd's list calls.
//!
//! ```text
//! filter    := selector ("," selector)*          all must match
//! selector  := fieldpath (operator value)?       without operator: the field is present
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z0-9_]+
//! operator  := "==" | "!=" | "~="                "~=": a regular expression matches
//! value     := quoted | anything but "," and white space
//! quoted    := a string in Go's syntax; after "~=" also between "/" or "|"
//! ```
//!
//! Several filters match when any of them does, no filter matches everything. A digest as a value need
//! not be quoted (`parent==sha256:...`).

use std::iter::Peekable;
use std::str::CharIndices;

use regex::Regex;

/// A list of filters, parsed.
#[derive(Debug)]
pub(super) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    Differs(String),
    Matches(Regex),
}

/// What a filter asks of a thing: the value of the field at a path, none when it is not present.
pub(super) trait Fields {
    /// The value at `path`, of which there is at least one component.
    fn field(&self, path: &[String]) -> Option<&str>;
}

/// Where parsing stopped and why.
#[derive(Debug, thiserror::Error)]
#[error("filter {filter:?}, at byte {at}: {reason}")]
pub(super) struct FilterError {
    filter: String,
    at: usize,
    reason: String,
}

impl Filters {
    /// Parses filters, of which each is one string.
    pub(super) fn parse(filters: &[String]) -> Result<Self, FilterError> {
        filters.iter().map(|filter| parse(filter)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether any of the filters matches.
    pub(super) fn matches(&self, thing: &impl Fields) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|selectors| selectors.iter().all(|selector| selector.holds(thing)))
    }
}

impl Selector {
    fn holds(&self, thing: &impl Fields) -> bool {
        let value = thing.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some_and(|value| value == wanted),
            // An absent field counts as empty here, as containerd has it: `parent!=""` asks for one.
            Test::Differs(other) => value.unwrap_or_default() != other,
            Test::Matches(regex) => value.is_some_and(|value| regex.is_match(value)),
        }
    }
}

fn parse(filter: &str) -> Result<Vec<Selector>, FilterError> {
    if filter.is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = Parser { filter, rest: filter.char_indices().peekable() };
    let mut selectors = vec![parser.selector()?];
    loop {
        parser.skip_space();
        match parser.rest.next() {
            None => return Ok(selectors),
            Some((_, ',')) => selectors.push(parser.selector()?),
            Some((at, other)) => return Err(parser.error(at, format!("unexpected {other:?}"))),
        }
    }
}

struct Parser<'a> {
    filter: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl Parser<'_> {
    fn error(&self, at: usize, reason: impl Into<String>) -> FilterError {
        FilterError { filter: self.filter.to_owned(), at, reason: reason.into() }
    }

    fn at(&mut self) -> usize {
        self.rest.peek().map_or(self.filter.len(), |(at, _)| *at)
    }

    fn skip_space(&mut self) {
        while self.rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some((_, c)) = self.rest.next_if(|(_, c)| wanted(*c)) {
            taken.push(c);
        }
        taken
    }

    fn selector(&mut self) -> Result<Selector, FilterError> {
        let mut path = vec![self.field()?];
        self.skip_space();
        while self.rest.next_if(|(_, c)| *c == '.').is_some() {
            path.push(self.field()?);
            self.skip_space();
        }
        if matches!(self.rest.peek(), None | Some((_, ','))) {
            return Ok(Selector { path, test: Test::Present });
        }
        let at = self.at();
        let operator = self.take_while(|c| matches!(c, '=' | '!' | '~'));
        let test = match operator.as_str() {
            "==" => Test::Equal(self.value(false)?),
            "!=" => Test::Differs(self.value(false)?),
            "~=" => {
                let at = self.at();
                let value = self.value(true)?;
                Test::Matches(Regex::new(&value).map_err(|e| self.error(at, e.to_string()))?)
            }
            _ => return Err(self.error(at, "expected an operator: == != ~=")),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, FilterError> {
        self.skip_space();
        if self.rest.peek().is_some_and(|(_, c)| *c == '"') {
            return self.quoted();
        }
        let at = self.at();
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() { Err(self.error(at, "expected a field")) } else { Ok(name) }
    }

    fn value(&mut self, any_quote: bool) -> Result<String, FilterError> {
        self.skip_space();
        let at = self.at();
        match self.rest.peek() {
            Some((_, '"')) => self.quoted(),
            Some((_, '/' | '|')) if any_quote => self.quoted(),
            None | Some((_, '/' | '|' | ',' | '.' | '=' | '!' | '~')) => {
                Err(self.error(at, "expected a value"))
            }
            Some(_) => {
                let plain = |c: char| c != ',' && !c.is_whitespace() && !c.is_control();
                let value = self.take_while(plain);
                if value.is_empty() { Err(self.error(at, "expected a value")) } else { Ok(value) }
            }
        }
    }

    /// A quoted string, the opening quote being next.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let (start, quote) = self.rest.next().unwrap_or((self.filter.len(), '"'));
        let mut bytes = Vec::new();
        let mut buffer = [0; 4];
        loop {
            match self.rest.next() {
                None | Some((_, '\n')) => {
                    return Err(self.error(start, "the quoted string does not end"));
                }
                Some((_, c)) if c == quote => break,
                Some((at, '\\')) => self.escape(at, quote, &mut bytes)?,
                Some((_, c)) => bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.error(start, "the quoted string is not UTF-8"))
    }

    /// What follows a backslash, by the Go specification's "Rune literals".
    fn escape(&mut self, at: usize, quote: char, out: &mut Vec<u8>) -> Result<(), FilterError> {
        let next = self.rest.next().map(|(_, c)| c);
        let simple = match next {
            Some('a') => Some(7),
            Some('b') => Some(8),
            Some('f') => Some(12),
            Some('n') => Some(b'\n'),
            Some('r') => Some(b'\r'),
            Some('t') => Some(b'\t'),
            Some('v') => Some(11),
            Some('\\') => Some(b'\\'),
            Some(c) if c == quote => u8::try_from(c).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            return Ok(());
        }
        match next {
            Some('x') => out.push(self.byte(at, 16, 2, 0)?),
            Some(c @ '0'..='7') => out.push(self.byte(at, 8, 2, c.to_digit(8).unwrap_or(0))?),
            Some('u') => self.rune(at, 4, out)?,
            Some('U') => self.rune(at, 8, out)?,
            _ => return Err(self.error(at, "unknown escape")),
        }
        Ok(())
    }

    fn byte(&mut self, at: usize, base: u32, digits: usize, first: u32) -> Result<u8, FilterError> {
        let number = self.number(at, base, digits, first)?;
        u8::try_from(number).map_err(|_| self.error(at, "the escape is no byte"))
    }

    fn rune(&mut self, at: usize, digits: usize, out: &mut Vec<u8>) -> Result<(), FilterError> {
        let number = self.number(at, 16, digits, 0)?;
        let c = char::from_u32(number).ok_or_else(|| self.error(at, "no character"))?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn number(
        &mut self,
        at: usize,
        base: u32,
        digits: usize,
        first: u32,
    ) -> Result<u32, FilterError> {
        (0..digits).try_fold(first, |number, _| {
            let digit = self.rest.next().and_then(|(_, c)| c.to_digit(base));
            let digit = digit.ok_or_else(|| self.error(at, "a digit is missing in the escape"))?;
            number
                .checked_mul(base)
                .and_then(|number| number.checked_add(digit))
                .ok_or_else(|| self.error(at, "the escape is too large"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Thing(BTreeMap<&'static str, &'static str>);

    impl Fields for Thing {
        fn field(&self, path: &[String]) -> Option<&str> {
            self.0.get(path.join("/").as_str()).copied()
        }
    }

    fn thing() -> Thing {
        Thing(BTreeMap::from([
            ("name", "foo"),
            ("kind", "active"),
            ("parent", "sha256:aa"),
            ("labels/l", "2"),
            ("labels/very complex.label", "some thing"),
            ("labels/path", "/a/b|c"),
        ]))
    }

    fn matches(filters: &[&str]) -> Result<bool, FilterError> {
        let filters: Vec<_> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        Ok(Filters::parse(&filters)?.matches(&thing()))
    }

    #[test]
    fn filters_match_as_containerd_matches() {
        let cases: &[(&[&str], bool)] = &[
            (&[], true),
            (&[""], true),
            (&["name==foo"], true),
            (&["name == foo , kind == active"], true),
            (&["name==bar"], false),
            (&["name!=bar"], true),
            (&["name!=foo"], false),
            (&["missing!=foo"], true),
            (&[r#"missing!="""#], false),
            (&[r#"parent!="""#], true),
            (&["missing==foo"], false),
            (&["labels.l"], true),
            (&["labels.m"], false),
            (&["labels.l==2"], true),
            (&["name==foo,labels.m"], false),
            (&["name==bar", "labels.l"], true),
            (&["parent==sha256:aa"], true),
            (&[r#"parent=="sha256:aa""#], true),
            (&[r#"labels."very complex.label"=="some thing""#], true),
            (&[r#"labels."very complex.label"=="some\x20thing""#], true),
            (&[r#"labels."very complex.label"=="some\040thing""#], true),
            (&[r#"labels."very complex.label"=="some\u0020thing""#], true),
            (&["name~=^f"], true),
            (&["name~=/^f.o$/"], true),
            (&["name~=|^x|"], false),
            (&[r"labels.path~=|^/a/b\|c$|"], true),
            (&[r"labels.path~=/^\/a/"], true),
            (&[r#"name~="fo+""#], true),
        ];
        for (filters, expected) in cases {
            let found = matches(filters).unwrap_or_else(|error| panic!("{filters:?}: {error}"));
            assert_eq!(found, *expected, "{filters:?}");
        }
    }

    #[test]
    fn malformed_filters_are_refused() {
        let cases = [
            "==",
            "name=",
            "name=foo",
            "name===foo",
            "name==",
            "name==,",
            ",",
            "name,",
            "name.",
            ".name",
            "name foo",
            "name==foo bar",
            r#"name=="foo"#,
            r#"name=="\q""#,
            "name==/foo/",
            r#"name=="\xz0""#,
            r#"name=="\777""#,
            r#"name=="\ud800""#,
            "name~=[",
            "name~=/[/",
            "na-me==foo",
            "name==\u{1}",
            "name==\"a\nb\"",
        ];
        for case in cases {
            assert!(matches(&[case]).is_err(), "{case:?} was accepted");
        }
    }
}
