//! Where does a body end, and which of the bytes are its content? (RFC 9112 sections 6 and 7)

use std::fmt;
use std::ops::Range;

use super::{BodyLength, Refusal};
use crate::http::head::is_token;

/// Most bytes of a chunk's size line with its extensions.
const MAX_SIZE_LINE: u32 = 4096;
/// Most bytes of all trailers.
const MAX_TRAILERS: u32 = 60 * 1024;

/// Reads one body, however its bytes are cut into pieces. Chunk extensions and trailers are checked and dropped.
#[derive(Clone, Copy, Debug)]
pub struct BodyReader {
    state: State,
    /// Bytes of the current size line, or of all trailers.
    line: u32,
}

/// What one look at the unread bytes yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Count of bytes at the front that are used now; `data` lies within them.
    pub consumed: usize,
    /// Where the content lies in the unread bytes; may be empty.
    pub data: Range<usize>,
    /// The body is complete.
    pub finished: bool,
}

/// Why a body is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// A chunk or a trailer breaks the grammar.
    Malformed,
    /// A chunk size does not fit 64 bits, or its line is longer than 4 KiB.
    ChunkTooLarge,
    /// The trailers are larger than 60 KiB.
    TrailersTooLarge,
    /// The connection ended before the body did.
    Truncated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Fixed(u64),
    UntilClose,
    /// Before the first digit of a chunk size.
    SizeStart,
    Size(u64),
    /// White space after the size.
    SizeSpace(u64),
    Extension(u64),
    SizeLineFeed(u64),
    Data(u64),
    DataReturn,
    DataLineFeed,
    /// At the front of a trailer line, or of the empty line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
}

impl BodyReader {
    /// A reader at the front of a body.
    #[must_use]
    pub fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::Empty | BodyLength::Fixed(0) => State::Done,
            BodyLength::Fixed(length) => State::Fixed(length),
            BodyLength::Chunked => State::SizeStart,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, line: 0 }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state == State::Done
    }

    /// Finds the next content in the unread bytes. At most one range a call: call again while something was consumed
    /// and the body is not finished.
    ///
    /// # Errors
    /// The chunks or trailers are wrong; where the body ends is unknown then.
    pub fn next(&mut self, unread: &[u8]) -> Result<Step, FramingError> {
        let available = unread.len();
        match self.state {
            State::Done => Ok(Step { consumed: 0, data: 0..0, finished: true }),
            State::UntilClose => Ok(Step { consumed: available, data: 0..available, finished: false }),
            State::Fixed(left) => {
                let taken = usize::try_from(left).map_or(available, |left| left.min(available));
                let left = left - taken as u64;
                self.state = if left == 0 { State::Done } else { State::Fixed(left) };
                Ok(Step { consumed: taken, data: 0..taken, finished: left == 0 })
            }
            _ => self.next_chunk(unread),
        }
    }

    /// What the end of the connection means.
    ///
    /// # Errors
    /// The body is not complete.
    pub fn end_of_stream(&self) -> Result<(), FramingError> {
        match self.state {
            State::Done | State::UntilClose => Ok(()),
            _ => Err(FramingError::Truncated),
        }
    }

    fn next_chunk(&mut self, unread: &[u8]) -> Result<Step, FramingError> {
        let mut position = 0;
        let mut data = 0..0;
        while position < unread.len() {
            if let State::Data(left) = self.state {
                if !data.is_empty() {
                    break;
                }
                let available = unread.len() - position;
                let taken = usize::try_from(left).map_or(available, |left| left.min(available));
                data = position..position + taken;
                position += taken;
                let left = left - taken as u64;
                self.state = if left == 0 { State::DataReturn } else { State::Data(left) };
                continue;
            }
            self.state = self.after(unread[position])?;
            position += 1;
            if self.state == State::Done {
                break;
            }
        }
        Ok(Step { consumed: position, data, finished: self.state == State::Done })
    }

    /// The state after one byte of framing.
    fn after(&mut self, byte: u8) -> Result<State, FramingError> {
        match (self.state, byte) {
            (State::SizeStart, _) => {
                self.line = 1;
                Ok(State::Size(hex_digit(byte).ok_or(FramingError::Malformed)?))
            }
            (State::Size(size), _) if byte.is_ascii_hexdigit() => {
                self.count(MAX_SIZE_LINE, FramingError::ChunkTooLarge)?;
                let digit = hex_digit(byte).ok_or(FramingError::Malformed)?;
                let size = size.checked_mul(16).ok_or(FramingError::ChunkTooLarge)?;
                Ok(State::Size(size | digit))
            }
            (State::Size(size) | State::SizeSpace(size) | State::Extension(size), b'\r') => {
                Ok(State::SizeLineFeed(size))
            }
            (State::Size(size) | State::SizeSpace(size), b' ' | b'\t') => {
                self.count(MAX_SIZE_LINE, FramingError::ChunkTooLarge)?;
                Ok(State::SizeSpace(size))
            }
            (State::Size(size) | State::SizeSpace(size), b';') => Ok(State::Extension(size)),
            (State::Extension(size), _) if is_text(byte) => {
                self.count(MAX_SIZE_LINE, FramingError::ChunkTooLarge)?;
                Ok(State::Extension(size))
            }
            (State::SizeLineFeed(0), b'\n') => {
                self.line = 0;
                Ok(State::TrailerStart)
            }
            (State::SizeLineFeed(size), b'\n') => Ok(State::Data(size)),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::SizeStart),
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => self.trailer(State::TrailerName),
            (State::TrailerName, b':') => self.trailer(State::TrailerValue),
            (State::TrailerValue, b'\r') => self.trailer(State::TrailerLineFeed),
            (State::TrailerValue, _) if is_text(byte) => self.trailer(State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => self.trailer(State::TrailerStart),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            _ => Err(FramingError::Malformed),
        }
    }

    fn trailer(&mut self, next: State) -> Result<State, FramingError> {
        self.count(MAX_TRAILERS, FramingError::TrailersTooLarge)?;
        Ok(next)
    }

    fn count(&mut self, limit: u32, error: FramingError) -> Result<(), FramingError> {
        self.line += 1;
        if self.line > limit { Err(error) } else { Ok(()) }
    }
}

impl FramingError {
    /// The answer to a request with such a body, while no response has begun.
    #[must_use]
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::TrailersTooLarge => Refusal::HEADERS_TOO_LARGE,
            Self::Malformed | Self::ChunkTooLarge | Self::Truncated => Refusal::CODEC_ERROR,
        }
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed chunk or trailer",
            Self::ChunkTooLarge => "chunk size or chunk extension too large",
            Self::TrailersTooLarge => "trailers too large",
            Self::Truncated => "the connection ended within a body",
        })
    }
}

impl std::error::Error for FramingError {}

fn hex_digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// The characters of a field value (RFC 9110 section 5.5), which chunk extensions may have too.
const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
