//! What does a request or response say before its body: the head, and how is it read and edited?
//!
//! All text of a head lies in one buffer, normally the one in which it was received. The fields are a flat list of
//! slices of that buffer, in the order in which they will be sent. An edit appends to the buffer; a field that nobody
//! touched is never copied until it is sent.

mod edit;
mod known;
mod name;

pub use known::Known;
pub(in crate::http) use known::{ENVOY_NAMES, JOINED_IN_REQUESTS, JOINED_IN_RESPONSES};
pub use name::{HeaderName, InvalidHeaderName};
pub(in crate::http) use name::{Target, is_token};

/// Version of HTTP in which a head arrived, or in which it is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

/// The head of a request or a response.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub(in crate::http) bytes: Vec<u8>,
    pub(in crate::http) fields: Vec<Field>,
    /// The bits of the known names that have at least one field.
    pub(in crate::http) present: u128,
    pub(in crate::http) method: Span,
    pub(in crate::http) path: Span,
    pub(in crate::http) authority: Option<Span>,
    scheme: Scheme,
    status: u16,
    status_text: [u8; 3],
    pub(in crate::http) version: Version,
}

/// A part of a head's buffer. Limits keep a head far below 4 GiB.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::http) struct Span {
    pub(in crate::http) start: u32,
    pub(in crate::http) length: u32,
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Field {
    pub(in crate::http) name_start: u32,
    pub(in crate::http) value_start: u32,
    pub(in crate::http) value_length: u32,
    pub(in crate::http) name_length: u16,
    pub(in crate::http) known: Option<Known>,
    /// The buffer holds exactly `name: value\r\n` from `name_start` on, so that the line can be sent as it lies.
    pub(in crate::http) canonical: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Scheme {
    #[default]
    Absent,
    Http,
    Https,
    Other(Span),
}

impl Span {
    #[inline]
    pub(in crate::http) fn new(start: usize, length: usize) -> Self {
        Self { start: start as u32, length: length as u32 }
    }

    #[inline]
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..][..self.length as usize]
    }
}

impl Field {
    #[inline]
    pub(in crate::http) fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.name_start as usize..][..usize::from(self.name_length)]
    }

    #[inline]
    pub(in crate::http) fn value(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.value_start as usize..][..self.value_length as usize]
    }

    fn is(self, name: &HeaderName, bytes: &[u8]) -> bool {
        match name.target() {
            Target::Known(known) => self.known == Some(known),
            Target::Text => self.known.is_none() && self.name(bytes) == name.as_str().as_bytes(),
            _ => false,
        }
    }
}

impl Head {
    /// An empty head.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the head and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.present = 0;
        self.method = Span::default();
        self.path = Span::default();
        self.authority = None;
        self.scheme = Scheme::Absent;
        self.status = 0;
        self.status_text = [0; 3];
        self.version = Version::default();
    }

    /// Makes this head a copy of another one and keeps its own memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&other.bytes);
        self.fields.clear();
        self.fields.extend_from_slice(&other.fields);
        self.present = other.present;
        self.method = other.method;
        self.path = other.path;
        self.authority = other.authority;
        self.scheme = other.scheme;
        self.status = other.status;
        self.status_text = other.status_text;
        self.version = other.version;
    }

    /// Frees memory that one large head left behind; `keep` is the number of bytes to keep.
    pub fn release(&mut self, keep: usize) {
        self.clear();
        self.bytes.shrink_to(keep);
        self.fields.shrink_to(64);
    }

    /// The request method; empty in a response.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    /// The request target with its query: `/shop?page=2`, or `*`; empty for `CONNECT`.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.path.of(&self.bytes)
    }

    /// The host that the request is for, from the target in absolute or authority form or else from `host`.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.map(|span| span.of(&self.bytes))
    }

    /// The scheme; empty while nobody decided it.
    #[must_use]
    pub fn scheme(&self) -> &[u8] {
        match self.scheme {
            Scheme::Absent => b"",
            Scheme::Http => b"http",
            Scheme::Https => b"https",
            Scheme::Other(span) => span.of(&self.bytes),
        }
    }

    /// The response status; 0 in a request.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A request: the version in which it came. A response: the version in which it will be sent.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The value of the first line with this name; `Known::Host` is the authority.
    #[inline]
    #[must_use]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        if known == Known::Host {
            return self.authority();
        }
        Some(self.field(known)?.value(&self.bytes))
    }

    /// The values of all lines with this name.
    pub fn get_all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let authority = if known == Known::Host { self.authority() } else { None };
        let fields = if self.present & known.bit() == 0 { &[][..] } else { &self.fields[..] };
        let lines = fields.iter().filter(move |field| field.known == Some(known));
        authority.into_iter().chain(lines.map(|field| field.value(&self.bytes)))
    }

    /// Whether there is a line with this name.
    #[inline]
    #[must_use]
    pub fn contains(&self, known: Known) -> bool {
        self.present & known.bit() != 0 || (known == Known::Host && self.authority.is_some())
    }

    /// The value of the first line with this name, or of a pseudo header.
    #[must_use]
    pub fn value(&self, name: &HeaderName) -> Option<&[u8]> {
        match name.target() {
            Target::Known(known) => self.get(known),
            Target::Text => self.fields.iter().find(|field| field.is(name, &self.bytes)).map(|f| f.value(&self.bytes)),
            target => self.pseudo(target),
        }
    }

    /// The values of all lines with this name, in order, or of a pseudo header.
    pub fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let absent = name.known().is_some_and(|known| self.present & known.bit() == 0);
        let fields = if absent { &[][..] } else { &self.fields[..] };
        let lines = fields.iter().filter(|field| field.is(name, &self.bytes)).map(|field| field.value(&self.bytes));
        self.pseudo(name.target()).into_iter().chain(lines)
    }

    /// Whether there is a line with this name, or the pseudo header.
    #[must_use]
    pub fn has(&self, name: &HeaderName) -> bool {
        match name.target() {
            Target::Known(known) => self.contains(known),
            _ => self.value(name).is_some(),
        }
    }

    /// Whether a known header is present whose name begins with `x-envoy-`.
    #[must_use]
    pub fn has_envoy_headers(&self) -> bool {
        self.present & ENVOY_NAMES != 0
    }

    /// Name and value of all lines in the order in which they will be sent; without `host` and pseudo headers.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name(&self.bytes), field.value(&self.bytes)))
    }

    /// Count of lines, without `host` and pseudo headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are no lines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Sum of the bytes of all names and values, pseudo headers included; `%REQUEST_HEADERS_BYTES%`.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        let lines: usize =
            self.fields.iter().map(|field| usize::from(field.name_length) + field.value_length as usize).sum();
        let pseudo = |name: &str, value: &[u8]| {
            if value.is_empty() { 0 } else { name.len() + value.len() }
        };
        lines
            + pseudo(":method", self.method())
            + pseudo(":path", self.path())
            + pseudo(":scheme", self.scheme())
            + self.authority().map_or(0, |authority| ":authority".len() + authority.len())
            + if self.status == 0 { 0 } else { ":status".len() + self.status_text.len() }
    }

    /// The text of a pseudo header.
    fn pseudo(&self, target: Target) -> Option<&[u8]> {
        let text = match target {
            Target::Method => self.method(),
            Target::Path => self.path(),
            Target::Scheme => self.scheme(),
            Target::Authority => return self.authority(),
            Target::Status if self.status != 0 => &self.status_text[..],
            Target::Status | Target::Known(_) | Target::Text => b"",
        };
        (!text.is_empty()).then_some(text)
    }

    #[inline]
    fn position(&self, known: Known) -> Option<usize> {
        if self.present & known.bit() == 0 {
            return None;
        }
        self.fields.iter().position(|field| field.known == Some(known))
    }

    #[inline]
    fn field(&self, known: Known) -> Option<Field> {
        Some(self.fields[self.position(known)?])
    }
}

