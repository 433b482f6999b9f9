//! Choosing files by name, as typed: part of a name, a glob, a regular expression.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

/// The most memory that a regular expression may take, in bytes.
const MOST_REGEX: usize = 1 << 20;

/// Tells whether a path is asked for.
#[derive(Clone, Debug, Default)]
pub(super) enum Matcher {
    /// Every path is.
    #[default]
    All,
    /// Those in which the expression is found.
    Regex(Regex, Against),
    /// Those that the glob describes as a whole.
    Glob(glob::Pattern, Against),
}

/// What a pattern is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Against {
    /// The last component.
    Name,
    /// The whole path with a leading slash: a pattern with a slash in it.
    Path,
}

impl Matcher {
    /// Reads a pattern: `~` begins a regular expression, `*`, `?` or `[` make a glob, anything else is
    /// part of a name. Capital letters make it mind case, as editors have it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "~" {
            return Ok(Self::All);
        }
        let against = if text.contains('/') { Against::Path } else { Against::Name };
        if !text.starts_with('~') && text.contains(['*', '?', '[']) {
            let pattern = glob::Pattern::new(text).map_err(|error| error.msg.to_owned())?;
            return Ok(Self::Glob(pattern, against));
        }
        Ok(Self::Regex(expression(text)?, against))
    }

    /// Whether everything is asked for.
    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether a file is asked for.
    pub(super) fn matches(&self, path: &[u8], name: &[u8]) -> bool {
        let text = |against: &Against| match against {
            Against::Name => Cow::Borrowed(name),
            Against::Path => Cow::Owned([b"/", path].concat()),
        };
        match self {
            Self::All => true,
            Self::Regex(regex, against) => regex.is_match(&text(against)),
            Self::Glob(glob, against) => glob.matches(&String::from_utf8_lossy(&text(against))),
        }
    }
}

/// Reads what is typed as a regular expression: as one after `~`, else as a text that is looked for.
/// Capital letters make it mind case; `^` and `$` are the ends of a line.
///
/// # Errors
/// An expression that makes no sense or is too large, in one line.
pub(super) fn expression(text: &str) -> Result<Regex, String> {
    let pattern = match text.strip_prefix('~') {
        Some(pattern) => Cow::Borrowed(pattern),
        None => Cow::Owned(regex::escape(text)),
    };
    RegexBuilder::new(&pattern)
        .case_insensitive(!text.chars().any(char::is_uppercase))
        .multi_line(true)
        .size_limit(MOST_REGEX)
        .build()
        .map_err(|error| last_line(&error.to_string()))
}

/// The line of an error that says what is wrong; the others show where.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_taken_for_what_they_look_like() {
        for (pattern, path, expected) in [
            ("", "etc/passwd", true),
            ("pass", "etc/passwd", true),
            ("PASS", "etc/passwd", false),
            ("readme", "srv/README.md", true),
            ("etc", "etc/passwd", false),
            ("/etc/p", "etc/passwd", true),
            ("a.b", "axb", false),
            ("*.md", "srv/README.md", true),
            ("*.md", "srv/README.md5", false),
            ("/srv/*", "srv/README.md", true),
            ("[ab]?", "x/bc", true),
            ("~^pass", "etc/passwd", true),
            ("~^pass$", "etc/passwd", false),
            ("~", "etc/passwd", true),
            ("~/etc/.*d$", "etc/passwd", true),
        ] {
            let matcher = Matcher::parse(pattern).expect(pattern);
            let name = path.rsplit('/').next().expect("a name");
            let found = matcher.matches(path.as_bytes(), name.as_bytes());
            assert_eq!(found, expected, "{pattern:?} in {path}");
        }
    }

    #[test]
    fn bad_patterns_say_what_is_wrong_in_one_line() {
        for pattern in ["~(", "[", "***x", "~a{1000}{1000}"] {
            let error = Matcher::parse(pattern).expect_err(pattern);
            assert!(!error.is_empty() && !error.contains('\n'), "{pattern}: {error:?}");
        }
    }
}
