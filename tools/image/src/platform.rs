//! Platforms `os/arch[/variant]`, and which of an index's images a host runs.
//!
//! The normal form and the order of preference are containerd's (`containerd/platforms`): an arm64
//! host runs arm64 first, then 32-bit arm from v8 down; arm/v7 runs v7, v6, v5; amd64/v3 runs v3,
//! v2, v1; amd64 runs 386 last.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A normalised platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    arch: String,
    variant: String,
}

impl Platform {
    /// Builds the normal form of a platform as a config or a descriptor spells it.
    pub fn new(os: &str, arch: &str, variant: &str) -> Self {
        let (arch, variant) = normalise(&arch.to_ascii_lowercase(), &variant.to_ascii_lowercase());
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        Self { os, arch, variant }
    }

    /// The platform that this program was built for.
    pub fn host() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, arch, "")
    }

    /// The operating system, in Go's words (`linux`).
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, in Go's words (`amd64`).
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// The variant (`v7`); empty where the architecture has no other or it is the usual one.
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// Whether this is buildkit's mark on a descriptor of an attestation, which is no image.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.arch == "unknown"
    }

    /// How well an image for `offered` fits this platform: 0 is best, `None` does not run at all.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        if self.os != offered.os {
            return None;
        }
        let wanted = (offered.arch.as_str(), offered.variant.as_str());
        self.acceptable().iter().position(|(arch, variant)| (*arch, variant.as_str()) == wanted)
    }

    /// What runs here, best first, as normalised (architecture, variant).
    fn acceptable(&self) -> Vec<(&str, String)> {
        let mut list = vec![(self.arch.as_str(), self.variant.clone())];
        match self.arch.as_str() {
            "amd64" => {
                let level = level(&self.variant).unwrap_or(1);
                let below = (1..level).rev();
                list.extend(below.map(|v| ("amd64", if v == 1 { String::new() } else { name(v) })));
                list.push(("386", String::new()));
            }
            "arm" => list.extend(arm_below(level(&self.variant).unwrap_or(7))),
            "arm64" => {
                // Every arm64/v8.x and v9.x runs plain v8 code, which is spelt without a variant.
                if !self.variant.is_empty() {
                    list.push(("arm64", String::new()));
                }
                list.push(("arm", name(8)));
                list.extend(arm_below(8));
            }
            _ => {}
        }
        list
    }
}

/// 32-bit arm of the versions below, down to v5.
fn arm_below<'a>(version: u32) -> impl Iterator<Item = (&'a str, String)> {
    (5..version.min(9)).rev().map(|version| ("arm", name(version)))
}

fn name(version: u32) -> String {
    format!("v{version}")
}

/// The number in `v7`, kept small since it comes from outside.
fn level(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok().filter(|level| *level <= 9)
}

fn normalise(arch: &str, variant: &str) -> (String, String) {
    let (arch, variant) = match (arch, variant) {
        ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "v9" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (arch.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| Error::Platform { text: text.to_owned(), reason };
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(refuse("a part is empty or has characters other than letters and digits"));
        }
        match parts.as_slice() {
            [os, arch] => Ok(Self::new(os, arch, "")),
            [os, arch, variant] => Ok(Self::new(os, arch, variant)),
            _ => Err(refuse("it is not os/arch or os/arch/variant")),
        }
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i686", "linux/386"),
            ("linux/riscv64", "linux/riscv64"),
        ];
        for (input, normal) in cases {
            let platform: Platform = input.parse().unwrap();
            assert_eq!(platform.to_string(), normal, "{input}");
        }
    }

    #[test]
    fn malformed_platforms_are_refused() {
        for input in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "linux//v8"] {
            assert!(input.parse::<Platform>().is_err(), "{input:?} was accepted");
        }
    }

    #[test]
    fn preference_is_that_of_containerd() {
        // Wanted, then what is offered in order of preference, then what does not run.
        let cases: [(&str, &[&str], &[&str]); 6] = [
            (
                "linux/arm64",
                &["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
                &["linux/amd64", "linux/arm64/v9", "windows/arm64"],
            ),
            ("linux/arm64/v9", &["linux/arm64/v9", "linux/arm64/v8", "linux/arm/v7"], &[]),
            (
                "linux/arm/v7",
                &["linux/arm", "linux/arm/v6", "linux/arm/v5"],
                &["linux/arm/v8", "linux/arm64"],
            ),
            ("linux/arm/v6", &["linux/arm/v6", "linux/arm/v5"], &["linux/arm/v7"]),
            (
                "linux/amd64/v3",
                &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"],
                &["linux/amd64/v4"],
            ),
            ("linux/amd64", &["linux/amd64/v1", "linux/386"], &["linux/amd64/v2", "linux/s390x"]),
        ];
        for (wanted, runs, refused) in cases {
            let platform: Platform = wanted.parse().unwrap();
            let ranks: Vec<_> =
                runs.iter().map(|offer| platform.rank(&offer.parse().unwrap())).collect();
            assert!(ranks.iter().all(Option::is_some), "{wanted} runs {runs:?}: {ranks:?}");
            assert!(ranks.is_sorted(), "{wanted} prefers {runs:?} in this order: {ranks:?}");
            for offer in refused {
                let rank = platform.rank(&offer.parse().unwrap());
                assert_eq!(rank, None, "{wanted} does not run {offer}");
            }
        }
    }

    #[test]
    fn huge_variants_are_bounded() {
        let platform = Platform::new("linux", "amd64", "v4000000000");
        assert_eq!(platform.rank(&Platform::new("linux", "amd64", "")), None);
        assert_eq!(platform.rank(&platform.clone()), Some(0));
    }
}
