//! An answer that comes as one JSON object a line.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use ureq::{Body, BodyReader};

use crate::client::error::{ClientError, Result};

/// The longest line that is taken: an image of very many layers fits many times over.
const MAX_LINE: u64 = 4 << 20;

/// The objects of a stream, in the order in which they are sent; ends with the stream or after the
/// first error.
pub struct JsonLines<T> {
    reader: BufReader<BodyReader<'static>>,
    socket: PathBuf,
    line: Vec<u8>,
    ended: bool,
    item: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for JsonLines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines")
            .field("socket", &self.socket)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> JsonLines<T> {
    pub(super) fn new(body: Body, socket: PathBuf) -> Self {
        let reader = BufReader::new(body.into_with_config().limit(u64::MAX).reader());
        Self { reader, socket, line: Vec::new(), ended: false, item: PhantomData }
    }

    fn read(&mut self) -> Result<Option<T>> {
        loop {
            self.line.clear();
            let mut limited = self.reader.by_ref().take(MAX_LINE);
            let count = limited
                .read_until(b'\n', &mut self.line)
                .map_err(|e| ClientError::transport(&self.socket, ureq::Error::from(e)))?;
            if count == 0 {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        serde_json::from_slice(&self.line).map(Some).map_err(|source| ClientError::Unexpected {
            socket: self.socket.clone(),
            what: "line".to_owned(),
            source: Some(source),
        })
    }
}

impl<T: DeserializeOwned> Iterator for JsonLines<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
