//! A digest and a length, taken together.

use std::io::{self, Write as _};

use cow::digest::{Digest, Digester};

/// What went through a [`Digesting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digested {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

/// A digest in the making.
pub(crate) struct Digesting(Digester<io::Sink>);

impl Default for Digesting {
    fn default() -> Self {
        Self(Digester::new(io::sink()))
    }
}

impl Digesting {
    /// Takes more bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        // A sink takes everything.
        let _ = self.0.write_all(bytes);
    }

    /// Ends it.
    pub(crate) fn finish(self) -> Digested {
        let (_, digest, bytes) = self.0.finish();
        Digested { digest, bytes }
    }
}
