//! Content digests, and the two layer identities built from them.
//!
//! A *diffID* is the digest of a layer's uncompressed tar; a *chainID* identifies a stack of layers:
//! `ChainID(L0) = DiffID(L0)` and `ChainID(L0|..|Ln) = Digest(ChainID(L0|..|Ln-1) + " " + DiffID(Ln))`
//! (OCI image-spec, `config.md`, "Layer ChainID"). The three are types of their own, so that one
//! cannot be passed where another is meant.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::{Error, ErrorKind, Result};

/// A sha256 content digest, written `sha256:<64 hexadecimal digits>`.
///
/// Other algorithms of the OCI registry (sha512, blake3) are refused as unsupported, by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes the 32 bytes of a finished sha256.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Digests a byte string that is wholly in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits without the algorithm, as blob file names use them.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// The first twelve hexadecimal digits, as tables show ids.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(Error::invalid("parse digest", text, "no algorithm before ':'"));
        };
        if algorithm != "sha256" {
            return Err(Error::refused(
                "parse digest",
                text,
                "only sha256 is supported",
                ErrorKind::Unsupported,
            ));
        }
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(Error::invalid("parse digest", text, "not 64 hexadecimal digits"));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(Error::invalid("parse digest", text, "not lower-case hexadecimal"));
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// The value of a lower-case hexadecimal digit; the OCI grammar allows no upper case.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// Takes a digest that is known to be this identity.
            pub fn new(digest: Digest) -> Self {
                Self(digest)
            }

            /// The digest itself.
            pub fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                text.parse().map(Self)
            }
        }
    };
}

identity! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}

identity! {
    /// The identity of a stack of layers, bottom to top.
    ChainId
}

impl ChainId {
    /// The chain of a bottom layer: its diffID.
    pub fn base(diff: &DiffId) -> Self {
        Self(diff.0)
    }

    /// The chain of this stack with one more layer on top.
    #[must_use]
    pub fn push(&self, diff: &DiffId) -> Self {
        Self(Digest::of(format!("{} {}", self.0, diff.0).as_bytes()))
    }

    /// The chain of a whole stack, bottom layer first; none for an empty stack.
    pub fn of_stack<'a>(diffs: impl IntoIterator<Item = &'a DiffId>) -> Option<Self> {
        diffs.into_iter().fold(None, |chain: Option<Self>, diff| match chain {
            None => Some(Self::base(diff)),
            Some(below) => Some(below.push(diff)),
        })
    }
}

/// A writer that digests and counts what passes through it to an inner writer.
#[derive(Debug)]
pub struct Digester<W> {
    inner: W,
    hash: sha2::Sha256,
    bytes: u64,
}

impl<W: Write> Digester<W> {
    /// Starts a digest over what will be written to `inner` ([`io::sink`] for the digest alone).
    pub fn new(inner: W) -> Self {
        Self { inner, hash: sha2::Sha256::new(), bytes: 0 }
    }

    /// Ends the digest: the inner writer, the digest, and how many bytes there were.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hash.finalize().into()), self.bytes)
    }
}

impl<W: Write> Write for Digester<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn display_and_parse_are_inverses() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.short(), "e3b0c44298fc");
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        let cases = ["", "sha256", "sha256:", "sha256:00", "e3b0", upper.as_str(), "md5:00"];
        for case in cases {
            assert!(case.parse::<Digest>().is_err(), "{case:?} was accepted");
        }
        let multibyte = format!("sha256:{}é", "0".repeat(62));
        assert!(multibyte.parse::<Digest>().is_err());
        assert!(serde_json_like(EMPTY).is_ok());
    }

    fn serde_json_like(text: &str) -> Result<Digest, serde::de::value::Error> {
        use serde::de::IntoDeserializer as _;
        Digest::deserialize(text.into_deserializer())
    }

    #[test]
    fn chain_follows_the_image_spec() {
        let a = DiffId::new(Digest::of(b"a"));
        let b = DiffId::new(Digest::of(b"b"));
        assert_eq!(ChainId::of_stack([&a]).unwrap().digest(), a.digest());
        let two = ChainId::of_stack([&a, &b]).unwrap();
        assert_eq!(*two.digest(), Digest::of(format!("{a} {b}").as_bytes()));
        assert_eq!(ChainId::of_stack([]), None);
    }

    #[test]
    fn digester_counts_and_digests() {
        let mut digester = Digester::new(Vec::new());
        digester.write_all(b"abc").unwrap();
        let (inner, digest, bytes) = digester.finish();
        assert_eq!((inner.as_slice(), digest, bytes), (&b"abc"[..], Digest::of(b"abc"), 3));
    }
}
