//! gzip members (RFC 1952) around raw deflate.
//!
//! The framing is done here since its edges are where readers differ: several members make one
//! stream (pigz, bgzip and eStargz write them), zero padding after the last is ignored as gzip(1)
//! does, and anything else there is an error, where gzip(1) only warns. A stream that is cut off
//! anywhere, even between the last byte of data and the checksum, is an error.
//!
//! Inflating is by far the dearest stage of an import. `zlib-rs` does 540 MB/s where gzip(1) does
//! 205; ISA-L would do 750, for assembler and autotools in every build and a binding whose reader
//! points into itself while it can be moved.

use std::io::{self, BufRead, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// The longest file name or comment that is skipped in a header, in bytes.
const MAX_TEXT: usize = 64 << 10;

const FLAG_HEADER_CRC: u8 = 0x02;
const FLAG_EXTRA: u8 = 0x04;
const FLAG_NAME: u8 = 0x08;
const FLAG_COMMENT: u8 = 0x10;
const FLAGS_RESERVED: u8 = 0xe0;

const GARBAGE: &str = "there is garbage after the gzip stream";

/// Decompresses a gzip stream.
pub(crate) struct GzipReader<R> {
    reader: R,
    inflate: Decompress,
    crc: Crc,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a member; the first must be there.
    Between { first: bool },
    /// In the deflate stream of a member.
    Inside,
    /// After the last.
    Ended,
}

impl<R: BufRead> GzipReader<R> {
    /// Starts before the first member.
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            state: State::Between { first: true },
        }
    }

    /// Reads a member's header, or finds the end of the stream.
    fn start(&mut self, first: bool) -> io::Result<State> {
        if !first {
            match self.reader.fill_buf()?.first() {
                None => return Ok(State::Ended),
                Some(0) => return self.padding(),
                Some(_) => {}
            }
        }
        let mut magic = [0; 2];
        self.exact(&mut magic)?;
        if magic != [0x1f, 0x8b] {
            return Err(damaged(if first { "no gzip header" } else { GARBAGE }));
        }
        let mut header = [0; 8];
        self.exact(&mut header)?;
        let [method, flags, ..] = header;
        if method != 8 || flags & FLAGS_RESERVED != 0 {
            return Err(damaged("the gzip header has an unknown method or flag"));
        }
        if flags & FLAG_EXTRA != 0 {
            let mut length = [0; 2];
            self.exact(&mut length)?;
            let mut extra = vec![0; usize::from(u16::from_le_bytes(length))];
            self.exact(&mut extra)?;
        }
        if flags & FLAG_NAME != 0 {
            self.skip_text()?;
        }
        if flags & FLAG_COMMENT != 0 {
            self.skip_text()?;
        }
        if flags & FLAG_HEADER_CRC != 0 {
            self.exact(&mut [0; 2])?;
        }
        self.inflate.reset(false);
        self.crc.reset();
        Ok(State::Inside)
    }

    /// Skips a text that a NUL ends.
    fn skip_text(&mut self) -> io::Result<()> {
        let mut byte = [0];
        for _ in 0..MAX_TEXT {
            self.exact(&mut byte)?;
            if byte == [0] {
                return Ok(());
            }
        }
        Err(damaged("the gzip header has an endless name"))
    }

    /// Makes sure that nothing but zeros is left.
    fn padding(&mut self) -> io::Result<State> {
        loop {
            let rest = self.reader.fill_buf()?;
            if rest.is_empty() {
                return Ok(State::Ended);
            }
            if rest.iter().any(|&byte| byte != 0) {
                return Err(damaged(GARBAGE));
            }
            let len = rest.len();
            self.reader.consume(len);
        }
    }

    /// Inflates once; how much there is, and where that leaves the stream.
    fn inflate(&mut self, out: &mut [u8]) -> io::Result<(usize, State)> {
        let input = self.reader.fill_buf()?;
        let ended = input.is_empty();
        let (total_in, total_out) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(input, out, FlushDecompress::None)
            .map_err(|_| damaged("the deflate data is damaged"))?;
        let consumed = difference(self.inflate.total_in(), total_in);
        let produced = difference(self.inflate.total_out(), total_out);
        self.reader.consume(consumed);
        self.crc.update(&out[..produced]);
        if status == Status::StreamEnd {
            self.trailer()?;
            return Ok((produced, State::Between { first: false }));
        }
        if produced == 0 && consumed == 0 {
            return Err(if ended { cut_off() } else { damaged("the deflate data is damaged") });
        }
        Ok((produced, State::Inside))
    }

    /// Compares the checksum and the length (modulo 2^32) after a member.
    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.exact(&mut trailer)?;
        let [crc, length] = [0, 4].map(|at| {
            u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]])
        });
        if crc != self.crc.sum() || length != self.crc.amount() {
            return Err(damaged("the gzip checksum does not match"));
        }
        Ok(())
    }

    fn exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_off(),
            _ => error,
        })
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Between { first } => self.state = self.start(first)?,
                State::Inside => {
                    let (produced, state) = self.inflate(out)?;
                    self.state = state;
                    if produced > 0 {
                        return Ok(produced);
                    }
                }
                State::Ended => return Ok(0),
            }
        }
    }
}

/// How far a counter of one call went; a call never moves more than its buffers hold.
fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the gzip stream is cut off")
}
