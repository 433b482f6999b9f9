//! How names and ids are shortened for people.

/// What an image without a name is shown as.
pub(crate) const NONE: &str = "<none>";

/// A full image name without what everybody takes for granted: `docker.io/` and `library/`.
pub(crate) fn familiar(name: &str) -> &str {
    match name.strip_prefix("docker.io/") {
        // A name that would read as another registry's keeps its own.
        Some(rest) => match rest.strip_prefix("library/") {
            Some(official) if !official.contains('/') => official,
            _ => rest,
        },
        None => name,
    }
}

/// A name's repository and tag; the tag of a name by digest is none.
pub(crate) fn split(name: &str) -> (&str, &str) {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, NONE),
    }
}

/// The first twelve digits of an id or digest.
pub(crate) fn short(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// The beginning of a text, with a mark where it goes on.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// The text with characters escaped that are not seen or move what is around them: names and paths
/// come from strangers' archives, and a terminal or a page obeys what it is shown.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || deceives(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Whether a character, without being a control character, has no width, turns the direction of
/// text around (UAX #9, "Explicit Directional"), ends a line, or is no character at all, which XML
/// cannot hold.
fn deceives(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || (u32::from(c) & 0xfffe) == 0xfffe
        || matches!(c, '\u{fdd0}'..='\u{fdef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_as_docker_does() {
        for (full, expected, repository, tag) in [
            ("docker.io/library/debian:12", "debian:12", "docker.io/library/debian", "12"),
            ("docker.io/a/b:latest", "a/b:latest", "docker.io/a/b", "latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x", "1"),
            ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x", NONE),
            ("docker.io/library/a/b:1", "library/a/b:1", "docker.io/library/a/b", "1"),
            ("q.io/x@sha256:ab", "q.io/x@sha256:ab", "q.io/x", NONE),
        ] {
            assert_eq!(familiar(full), expected, "familiar form of {full}");
            assert_eq!(split(full), (repository, tag), "parts of {full}");
        }
    }

    #[test]
    fn ids_are_cut_to_twelve_digits() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
        assert_eq!(short("sha256:01"), "01");
        assert_eq!(short(""), "");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}ü"), "a\\u{1b}[2J\\nb\\u{9b}ü");
        for (what, text, expected) in [
            ("text turned around", "gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("a name that looks like another", "etc\u{200b}", "etc\\u{200b}"),
            ("no character of XML", "\u{ffff}\u{1fffe}", "\\u{ffff}\\u{1fffe}"),
            ("other scripts", "日本語 עברית é 👩‍🚀", "日本語 עברית é 👩‍🚀"),
        ] {
            assert_eq!(printable(text), expected, "{what}");
        }
    }
}
