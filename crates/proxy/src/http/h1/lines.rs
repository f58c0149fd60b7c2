//! What is wrong with a head that has not come completely, or that the tokeniser refused?
//!
//! This is the slow way: it looks at every line once, when the line is complete, and remembers how far it came. So a
//! head in small pieces costs time in proportion to its size, and the verdict does not depend on where it was cut.

use super::buffer::ReadBuffer;
use super::{Limits, Refusal};
use crate::http::head::is_token;

/// Checks the lines that have become complete; tells whether the head is complete now.
///
/// # Errors
/// A line is wrong, there are too many, or the head is too large.
#[cold]
pub(super) fn check_lines(
    buffer: &mut ReadBuffer,
    limits: &Limits,
    check_first: fn(&[u8]) -> Result<(), Refusal>,
) -> Result<bool, Refusal> {
    let mut progress = buffer.progress;
    let unread = buffer.unread();
    let window = &unread[..unread.len().min(limits.max_head_bytes)];
    while let Some(offset) = window[progress.scanned..].iter().position(|byte| *byte == b'\n') {
        let end = progress.scanned + offset;
        let line = without_cr(&window[progress.line_start..end])?;
        if progress.lines == 0 {
            check_first(line)?;
        } else if line.is_empty() {
            return Ok(true);
        } else {
            check_field(line)?;
            if progress.lines > limits.max_headers {
                return Err(Refusal::TOO_MANY_HEADERS);
            }
        }
        progress.lines += 1;
        progress.line_start = end + 1;
        progress.scanned = end + 1;
    }
    if unread.len() > limits.max_head_bytes {
        return Err(Refusal::HEADERS_TOO_LARGE);
    }
    progress.scanned = unread.len();
    buffer.progress = progress;
    Ok(false)
}

/// The characters of a request line or status line that no rule of theirs allows.
pub(super) fn check_characters(line: &[u8]) -> Result<(), Refusal> {
    if line.contains(&b'\r') {
        return Err(Refusal::CODEC_ERROR);
    }
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Refusal::INVALID_CHARACTERS);
    }
    Ok(())
}

/// A line may end with CR LF only (RFC 9112 section 2.2 lets us refuse the bare LF).
fn without_cr(line: &[u8]) -> Result<&[u8], Refusal> {
    line.strip_suffix(b"\r").ok_or(Refusal::CODEC_ERROR)
}

/// A field line (RFC 9112 section 5): token, colon, value. A line that begins with white space folds the one before.
fn check_field(line: &[u8]) -> Result<(), Refusal> {
    check_characters(line)?;
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Err(Refusal::CODEC_ERROR);
    };
    let name = &line[..colon];
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::CODEC_ERROR);
    }
    if name.len() > usize::from(u16::MAX) {
        return Err(Refusal::HEADERS_TOO_LARGE);
    }
    Ok(())
}
