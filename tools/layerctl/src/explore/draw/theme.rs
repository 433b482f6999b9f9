//! Colours and the like by what they say. Only the terminal's own sixteen colours are used; each
//! meaning is told without colour as well.

use ratatui::style::{Color, Modifier, Style};

use crate::explore::view::{Change, Row};

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::explore) struct Theme {
    colour: bool,
}

impl Theme {
    /// With colours or without.
    pub(in crate::explore) fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn colour(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// Of what became of a path.
    pub(super) fn change(self, change: Change) -> Style {
        match change {
            Change::Added => self.colour(Color::Green),
            Change::Changed => self.colour(Color::Yellow),
            Change::Removed => self.colour(Color::Red),
            Change::Repeated => self.colour(Color::Magenta),
            Change::Same => Style::new(),
        }
    }

    /// Of what is beside the point. Not dark grey: that is the background of some people's terminals.
    pub(super) fn faint(self) -> Style {
        Style::new().dim()
    }

    /// Of a pane's frame.
    pub(super) fn frame(self, focused: bool) -> Style {
        if focused { self.colour(Color::Cyan) } else { self.faint() }
    }

    /// Of a pane's title.
    pub(super) fn title(self, focused: bool) -> Style {
        if focused { self.colour(Color::Cyan).bold() } else { Style::new().bold() }
    }

    /// Of the selected line, above its own colours.
    pub(super) fn selected(self, focused: bool) -> Style {
        let style = Style::new().remove_modifier(Modifier::DIM);
        match (focused, self.colour) {
            // One colour from edge to edge.
            (true, _) => style.fg(Color::Reset).reversed(),
            (false, true) => style.bg(Color::DarkGray).fg(Color::White).bold(),
            (false, false) => style.bold().underlined(),
        }
    }

    /// Of what was looked for, and of the place that was gone to.
    pub(super) fn found(self, current: bool) -> Style {
        if current { Style::new().reversed().bold() } else { self.warn().bold().underlined() }
    }

    /// Of directories.
    pub(super) fn dir(self) -> Style {
        self.colour(Color::Blue).bold()
    }

    /// Of keys to be pressed.
    pub(super) fn key(self) -> Style {
        self.colour(Color::Cyan).bold()
    }

    /// Of the line at the top.
    pub(super) fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of what went wrong.
    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red).bold()
    }

    /// Of what is worth a look.
    pub(super) fn warn(self) -> Style {
        self.colour(Color::Yellow)
    }
}

/// The letter for what became of a path, as `layerctl tree --changes` has it, and how it looks; a dot
/// for a directory in which something is new, different or gone.
pub(super) fn letter(row: &Row, theme: Theme) -> (&'static str, Style) {
    let letter = match row.change {
        Change::Added => "A",
        Change::Changed => "C",
        Change::Removed => "D",
        _ if row.stirred => return ("·", theme.change(Change::Changed).bold()),
        Change::Repeated => "=",
        Change::Same => " ",
    };
    (letter, theme.change(row.change).bold())
}
