//! In which form does a path take part in routing? Envoy's path normalisation.
//!
//! The rules are those of the URL library that Envoy uses, measured byte by byte on Envoy 1.40: dot segments are resolved
//! and never leave the root, `\` becomes `/`, escaped unreserved characters are decoded and some others escaped. The query
//! is never touched.

use super::head::Head;
use crate::snapshot::hcm::EscapedSlashes;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalized {
    /// The path is as it should be, now.
    Done,
    /// The request must be refused with 400.
    Refused,
    /// The client is to come again with the path that the head has now.
    Redirect,
}

/// Brings the path of a request into the form that the connection manager asks for: escaped slashes first, then
/// `normalize_path`, then `merge_slashes`.
pub fn normalize(
    request: &mut Head,
    normalize_path: bool,
    merge_slashes: bool,
    escaped_slashes: EscapedSlashes,
) -> Normalized {
    let path = request.path();
    let sight = Sight::of(path);
    if sight.fragment {
        return Normalized::Refused;
    }
    let escapes = sight.escape && escaped_slashes != EscapedSlashes::Keep;
    let odd = sight.odd && normalize_path;
    let doubles = sight.double_slash && merge_slashes;
    if !(escapes || odd || doubles) {
        return Normalized::Done;
    }
    let (bare, query) = path.split_at(sight.query);
    let mut new = bare.to_vec();
    let mut unescaped = false;
    if escapes {
        unescaped = unescape_slashes(&mut new);
        if unescaped && escaped_slashes == EscapedSlashes::Reject {
            return Normalized::Refused;
        }
    }
    if normalize_path {
        let Some(canonical) = canonical(&without_dot_parameters(&new)) else { return Normalized::Refused };
        new = canonical;
    }
    if merge_slashes {
        merge(&mut new);
    }
    if new != bare {
        new.extend_from_slice(query);
        request.set_path(&new);
    }
    if unescaped && escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
        Normalized::Redirect
    } else {
        Normalized::Done
    }
}

/// What one look at a path tells; nearly all paths need no more than it.
struct Sight {
    /// Where the query begins.
    query: usize,
    /// There is a `#`, be it in the query.
    fragment: bool,
    /// There is a `%` before the query.
    escape: bool,
    /// Two slashes follow each other before the query.
    double_slash: bool,
    /// Normalisation might change something.
    odd: bool,
}

impl Sight {
    fn of(path: &[u8]) -> Self {
        let mut sight = Self { query: path.len(), fragment: false, escape: false, double_slash: false, odd: false };
        let mut before = 0;
        for (index, &byte) in path.iter().enumerate() {
            match CLASSES[usize::from(byte)] {
                Class::Plain => {}
                Class::Slash => sight.double_slash |= before == b'/',
                Class::Dot => sight.odd |= before == b'/',
                Class::Percent => {
                    sight.escape = true;
                    sight.odd = true;
                }
                Class::Question => {
                    sight.query = index;
                    sight.fragment = path[index..].contains(&b'#');
                    return sight;
                }
                Class::Fragment => {
                    sight.fragment = true;
                    return sight;
                }
                Class::Backslash | Class::Escaped | Class::Invalid => {
                    sight.odd = true;
                    // A backslash counts as a slash for what follows.
                }
            }
            before = byte;
        }
        sight
    }
}

/// What a byte is in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It stays.
    Plain,
    /// It is written as an escape.
    Escaped,
    /// It cannot stand in a path.
    Invalid,
    Slash,
    Backslash,
    Dot,
    Percent,
    Question,
    Fragment,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            0 => Class::Invalid,
            b'/' => Class::Slash,
            b'\\' => Class::Backslash,
            b'.' => Class::Dot,
            b'%' => Class::Percent,
            b'?' => Class::Question,
            b'#' => Class::Fragment,
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Escaped,
            1..=b' ' | 0x7f.. => Class::Escaped,
            _ => Class::Plain,
        };
        byte += 1;
    }
    classes
};

/// Whether an escaped byte is decoded: the unreserved characters of RFC 3986.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Decodes `%2F` and `%5C`; tells whether there was one.
fn unescape_slashes(path: &mut Vec<u8>) -> bool {
    let mut found = false;
    let mut new = Vec::with_capacity(path.len());
    let mut rest = path.as_slice();
    while let Some((&byte, after)) = rest.split_first() {
        match escape(rest) {
            Some(decoded @ (b'/' | b'\\')) => {
                found = true;
                new.push(decoded);
                rest = &rest[3..];
            }
            _ => {
                new.push(byte);
                rest = after;
            }
        }
    }
    *path = new;
    found
}

