//! What is typed at the bottom: a filter, a name to extract to, yes or no.

use std::path::PathBuf;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Effect, Extraction};
use super::find::Found;
use super::line::Line;
use super::matcher::Matcher;
use super::overlay::Overlay;
use super::text::shown;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) enum Prompt {
    /// What to look for; what was looked for before, and why what is typed makes no sense.
    Filter {
        /// What is typed.
        line: Line,
        /// What was looked for before.
        before: String,
        /// Why what is typed makes no sense.
        error: Option<String>,
    },
    /// What to find in the content of a file.
    Find {
        /// What is typed.
        line: Line,
        /// What was found before, and the first line on the screen.
        before: (Found, usize),
        /// Why what is typed makes no sense.
        error: Option<String>,
    },
    /// Where to extract something to.
    Extract {
        /// What is typed.
        line: Line,
        /// Of how many of the lowest layers.
        layers: usize,
        /// The path in the image.
        path: Vec<u8>,
    },
    /// Whether what is in the way of an extraction is to be replaced.
    Replace(Extraction),
}

impl App {
    /// Begins to look for names.
    pub(super) fn ask_filter(&mut self) {
        let line = Line::new(&self.filter);
        self.prompt = Some(Prompt::Filter { line, before: self.filter.clone(), error: None });
    }

    /// Begins to find something in the content on the screen.
    pub(super) fn ask_find(&mut self) {
        let Some(Overlay::Pager(pager)) = &self.overlay else { return };
        let before = (pager.found.clone(), pager.top);
        self.prompt = Some(Prompt::Find { line: Line::default(), before, error: None });
    }

    /// Takes a key for what is to be found: the screen follows what is typed.
    fn find_key(&mut self, mut line: Line, before: (Found, usize), key: KeyEvent) {
        let height = self.overlay_height();
        let Some(Overlay::Pager(pager)) = &mut self.overlay else { return };
        let mut error = None;
        if line.key(key) {
            error = pager.find(&line.text(), before.1, height).err();
        }
        self.prompt = Some(Prompt::Find { line, before, error });
    }

    /// Ends that; nothing typed means what was found before, from here on.
    fn end_find(&mut self, line: &Line, before: (Found, usize), escape: bool) {
        let height = self.overlay_height();
        let Some(Overlay::Pager(pager)) = &mut self.overlay else { return };
        if escape {
            (pager.found, pager.top) = before;
        } else if line.text().is_empty() {
            // What was once read is no nonsense.
            let _ = pager.find(&before.0.pattern, before.1, height);
        }
        if !escape && pager.found.current().is_none() && !pager.found.pattern.is_empty() {
            let text = format!("not found: {}", shown(pager.found.pattern.as_bytes()));
            self.say_bad(text);
        }
    }

    /// Asks where to extract what is selected.
    pub(super) fn ask_extract(&mut self) {
        let Some(image) = &self.image else { return };
        let Some(row) = self.tree.selected() else { return };
        if self.asked.extraction {
            return self.say("still extracting");
        }
        let path = image.forest.path(row.id).to_vec();
        // What is gone is to be had from the layer below.
        let layers = (0..=self.layers.selected + 1)
            .rev()
            .find(|count| image.forest.state(row.id, *count) == Some(row.place));
        let marked = self.marked.map(|layer| layer + 1);
        let layers = layers.or(marked).unwrap_or(self.layers.selected + 1);
        let name = match image.forest.name(row.id) {
            b"" => "root".to_owned(),
            name => shown(name),
        };
        let line = Line::new(&format!("./{name}"));
        self.prompt = Some(Prompt::Extract { line, layers, path });
    }

    /// Takes a key for what is being typed.
    pub(super) fn prompt_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let escape = key.code == KeyCode::Esc
            || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL));
        let enter = key.code == KeyCode::Enter;
        match self.prompt.take() {
            Some(Prompt::Filter { before, .. }) if escape => self.filter_by(before),
            Some(Prompt::Filter { error: None, .. }) if enter => Vec::new(),
            Some(Prompt::Filter { mut line, before, error }) => {
                let changed = line.key(key);
                let text = line.text();
                self.prompt = Some(Prompt::Filter { line, before, error });
                if changed { self.filter_by(text) } else { Vec::new() }
            }
            Some(Prompt::Find { line, before, .. }) if escape || enter => {
                self.end_find(&line, before, escape);
                Vec::new()
            }
            Some(Prompt::Find { line, before, .. }) => {
                self.find_key(line, before, key);
                Vec::new()
            }
            Some(Prompt::Extract { line, layers, path }) if enter => {
                let to = line.text();
                if to.is_empty() {
                    return Vec::new();
                }
                self.extract(Extraction { layers, path, to: PathBuf::from(to), replace: false })
            }
            Some(Prompt::Extract { mut line, layers, path }) if !escape => {
                line.key(key);
                self.prompt = Some(Prompt::Extract { line, layers, path });
                Vec::new()
            }
            Some(Prompt::Replace(extraction)) => match key.code {
                KeyCode::Char('y' | 'Y') => {
                    self.extract(Extraction { replace: true, ..extraction })
                }
                _ => {
                    self.say("left as it is");
                    Vec::new()
                }
            },
            Some(Prompt::Extract { .. }) | None => Vec::new(),
        }
    }

    /// Takes pasted text as if it were typed, up to the end of its first line.
    pub(super) fn paste(&mut self, text: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        for c in text.chars().take_while(|c| *c != '\n' && *c != '\r') {
            if self.prompt.as_ref().is_some_and(|prompt| !matches!(prompt, Prompt::Replace(_))) {
                let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
                effects.extend(self.prompt_key(key));
            }
        }
        // Only the last view is wanted.
        effects.drain(..effects.len().saturating_sub(1));
        effects
    }

    fn extract(&mut self, extraction: Extraction) -> Vec<Effect> {
        self.asked.extraction = true;
        self.say(format!("extracting to {}", shown(extraction.to.as_os_str().as_encoded_bytes())));
        vec![Effect::Extract(extraction)]
    }

    /// Looks for names; a pattern that makes no sense changes nothing.
    pub(super) fn filter_by(&mut self, text: String) -> Vec<Effect> {
        let parsed = Matcher::parse(&text);
        if let Some(Prompt::Filter { error, .. }) = &mut self.prompt {
            *error = parsed.as_ref().err().cloned();
        }
        let Ok(matcher) = parsed else { return Vec::new() };
        if text == self.filter {
            return Vec::new();
        }
        (self.filter, self.matcher) = (text, matcher);
        self.build()
    }
}
