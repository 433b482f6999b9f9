//! When the daemon is to end.

use std::io::{self, Read};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// The ways by which the daemon is asked to end.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    input: Option<mpsc::Receiver<()>>,
}

impl Stop {
    /// Catches the signals from now on, and watches standard input for its end if `until_eof`.
    pub(super) fn new(until_eof: bool) -> Result<Self> {
        let catch = |kind| signal(kind).map_err(|e| Error::sys("catch signals", "", e));
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            input: until_eof.then(watch_input).transpose()?,
        })
    }

    /// Waits for the next request to end, and says what it was.
    pub(super) async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = closed(&mut self.input) => "end of standard input",
        }
    }
}

async fn closed(input: &mut Option<mpsc::Receiver<()>>) {
    match input {
        // Reported once: the next request to end is another one.
        Some(receiver) => {
            receiver.recv().await;
            *input = None;
        }
        None => std::future::pending().await,
    }
}

/// Reads standard input to its end on a thread that nobody waits for.
fn watch_input() -> Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut input = io::stdin().lock();
            let mut buffer = [0; 64];
            // An input that cannot be read has ended too.
            while matches!(input.read(&mut buffer), Ok(count) if count > 0) {}
            drop(sender);
        })
        .map_err(|e| Error::sys("start threads", "", e))?;
    Ok(receiver)
}
