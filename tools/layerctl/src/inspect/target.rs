//! What a user names on the command line.

use std::path::Path;

use anyhow::Context as _;

use crate::exit::usage;

/// Something to look into: `NAME`, `FILE` or `FILE:IMAGE`, each with `#LAYER` behind it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// What was written, without the layer.
    pub(crate) what: String,
    /// The archive, layout or directory; none for the store.
    pub(crate) file: Option<String>,
    /// Which image of an archive.
    pub(crate) image: Option<String>,
    /// The layer at which to stop: a number, 1 at the bottom, or the beginning of an id.
    pub(crate) layer: Option<String>,
}

impl Target {
    /// Reads a target.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        // A file may well have a `#` in its name.
        let (what, layer) = match text.rsplit_once('#') {
            Some((what, layer)) if !Path::new(text).exists() => (what, Some(layer)),
            _ => (text, None),
        };
        if what.is_empty() || layer == Some("") {
            return Err(usage(format!("{text:?} names nothing; it is NAME or NAME#LAYER")));
        }
        let (file, image) = match file_of(what) {
            Some((file, image)) => (Some(file.to_owned()), image.map(str::to_owned)),
            None => (None, None),
        };
        Ok(Self { what: what.to_owned(), file, image, layer: layer.map(str::to_owned) })
    }
}

/// The file that a target names, and the image in it; none for a name in the store.
fn file_of(what: &str) -> Option<(&str, Option<&str>)> {
    let exists = |file: &str| {
        let path = Path::new(file);
        // A word is a directory's name only if it says so: `debian` is an image.
        if file.contains('/') { path.exists() } else { path.is_file() }
    };
    if exists(what) {
        return Some((what, None));
    }
    let mut colons = what.match_indices(':').map(|(at, _)| (&what[..at], &what[at + 1..]));
    if let Some((file, image)) = colons.find(|(file, _)| exists(file)) {
        return Some((file, Some(image)));
    }
    (what.starts_with('/') || what.starts_with("./") || what.starts_with("../"))
        .then_some((what, None))
}

/// Divides `TARGET:PATH`; the path is absolute, or what follows the last colon.
pub(crate) fn split_path(text: &str) -> anyhow::Result<(Target, &str)> {
    let at = text.find(":/").or_else(|| text.rfind(':'));
    let (target, path) = at
        .map(|at| (&text[..at], &text[at + 1..]))
        .filter(|(target, path)| !target.is_empty() && !path.is_empty())
        .ok_or_else(|| usage(format!("{text:?} is not TARGET:PATH")))?;
    Ok((Target::parse(target).with_context(|| format!("{text:?}"))?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a#b.tar");
        std::fs::write(&file, "").expect("a file");
        let file = file.to_str().expect("UTF-8");
        for (text, what, in_file, image, layer) in [
            ("debian:12", "debian:12", None, None, None),
            ("debian:12#3", "debian:12", None, None, Some("3")),
            ("debian@sha256:ab#sha256:cd", "debian@sha256:ab", None, None, Some("sha256:cd")),
            ("./missing.tar", "./missing.tar", Some("./missing.tar"), None, None),
            (file, file, Some(file), None, None),
            (&format!("{file}#2"), file, Some(file), None, Some("2")),
            (
                &format!("{file}:app:1#2"),
                &format!("{file}:app:1"),
                Some(file),
                Some("app:1"),
                Some("2"),
            ),
        ] {
            let expected = Target {
                what: what.to_owned(),
                file: in_file.map(str::to_owned),
                image: image.map(str::to_owned),
                layer: layer.map(str::to_owned),
            };
            assert_eq!(Target::parse(text).expect(text), expected, "{text}");
        }
        for text in ["", "#1", "debian#"] {
            assert!(Target::parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn paths_are_divided_from_targets() {
        for (text, what, path) in [
            ("debian:12:/etc/passwd", "debian:12", "/etc/passwd"),
            ("debian:etc/passwd", "debian", "etc/passwd"),
            ("./x.tar#2:/a:/b", "./x.tar", "/a:/b"),
            ("./x.tar:etc", "./x.tar", "etc"),
        ] {
            let (target, found) = split_path(text).expect(text);
            assert_eq!((target.what.as_str(), found), (what, path), "{text}");
        }
        for text in ["debian", ":/etc", "debian:"] {
            assert!(split_path(text).is_err(), "{text:?} was taken");
        }
    }
}
