//! One line of text that is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The longest text that is taken, in characters.
const LONGEST: usize = 4096;

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    text: Vec<char>,
    /// Before which character the cursor stands.
    cursor: usize,
}

impl Line {
    /// A line with a text, the cursor behind it.
    pub(super) fn new(text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        Self { cursor: text.len(), text }
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// The text before the cursor.
    pub(super) fn before_cursor(&self) -> String {
        self.text[..self.cursor].iter().collect()
    }

    /// Takes a key; whether the text is another one now.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, control) {
            (KeyCode::Left, _) | (KeyCode::Char('b'), true) => {
                self.cursor = self.cursor.saturating_sub(1);
            }
            (KeyCode::Right, _) | (KeyCode::Char('f'), true) => {
                self.cursor = (self.cursor + 1).min(self.text.len());
            }
            (KeyCode::Home, _) | (KeyCode::Char('a'), true) => self.cursor = 0,
            (KeyCode::End, _) | (KeyCode::Char('e'), true) => self.cursor = self.text.len(),
            (KeyCode::Backspace, _) | (KeyCode::Char('h'), true) => {
                return self.cut(self.cursor.saturating_sub(1), self.cursor);
            }
            (KeyCode::Delete, _) | (KeyCode::Char('d'), true) => {
                return self.cut(self.cursor, (self.cursor + 1).min(self.text.len()));
            }
            (KeyCode::Char('u'), true) => return self.cut(0, self.cursor),
            (KeyCode::Char('k'), true) => return self.cut(self.cursor, self.text.len()),
            (KeyCode::Char('w'), true) => {
                let before = &self.text[..self.cursor];
                let word = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
                let start = before[..word].iter().rposition(|c| c.is_whitespace() || *c == '/');
                return self
                    .cut(start.map_or(0, |at| (at + 1).min(word.saturating_sub(1))), self.cursor);
            }
            (KeyCode::Char(c), false) if !c.is_control() && self.text.len() < LONGEST => {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
                return true;
            }
            _ => {}
        }
        false
    }

    fn cut(&mut self, from: usize, to: usize) -> bool {
        self.text.drain(from..to);
        self.cursor = from;
        from < to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited() {
        let mut line = Line::new("ab/cd");
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
        for (key, changed, text, before) in [
            (plain(KeyCode::Char('ü')), true, "ab/cdü", "ab/cdü"),
            (plain(KeyCode::Backspace), true, "ab/cd", "ab/cd"),
            (control('w'), true, "ab/", "ab/"),
            (control('a'), false, "ab/", ""),
            (plain(KeyCode::Backspace), false, "ab/", ""),
            (plain(KeyCode::Delete), true, "b/", ""),
            (plain(KeyCode::Right), false, "b/", "b"),
            (control('k'), true, "b", "b"),
            (plain(KeyCode::Tab), false, "b", "b"),
            (control('u'), true, "", ""),
            (control('w'), false, "", ""),
        ] {
            assert_eq!(line.key(key), changed, "{key:?} in {text:?}");
            assert_eq!(
                (line.text(), line.before_cursor()),
                (text.into(), before.into()),
                "{key:?}"
            );
        }
    }
}
