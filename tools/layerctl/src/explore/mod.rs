//! The explorer: layers and files of an image in a terminal.
//!
//! Three parts that know nothing of each other's business. The *state* ([`app`]) takes events (keys,
//! clicks, what the background has done) and answers with effects (make this view, read this file);
//! it is plain data and tested as such. *Drawing* ([`draw`]) paints a state into a buffer of cells.
//! *Work* ([`work`]) and the *terminal* ([`terminal`]) do what has to be waited for, and bring events
//! in and frames out.
//!
//! So that every key is answered at once whatever the size of the image, one thread waits for keys and
//! draws, one opens the image and reads from it, one makes views; only the newest view that was asked
//! for is made. Of the tree, only the lines on the screen are drawn.

mod app;
mod blame;
mod draw;
mod find;
mod forest;
mod image;
mod keys;
mod layout;
mod line;
mod list;
mod matcher;
mod mouse;
mod overlay;
mod pager;
mod prompt;
mod terminal;
mod text;
mod tree;
mod view;
mod work;

#[cfg(test)]
mod testing;

use std::sync::mpsc;

use app::{App, Event};
use draw::Theme;
use work::{Background, Meter};

pub(crate) use text::cut;

use crate::context::Session;
use crate::inspect::Target;

/// How to explore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Whether to take notice of the mouse.
    pub(crate) mouse: bool,
    /// Whether to use colours.
    pub(crate) colour: bool,
}

/// Shows an image until the user has seen enough.
pub(crate) fn run(session: Session, target: Target, options: Options) -> anyhow::Result<()> {
    let (sender, events) = mpsc::channel();
    let meter = Meter::default();
    let background = Background::start(session, target, &meter, &sender)?;
    let mut terminal = terminal::Terminal::open(options.mouse, &sender)?;
    let mut app = App::new(terminal.size()?, options.mouse);
    let theme = Theme::new(options.colour);
    while app.end.is_none() {
        terminal.draw(|buffer| draw::draw(&app, theme, buffer))?;
        // What has piled up is dealt with before anything is drawn again.
        let mut next = if app.is_loading() {
            meter.wait(&events)
        } else {
            events.recv().unwrap_or(Event::End)
        };
        loop {
            for effect in app.update(next) {
                if let Some(effect) = terminal.perform(effect)? {
                    background.perform(effect);
                }
            }
            match events.try_recv() {
                Ok(event) if app.end.is_none() => next = event,
                _ => break,
            }
        }
    }
    drop(terminal);
    app.end.take().unwrap_or(Ok(()))
}
