//! The terminal: taken for the explorer, and given back however that ends.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::Once;
use std::sync::mpsc::Sender;
use std::thread;

use anyhow::Context as _;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
    Event as Input, KeyEventKind,
};
use ratatui::crossterm::terminal::{
    self, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::Size;
use rustix::process::{Signal, kill_current_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::app::{Effect, Event};

/// What is drawn on: a frame is written at once.
type Screen = ratatui::Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// A frame of a large terminal, with colours, in bytes.
const FRAME: usize = 64 << 10;

/// The terminal while it is the explorer's; given back by drop, and by a panic of any thread.
pub(super) struct Terminal {
    screen: Screen,
    mouse: bool,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("mouse", &self.mouse).finish_non_exhaustive()
    }
}

impl Terminal {
    /// Takes the terminal; keys, the mouse and signals become events.
    pub(super) fn open(mouse: bool, events: &Sender<Event>) -> anyhow::Result<Self> {
        give_back_on_panic();
        let keys = events.clone();
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("wait for signals")?;
        take(mouse).inspect_err(|_| give_back()).context("take the terminal")?;
        let terminal = Self { screen: screen()?, mouse };
        thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&keys))?;
        let events = events.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut signals = signals;
            if signals.forever().next().is_some() {
                drop(events.send(Event::End));
            }
        })?;
        Ok(terminal)
    }

    /// The size in cells.
    pub(super) fn size(&self) -> anyhow::Result<Size> {
        let (width, height) = terminal::size().context("the size of the terminal")?;
        Ok(Size { width, height })
    }

    /// Draws a frame; `paint` says where the cursor stands, if it is to be seen.
    pub(super) fn draw(
        &mut self,
        paint: impl FnOnce(&mut Buffer) -> Option<(u16, u16)>,
    ) -> anyhow::Result<()> {
        let drawn = self.screen.draw(|frame| {
            if let Some(cursor) = paint(frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        });
        drawn.context("draw")?;
        Ok(())
    }

    /// Does what is the terminal's to do; gives back what is not.
    pub(super) fn perform(&mut self, effect: Effect) -> anyhow::Result<Option<Effect>> {
        match effect {
            Effect::Mouse(on) => {
                self.mouse = on;
                set_mouse(on)?;
            }
            Effect::Redraw => self.screen = screen()?,
            Effect::Suspend => {
                give_back();
                // Stops here, and goes on when the shell says so.
                kill_current_process_group(Signal::TSTP).context("stop")?;
                take(self.mouse).context("take the terminal")?;
                self.screen = screen()?;
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// An empty screen. A new one is made rather than the old one cleared: that would ask the terminal
/// where the cursor is, for whose answer the keys' thread waits as well.
fn screen() -> anyhow::Result<Screen> {
    execute!(io::stdout(), terminal::Clear(terminal::ClearType::All))
        .context("clear the screen")?;
    let out = BufWriter::with_capacity(FRAME, io::stdout());
    ratatui::Terminal::new(CrosstermBackend::new(out)).context("open the terminal")
}

fn take(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
    if mouse { set_mouse(true) } else { Ok(()) }
}

fn set_mouse(on: bool) -> io::Result<()> {
    if on {
        execute!(io::stdout(), EnableMouseCapture)
    } else {
        execute!(io::stdout(), DisableMouseCapture)
    }
}

/// Gives the terminal back as it was; nothing is left to do about what fails.
fn give_back() {
    let mut out = io::stdout();
    drop(execute!(
        out,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    ));
    drop(disable_raw_mode());
    drop(out.flush());
}

/// A panic says what it has to say on the user's own screen.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

fn read_keys(events: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(Input::Key(key)) if key.kind == KeyEventKind::Release => continue,
            Ok(Input::Key(key)) => Event::Key(key),
            Ok(Input::Mouse(mouse)) => Event::Mouse(mouse),
            Ok(Input::Paste(text)) => Event::Paste(text),
            Ok(Input::Resize(width, height)) => Event::Resize(Size { width, height }),
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The terminal is gone.
            Err(_) => Event::End,
        };
        let last = matches!(event, Event::End);
        if events.send(event).is_err() || last {
            return;
        }
    }
}