/// Removes the `;parameters` of segments that are `.` or `..`, so that they are resolved like any other.
fn without_dot_parameters(path: &[u8]) -> Vec<u8> {
    let mut new = Vec::with_capacity(path.len());
    for (index, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if index > 0 {
            new.push(b'/');
        }
        let name = segment.split(|byte| *byte == b';').next().unwrap_or(segment);
        new.extend_from_slice(if matches!(name, b"." | b"..") { name } else { segment });
    }
    new
}

/// The canonical form of a path without its query; `None` if it has none, because it holds a NUL.
fn canonical(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Output { bytes: Vec::with_capacity(path.len()), stray_percent: None };
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        if let Some(dot) = dot_length(rest) {
            rest = out.dot(&rest[dot..]);
            continue;
        }
        match CLASSES[usize::from(byte)] {
            Class::Backslash => out.bytes.push(b'/'),
            Class::Percent => {
                match escape(rest) {
                    Some(0) => return None,
                    Some(decoded) if is_unreserved(decoded) => {
                        rest = &rest[3..];
                        out.unescape(decoded, rest.first().copied());
                    }
                    Some(_) => {
                        out.bytes.extend_from_slice(&rest[..3]);
                        rest = &rest[3..];
                    }
                    None => {
                        out.stray_percent = Some(out.bytes.len());
                        out.bytes.push(b'%');
                        rest = after;
                    }
                }
                continue;
            }
            Class::Invalid => return None,
            Class::Escaped => out.push_escaped(byte),
            _ => out.bytes.push(byte),
        }
        rest = after;
    }
    Some(out.bytes)
}

/// The canonical path as far as it is known.
struct Output {
    bytes: Vec<u8>,
    /// Where the last `%` stands that began no escape.
    stray_percent: Option<usize>,
}

impl Output {
    /// After a dot: resolves a dot segment, or writes the dot. Returns what is left of the path.
    fn dot<'a>(&mut self, after: &'a [u8]) -> &'a [u8] {
        let is_end = |rest: &[u8]| rest.is_empty() || matches!(rest[0], b'/' | b'\\');
        if self.bytes.last() == Some(&b'/') {
            if is_end(after) {
                return after.get(1..).unwrap_or_default();
            }
            if let Some(second) = dot_length(after)
                && is_end(&after[second..])
            {
                self.leave_segment();
                return after.get(second + 1..).unwrap_or_default();
            }
        }
        self.bytes.push(b'.');
        after
    }

    /// Removes the last segment, but not the root.
    fn leave_segment(&mut self) {
        let last = self.bytes.len() - 1;
        if let Some(slash) = self.bytes[..last].iter().rposition(|byte| *byte == b'/') {
            self.bytes.truncate(slash + 1);
        }
        self.stray_percent = self.stray_percent.filter(|percent| *percent < self.bytes.len());
    }

    /// Writes a decoded character. If that made an escape out of an earlier stray `%`, the `%` is escaped itself, so that
    /// nobody decodes the path a second time.
    fn unescape(&mut self, decoded: u8, next: Option<u8>) {
        self.bytes.push(decoded);
        let Some(percent) = self.stray_percent.filter(|percent| percent + 3 >= self.bytes.len()) else { return };
        let mut end = self.bytes[percent..].to_vec();
        let short = end.len() == 2;
        if short {
            match next {
                Some(next) if next < 0x80 => end.push(next),
                _ => return,
            }
        }
        if escape(&end).is_none() {
            return;
        }
        self.bytes.truncate(percent);
        self.bytes.extend_from_slice(b"%25");
        self.bytes.extend_from_slice(if short { &end[1..2] } else { &end[1..] });
    }

    fn push_escaped(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        self.bytes.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
    }
}

/// The byte that an escape at the beginning of a text stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// The length of a dot at the beginning of a text: `.` or `%2E`.
fn dot_length(text: &[u8]) -> Option<usize> {
    match text {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    }
}

/// Makes one slash of several. As in Envoy a path of slashes alone keeps two of them.
fn merge(path: &mut Vec<u8>) {
    if !path.windows(2).any(|pair| pair == b"//") {
        return;
    }
    if path.iter().all(|byte| *byte == b'/') {
        path.truncate(2);
        return;
    }
    let mut before = 0;
    path.retain(|byte| {
        let stays = *byte != b'/' || before != b'/';
        before = *byte;
        stays
    });
}

#[cfg(test)]
mod tests;