/// The entries of a comma-separated list, without the empty ones (RFC 9110 section 5.6.1).
pub(in crate::http) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Head {
        let mut head = Head::new();
        head.set_method(b"GET");
        head.set_path(b"/a?b");
        head.set_authority(b"h");
        head.append_known(Known::Accept, b"x");
        head.append(&HeaderName::parse("x-foo").unwrap(), b"1");
        head.append(&HeaderName::parse("x-foo").unwrap(), b"");
        head
    }

    #[test]
    fn pseudo_headers_are_found_by_name() {
        let mut head = request();
        head.set_scheme(b"https");
        for (name, value) in [
            (":method", Some(&b"GET"[..])),
            (":path", Some(b"/a?b")),
            (":authority", Some(b"h")),
            ("host", Some(b"h")),
            (":scheme", Some(b"https")),
            (":status", None),
        ] {
            let name = HeaderName::parse(name).unwrap();
            assert_eq!(head.value(&name), value, "{name}");
            assert_eq!(head.values(&name).next(), value, "{name}");
            assert_eq!(head.has(&name), value.is_some(), "{name}");
        }
        head.set_status(503);
        let status = HeaderName::parse(":status").unwrap();
        assert_eq!(head.value(&status), Some(&b"503"[..]));
    }

    #[test]
    fn every_line_of_a_name_is_found_in_order() {
        let head = request();
        let foo = HeaderName::parse("X-Foo").unwrap();
        assert_eq!(head.values(&foo).collect::<Vec<_>>(), [&b"1"[..], b""]);
        assert_eq!(head.value(&foo), Some(&b"1"[..]));
        assert!(head.contains(Known::Accept) && head.contains(Known::Host));
        assert!(!head.contains(Known::Via));
        assert_eq!(head.get_all(Known::Host).count(), 1);
        assert_eq!(head.len(), 3);
    }

    #[test]
    fn the_size_is_that_of_names_and_values_with_pseudo_headers() {
        let expected = ":method".len() + "GET".len() + ":path".len() + "/a?b".len();
        let expected = expected + ":authority".len() + "h".len() + "acceptx".len();
        assert_eq!(request().byte_size(), expected + "x-foo1".len() + "x-foo".len());
    }

    #[test]
    fn a_cleared_head_is_empty_and_a_copy_is_equal() {
        let mut head = request();
        let mut copy = Head::new();
        copy.set_status(200);
        copy.copy_from(&head);
        assert_eq!(copy.fields().collect::<Vec<_>>(), head.fields().collect::<Vec<_>>());
        assert_eq!((copy.path(), copy.status()), (head.path(), 0));
        head.clear();
        assert!(head.is_empty() && head.authority().is_none() && !head.contains(Known::Accept));
        assert_eq!((head.method(), head.byte_size()), (&b""[..], 0));
    }
}
