//! Colour for people: on a terminal, unless `NO_COLOR` asks for none (no-color.org).

use std::io::{IsTerminal as _, stdout};

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

/// A colour by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Something new.
    Added,
    /// Something gone.
    Removed,
    /// Something different.
    Changed,
    /// Something beside the point.
    Faint,
}

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { on: !refused && stdout().is_terminal() }
    }

    /// Whether there is any colour.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    /// Text in a colour.
    pub(crate) fn text(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Added => "32",
            Colour::Removed => "31",
            Colour::Changed => "33",
            Colour::Faint => "2",
        };
        if self.on && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_only_for_terminals() {
        assert_eq!(Paint { on: false }.text(Colour::Added, "x"), "x");
        assert_eq!(Paint { on: true }.text(Colour::Added, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(Paint { on: true }.text(Colour::Added, ""), "", "nothing needs no colour");
        assert!(!Paint::stdout().on || stdout().is_terminal(), "a pipe has no colour");
    }
}
