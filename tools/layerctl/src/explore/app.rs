//! The state of the explorer: [`App::update`] takes an event and says what is to be done about it.
//! Nothing here touches the terminal, a file or a thread.

use std::path::PathBuf;
use std::sync::Arc;

use ratatui::crossterm::event::{KeyEvent, MouseEvent};
use ratatui::layout::Size;

use super::image::{Header, Image};
use super::layout::{Areas, areas};
use super::list::List;
use super::matcher::Matcher;
use super::overlay::Overlay;
use super::pager::Pager;
use super::prompt::Prompt;
use super::tree::Tree;
use super::view::{Kinds, Show, Sort, Spec, View};

/// What happens to the explorer.
#[derive(Debug)]
pub(super) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was used.
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has another size.
    Resize(Size),
    /// The image was found.
    Opened(Header),
    /// This is how far reading it has come.
    Reading(Reading),
    /// The files are there, or are known better than before.
    Loaded(Arc<Image>),
    /// Contents cannot be compared; the files are known all the same.
    Uncompared(String),
    /// A view is there, the one that was asked for with this number.
    Built(u64, View),
    /// A file's content is there, the one that was asked for with this number.
    Content(u64, Result<Pager, String>),
    /// An extraction has ended.
    Extracted(Extracted),
    /// The image cannot be looked into.
    Failed(anyhow::Error),
    /// The explorer is to end: a signal asks for it.
    End,
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// The layer that is being read, 0 at the bottom.
    pub(super) layer: usize,
    /// How much of it was read, in bytes as it is stored.
    pub(super) read: u64,
    /// How much there is of it, if that is known.
    pub(super) total: Option<u64>,
}

/// How an extraction ended.
#[derive(Debug)]
pub(super) enum Extracted {
    /// Well; with what to tell about it.
    Done(String),
    /// There is something of that name already, which may be replaced if the user wants it.
    Exists(Extraction),
    /// Badly.
    Failed(String),
}

/// What is to be extracted where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extraction {
    /// Of how many of the lowest layers.
    pub(super) layers: usize,
    /// The path in the image.
    pub(super) path: Vec<u8>,
    /// Where to.
    pub(super) to: PathBuf,
    /// Whether what is there may be replaced.
    pub(super) replace: bool,
}

/// What is to be done outside.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Make a view, and forget about earlier ones.
    Build(u64, Spec, Arc<Image>),
    /// Read a file: its layer, its row there, its path to be shown, its size.
    Read(u64, (usize, usize), String, u64),
    /// Extract something.
    Extract(Extraction),
    /// Take notice of the mouse, or leave it to the terminal.
    Mouse(bool),
    /// Draw everything anew.
    Redraw,
    /// Stop, as Ctrl-Z does.
    Suspend,
}

/// Which pane keys are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Focus {
    /// The list of layers.
    #[default]
    Layers,
    /// The tree.
    Tree,
}

/// Which columns the tree has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Columns {
    /// As many as there is room for.
    #[default]
    Fitting,
    /// All.
    All,
    /// Sizes only.
    Few,
}

/// A line for the user, until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// What it says.
    pub(super) text: String,
    /// Whether something went wrong.
    pub(super) bad: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct App {
    /// What was opened; none before.
    pub(super) header: Option<Header>,
    /// How far reading has come.
    pub(super) reading: Reading,
    /// Its layers and files; none before they are read.
    pub(super) image: Option<Arc<Image>>,
    /// Whether contents cannot be compared.
    pub(super) uncompared: bool,
    /// The list of layers.
    pub(super) layers: List,
    /// The tree.
    pub(super) tree: Tree,
    /// Which pane keys are for.
    pub(super) focus: Focus,
    /// What covers the panes.
    pub(super) overlay: Option<Overlay>,
    /// What is being typed.
    pub(super) prompt: Option<Prompt>,
    /// What is told at the bottom.
    pub(super) note: Option<Note>,
    /// Whether the tree shows all of a layer's state, not only what the layer did.
    pub(super) whole: bool,
    /// The layer with which the selected one is compared.
    pub(super) marked: Option<usize>,
    /// What is looked for, as typed.
    pub(super) filter: String,
    /// The same, read.
    pub(super) matcher: Matcher,
    /// Which changes are shown.
    pub(super) kinds: Kinds,
    /// In which order.
    pub(super) sort: Sort,
    /// Which columns the tree has.
    pub(super) columns: Columns,
    /// The size of the terminal.
    pub(super) size: Size,
    /// The width of the left side, if it was chosen.
    pub(super) split: Option<u16>,
    /// Whether the mouse is taken notice of.
    pub(super) mouse: bool,
    /// What the background was asked for, by number.
    pub(super) asked: Asked,
    /// A path to select when the next view is there.
    pub(super) goal: Option<super::forest::Id>,
    /// Whether, and how, the explorer is to end.
    pub(super) end: Option<anyhow::Result<()>>,
}

