//! Image names: `registry/repository:tag@digest`.
//!
//! The grammar and the normal form are those of `github.com/distribution/reference`, so that a name
//! means here what it means to Docker: a first component without `.` or `:` that is not `localhost`
//! is no registry, no registry means `docker.io`, and a single component there is in `library/`.

use std::fmt;
use std::str::FromStr;

use cow::digest::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_REGISTRY: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The longest `registry/repository`, in bytes.
const MAX_NAME: usize = 255;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;

/// A normalised image name: registry and repository, with a tag, a digest or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry with its port, `docker.io` where none was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry, with `library/` where Docker implies it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The short form that people type and tables show: `debian:latest`.
    pub fn familiar(&self) -> String {
        let mut out = String::new();
        if self.registry == DEFAULT_REGISTRY {
            let short = self.repository.strip_prefix(OFFICIAL);
            out.push_str(short.filter(|rest| !rest.contains('/')).unwrap_or(&self.repository));
        } else {
            out.push_str(&self.registry);
            out.push('/');
            out.push_str(&self.repository);
        }
        self.push_suffix(&mut out);
        out
    }

    fn push_suffix(&self, out: &mut String) {
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut suffix = String::new();
        self.push_suffix(&mut suffix);
        write!(f, "{}/{}{suffix}", self.registry, self.repository)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|reason| Error::Reference { name: text.to_owned(), reason })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits are an image id, not a name");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|_| "the digest is not sha256:<64 hex digits>")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon after the last slash starts the tag; one before it belongs to the registry's port.
    let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last_slash..].find(':') {
        Some(at) => (&rest[..last_slash + at], Some(&rest[last_slash + at + 1..])),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, repository) = split_registry(name);
    check_registry(registry)?;
    check_repository(&repository)?;
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err("registry and repository are longer than 255 bytes");
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_TAG.to_owned()),
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// Splits off the registry and fills in what Docker implies.
fn split_registry(name: &str) -> (&str, String) {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == LEGACY_REGISTRY { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !path.contains('/') && !path.is_empty() {
        return (registry, format!("{OFFICIAL}{path}"));
    }
    (registry, path.to_owned())
}

/// Whether a first component is a registry; one with a capital cannot be a repository.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        all if all.len() > MAX_TAG => Err("the tag is longer than 128 bytes"),
        [first, ..] if !word(*first) => Err("the tag does not begin with a letter, digit or '_'"),
        [_, rest @ ..] if !rest.iter().all(|&b| word(b) || b == b'.' || b == b'-') => {
            Err("the tag has a character other than letters, digits, '_', '.' and '-'")
        }
        _ => Ok(()),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, tail) = rest.split_once(']').ok_or("the registry's '[' is not closed")?;
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return Err("the registry's IPv6 address is malformed");
            }
            match tail {
                "" => (None, None),
                _ => (None, Some(tail.strip_prefix(':').ok_or("the registry is malformed")?)),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err("the registry's port is not a number");
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.is_some_and(|host| !host.split('.').all(label)) {
        return Err("the registry is no host name");
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.is_empty() {
        return Err("the repository is empty");
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the repository must be in lower case");
    }
    repository.split('/').try_for_each(check_component)
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn check_component(component: &str) -> Result<(), &'static str> {
    let alnum = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return Err("the repository has an empty component");
    };
    if !alnum(first) || !alnum(last) {
        return Err("a component of the repository begins or ends with a separator");
    }
    for separator in bytes.split(|&byte| alnum(byte)).filter(|run| !run.is_empty()) {
        match separator {
            b"." | b"_" | b"__" => {}
            run if run.iter().all(|&byte| byte == b'-') => {}
            run if run.iter().all(|byte| b"._-".contains(byte)) => {
                return Err("the repository has a run of separators that is not allowed");
            }
            _ => return Err("the repository has a character that is not allowed"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised() {
        let digest = format!("debian@sha256:{HEX}");
        let both = format!("debian:12@sha256:{HEX}");
        let cases = [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("grafana/loki:3", "docker.io/grafana/loki:3", "grafana/loki:3"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest", "ghcr.io/a/b/c:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            ("a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest", "a__b/c---d.e_f:latest"),
            ("x:A_b.c-1", "docker.io/library/x:A_b.c-1", "x:A_b.c-1"),
        ];
        for (input, full, familiar) in cases {
            let reference: Reference = input.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{input}");
            assert_eq!(reference.familiar(), familiar, "{input}");
            assert_eq!(full.parse::<Reference>().unwrap(), reference, "{full} is a fixed point");
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference, "{familiar} expands");
        }
        let reference: Reference = digest.parse().unwrap();
        assert_eq!((reference.tag(), reference.familiar()), (None, digest));
        let reference: Reference = both.parse().unwrap();
        assert_eq!((reference.tag(), reference.familiar()), (Some("12"), both));
        assert_eq!(reference.digest().unwrap().hex(), HEX);
    }

    #[test]
    fn malformed_names_are_refused_with_the_rule() {
        let long_tag = format!("x:{}", "a".repeat(129));
        let long_name = "a/".repeat(128) + "a";
        let cases = [
            ("", "empty"),
            (HEX, "image id"),
            ("UPPER", "lower case"),
            ("a/UPPER", "lower case"),
            ("x:", "tag is empty"),
            ("x:-a", "does not begin"),
            ("x:a b", "other than letters"),
            (&long_tag, "longer than 128"),
            (&long_name, "longer than 255"),
            ("a//b", "empty component"),
            ("/a", "empty component"),
            ("a/", "empty component"),
            ("localhost/", "repository is empty"),
            ("-a", "begins or ends"),
            ("a_", "begins or ends"),
            ("a___b", "run of separators"),
            ("a..b", "run of separators"),
            ("a b", "character"),
            ("é", "begins or ends"),
            ("aéb", "character"),
            ("x@sha256:12", "digest"),
            ("x@md5:12", "digest"),
            ("x@", "digest"),
            ("a.b:port/x", "port"),
            ("a..b/x", "no host name"),
            ("-a.b/x", "no host name"),
            ("[::1/x", "not closed"),
            ("[::g]:1/x", "IPv6"),
            ("../../etc/passwd", "no host name"),
        ];
        for (input, reason) in cases {
            let error = input.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains(reason), "{input:?}: {error} lacks {reason:?}");
            assert_eq!(error.kind(), cow::ErrorKind::InvalidArgument, "{input:?}");
        }
    }

    #[test]
    fn any_string_is_judged_without_panic() {
        let alphabet = ['a', 'A', '0', '/', ':', '@', '.', '-', '_', '[', ']', 'é', ' ', '\0'];
        let mut state = 0x9e37_79b9_u32;
        for round in 0..20_000 {
            let text: String = (0..round % 12)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    alphabet[(state >> 24) as usize % alphabet.len()]
                })
                .collect();
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                assert_eq!(again, reference, "{text:?} does not survive a round trip");
            }
        }
    }
}
