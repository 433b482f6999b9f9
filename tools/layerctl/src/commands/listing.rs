//! How layers and steps are listed: what their tables have in common.

/// Whether a table shows ids and steps in full.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Full {
    /// Print ids and steps in full
    #[arg(long = "no-trunc")]
    full: bool,
}

impl Full {
    /// An id, or what stands for none.
    pub(super) fn id(self, id: Option<&str>) -> String {
        match id {
            Some(id) if self.full => id.to_owned(),
            Some(id) => crate::names::short(id).to_owned(),
            None => "-".to_owned(),
        }
    }

    /// A text, or its beginning.
    pub(super) fn text(self, text: String, width: usize) -> String {
        if self.full { text } else { crate::names::cut(&text, width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_unless_all_is_wanted() {
        let (cut, full) = (Full { full: false }, Full { full: true });
        for (text, expected) in
            [("short", "short"), ("12345678", "12345678"), ("123456789", "1234567…")]
        {
            assert_eq!(cut.text(text.to_owned(), 8), expected, "{text}");
            assert_eq!(full.text(text.to_owned(), 8), text, "{text} in full");
        }
        let id = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(cut.id(Some(&id)), "abababababab", "twelve digits");
        assert_eq!((full.id(Some(&id)), full.id(None)), (id, "-".to_owned()), "in full");
    }
}