/// What was asked for, and what of that is still awaited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    last: u64,
    /// The view that is awaited.
    pub(super) view: Option<u64>,
    /// The content that is awaited.
    pub(super) content: Option<u64>,
    /// Whether an extraction is under way.
    pub(super) extraction: bool,
}

impl Asked {
    /// A number for the next question.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl App {
    /// An explorer of nothing yet, on a terminal of this size.
    pub(super) fn new(size: Size, mouse: bool) -> Self {
        Self { size, mouse, ..Self::default() }
    }

    /// Takes an event.
    pub(super) fn update(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Key(key) => {
                self.note = None;
                return self.key(key);
            }
            Event::Mouse(mouse) => return self.mouse_event(mouse),
            Event::Paste(text) => return self.paste(&text),
            Event::Resize(size) => {
                self.size = size;
                self.reveal();
            }
            Event::Opened(header) => {
                self.layers.selected = header.layers.len().saturating_sub(1);
                self.header = Some(header);
                self.reveal();
            }
            Event::Reading(reading) => self.reading = reading,
            Event::Loaded(image) => {
                self.image = Some(image);
                return self.build();
            }
            Event::Uncompared(error) => {
                self.uncompared = true;
                self.say_bad(format!("contents are not compared: {error}"));
            }
            Event::Built(number, view) => self.built(number, view),
            Event::Content(number, content) => self.content(number, content),
            Event::Extracted(extracted) => self.extracted(extracted),
            Event::Failed(error) => self.end = Some(Err(error)),
            Event::End => self.end = Some(Ok(())),
        }
        Vec::new()
    }

    /// Whether something is under way whose progress is shown.
    pub(super) fn is_loading(&self) -> bool {
        !self.image.as_ref().is_some_and(|image| image.compared || self.uncompared)
    }

    /// Where everything is.
    pub(super) fn areas(&self) -> Areas {
        areas(self.size, self.split, self.focus, self.layer_count())
    }

    /// How many layers there are.
    pub(super) fn layer_count(&self) -> usize {
        self.header.as_ref().map_or(0, |header| header.layers.len())
    }

    /// What is looked at.
    pub(super) fn shown(&self) -> Show {
        let layer = self.layers.selected;
        match self.marked {
            Some(marked) => Show::Compare(marked, layer),
            None if self.whole => Show::Tree(layer),
            None => Show::Changes(layer),
        }
    }

    /// Asks for the view that the state describes.
    pub(super) fn build(&mut self) -> Vec<Effect> {
        let Some(image) = self.image.clone() else { return Vec::new() };
        let spec = Spec {
            show: self.shown(),
            matcher: self.matcher.clone(),
            kinds: self.kinds,
            sort: self.sort,
        };
        let number = self.asked.next();
        self.asked.view = Some(number);
        vec![Effect::Build(number, spec, image)]
    }

    fn built(&mut self, number: u64, view: View) {
        let Some(image) = &self.image else { return };
        if self.asked.view != Some(number) {
            return;
        }
        self.asked.view = None;
        self.tree.show(&image.forest, view);
        if let Some(goal) = self.goal.take() {
            self.tree.select(&image.forest, goal);
        }
        self.reveal();
    }

    fn content(&mut self, number: u64, content: Result<Pager, String>) {
        if self.asked.content != Some(number) {
            return;
        }
        (self.asked.content, self.note) = (None, None);
        match content {
            Ok(pager) => self.overlay = Some(Overlay::Pager(pager)),
            Err(error) => self.say_bad(error),
        }
    }

    fn extracted(&mut self, extracted: Extracted) {
        self.asked.extraction = false;
        match extracted {
            Extracted::Done(text) => self.say(text),
            Extracted::Exists(extraction) => self.prompt = Some(Prompt::Replace(extraction)),
            Extracted::Failed(error) => self.say_bad(error),
        }
    }

    /// Brings what is selected onto the screen.
    pub(super) fn reveal(&mut self) {
        let areas = self.areas();
        self.layers.reveal(self.layer_count(), super::layout::lines(areas.layers));
        let len = self.tree.len();
        self.tree.list.reveal(len, super::layout::lines(areas.tree));
        self.reveal_overlay();
    }

    /// Tells something at the bottom.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.note = Some(Note { text: text.into(), bad: false });
    }

    /// The same of what went wrong.
    pub(super) fn say_bad(&mut self, text: impl Into<String>) {
        self.note = Some(Note { text: text.into(), bad: true });
    }
}

#[cfg(test)]
mod tests;
