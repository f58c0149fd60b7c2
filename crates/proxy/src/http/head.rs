//! What does a request or response say before its body: the head, and how is it read and edited?
//!
//! All text of a head lies in one buffer, normally the one in which it was received. The fields are a flat list of
//! slices of that buffer, in the order in which they will be sent. An edit appends to the buffer; a field that nobody
//! touched is never copied until it is sent.

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
        Self {
            start: start as u32,
            length: length as u32,
        }
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

/// Names that concern one connection only (RFC 9110 section 7.6.1), besides those that `connection` lists.
const CONNECTION_NAMES: u128 = Known::Connection.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::TransferEncoding.bit()
    | Known::Upgrade.bit()
    | Known::Http2Settings.bit();

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

    /// Replaces the method.
    pub fn set_method(&mut self, method: &[u8]) {
        self.method = self.store(method);
    }

    /// Replaces the request target.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = self.store(path);
    }

    /// Replaces the scheme.
    pub fn set_scheme(&mut self, scheme: &[u8]) {
        self.scheme = match scheme {
            b"http" => Scheme::Http,
            b"https" => Scheme::Https,
            b"" => Scheme::Absent,
            other => Scheme::Other(self.store(other)),
        };
    }

    /// Takes the scheme from a field; without the field it stays as it is.
    pub fn set_scheme_from(&mut self, known: Known) {
        let Some(field) = self.field(known) else {
            return;
        };
        self.scheme = match field.value(&self.bytes) {
            b"http" => Scheme::Http,
            b"https" => Scheme::Https,
            _ => Scheme::Other(Span {
                start: field.value_start,
                length: field.value_length,
            }),
        };
    }

    /// Replaces the host.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = Some(self.store(authority));
    }

    /// Replaces the status.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
        let digit = |value: u16| b'0' + (value % 10) as u8;
        self.status_text = [digit(status / 100), digit(status / 10), digit(status)];
    }

    /// Replaces the version.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
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
        let authority = if known == Known::Host {
            self.authority()
        } else {
            None
        };
        let fields = if self.present & known.bit() == 0 {
            &[][..]
        } else {
            &self.fields[..]
        };
        let lines = fields
            .iter()
            .filter(move |field| field.known == Some(known));
        authority
            .into_iter()
            .chain(lines.map(|field| field.value(&self.bytes)))
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
            Target::Text => self
                .fields
                .iter()
                .find(|field| field.is(name, &self.bytes))
                .map(|f| f.value(&self.bytes)),
            target => self.pseudo(target),
        }
    }

    /// The values of all lines with this name, in order, or of a pseudo header.
    pub fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let absent = name
            .known()
            .is_some_and(|known| self.present & known.bit() == 0);
        let fields = if absent { &[][..] } else { &self.fields[..] };
        let lines = fields
            .iter()
            .filter(|field| field.is(name, &self.bytes))
            .map(|field| field.value(&self.bytes));
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

    /// Appends a line. The end of a line and NUL cannot stand in a value (RFC 9110 section 5.5) and become spaces.
    /// A pseudo header is replaced.
    pub fn append(&mut self, name: &HeaderName, value: &[u8]) {
        match name.target() {
            Target::Known(known) => self.append_line(Some(known), name.as_str().as_bytes(), value),
            Target::Text => self.append_line(None, name.as_str().as_bytes(), value),
            target => self.set_pseudo(target, value),
        }
    }

    /// Appends a line with a known name; see [`Self::append`].
    #[inline]
    pub fn append_known(&mut self, known: Known, value: &[u8]) {
        if known == Known::Host {
            return self.set_authority(value);
        }
        self.append_line(Some(known), known.as_str().as_bytes(), value);
    }

    /// Removes all lines with this name and appends one, so that the header moves to the end as in Envoy.
    pub fn set(&mut self, name: &HeaderName, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// [`Self::set`] for a known name.
    pub fn set_known(&mut self, known: Known, value: &[u8]) {
        self.remove_known(known);
        self.append_known(known, value);
    }

    /// Replaces the value where its first line stands and removes further lines; without a line one is appended.
    pub fn set_in_place(&mut self, known: Known, value: &[u8]) {
        let Some(position) = self.position(known) else {
            return self.append_known(known, value);
        };
        let field = self.fields[position];
        if field.value_length as usize == value.len() {
            let start = field.value_start as usize;
            self.bytes[start..start + value.len()].copy_from_slice(value);
            clean(&mut self.bytes[start..start + value.len()]);
        } else {
            self.fields[position] = self.store_line(Some(known), known.as_str().as_bytes(), value);
        }
        let mut index = 0;
        self.fields.retain(|field| {
            index += 1;
            field.known != Some(known) || index == position + 1
        });
    }

    /// Removes all lines with this name; tells whether there was one. Of the pseudo headers only the authority can be
    /// removed.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        match name.target() {
            Target::Known(known) => self.remove_known(known),
            Target::Text => {
                let before = self.fields.len();
                let bytes = &self.bytes;
                self.fields.retain(|field| !field.is(name, bytes));
                self.fields.len() != before
            }
            Target::Authority => self.authority.take().is_some(),
            _ => false,
        }
    }

    /// [`Self::remove`] for a known name.
    #[inline]
    pub fn remove_known(&mut self, known: Known) -> bool {
        if known == Known::Host {
            return self.authority.take().is_some();
        }
        self.present & known.bit() != 0 && self.remove_present(known.bit())
    }

    /// Removes all lines whose name satisfies the condition.
    pub fn remove_where(&mut self, mut condition: impl FnMut(&[u8]) -> bool) {
        let bytes = &self.bytes;
        let mut present = 0;
        self.fields.retain(|field| {
            let stays = !condition(field.name(bytes));
            if stays {
                present |= field.known.map_or(0, Known::bit);
            }
            stays
        });
        self.present = present;
    }

    /// Whether a known header is present whose name begins with `x-envoy-`.
    #[must_use]
    pub fn has_envoy_headers(&self) -> bool {
        self.present & ENVOY_NAMES != 0
    }

    /// Removes what concerns only the connection on which a request came (RFC 9110 section 7.6.1): `connection` and
    /// every header that it names, `keep-alive`, `proxy-connection`, `transfer-encoding`, `upgrade` and
    /// `http2-settings`. With `keep_upgrade` the headers `connection` and `upgrade` stay, and so do those that
    /// `connection` names. Of `te` only `trailers` is left.
    ///
    /// `connection: content-length` is ignored: the length frames the message on every connection.
    pub fn remove_connection_headers(&mut self, keep_upgrade: bool) {
        if self.present & (CONNECTION_NAMES | Known::Te.bit()) == 0 {
            return;
        }
        self.reduce_te();
        if keep_upgrade {
            self.remove_present(
                CONNECTION_NAMES & !(Known::Connection.bit() | Known::Upgrade.bit()),
            );
            return;
        }
        while let Some(position) = self.position(Known::Connection) {
            let list = self.fields.remove(position);
            let bytes = &self.bytes;
            for name in tokens(list.value(bytes)) {
                self.fields.retain(|field| {
                    matches!(
                        field.known,
                        Some(Known::ContentLength | Known::Te | Known::Connection)
                    ) || !field.name(bytes).eq_ignore_ascii_case(name)
                });
            }
        }
        self.fields.retain(|field| {
            field
                .known
                .is_none_or(|known| known.bit() & CONNECTION_NAMES == 0)
        });
        self.present = self
            .fields
            .iter()
            .filter_map(|field| field.known)
            .fold(0, |mask, known| mask | known.bit());
    }

    /// Removes from a response what concerned only the upstream connection: `connection`, `keep-alive`,
    /// `proxy-connection`, `transfer-encoding` and `upgrade`. With `keep_upgrade` (status 101) `connection` and
    /// `upgrade` stay.
    pub fn remove_response_connection_headers(&mut self, keep_upgrade: bool) {
        let kept = if keep_upgrade {
            Known::Connection.bit() | Known::Upgrade.bit()
        } else {
            0
        };
        self.remove_present(CONNECTION_NAMES & !Known::Http2Settings.bit() & !kept);
    }

    /// Name and value of all lines in the order in which they will be sent; without `host` and pseudo headers.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .map(|field| (field.name(&self.bytes), field.value(&self.bytes)))
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
        let lines: usize = self
            .fields
            .iter()
            .map(|field| usize::from(field.name_length) + field.value_length as usize)
            .sum();
        let pseudo = |name: &str, value: &[u8]| {
            if value.is_empty() {
                0
            } else {
                name.len() + value.len()
            }
        };
        lines
            + pseudo(":method", self.method())
            + pseudo(":path", self.path())
            + pseudo(":scheme", self.scheme())
            + self
                .authority()
                .map_or(0, |authority| ":authority".len() + authority.len())
            + if self.status == 0 {
                0
            } else {
                ":status".len() + self.status_text.len()
            }
    }

    /// Appends a line whose name is lower case and a token (RFC 9110 section 5.6.2), as a codec delivers it.
    pub(in crate::http) fn append_line(&mut self, known: Option<Known>, name: &[u8], value: &[u8]) {
        let field = self.store_line(known, name, value);
        self.fields.push(field);
        self.present |= known.map_or(0, Known::bit);
    }

    /// Joins the lines of each name in `names` into the first one, with bare commas.
    pub(in crate::http) fn join_lines(&mut self, mut names: u128) {
        while names != 0 {
            let Some(known) = Known::ALL.get(names.trailing_zeros() as usize) else {
                return;
            };
            names &= names - 1;
            let Some(position) = self.position(*known) else {
                continue;
            };
            let start = self.bytes.len();
            self.bytes.extend_from_slice(known.as_str().as_bytes());
            self.bytes.extend_from_slice(b": ");
            let value_start = self.bytes.len();
            for index in position..self.fields.len() {
                let field = self.fields[index];
                if field.known == Some(*known) {
                    if index > position {
                        self.bytes.push(b',');
                    }
                    let from = field.value_start as usize;
                    self.bytes
                        .extend_from_within(from..from + field.value_length as usize);
                }
            }
            let value_length = self.bytes.len() - value_start;
            self.bytes.extend_from_slice(b"\r\n");
            self.fields[position] = Field {
                name_start: start as u32,
                value_start: value_start as u32,
                value_length: value_length as u32,
                name_length: known.as_str().len() as u16,
                known: Some(*known),
                canonical: true,
            };
            let mut index = 0;
            self.fields.retain(|field| {
                index += 1;
                field.known != Some(*known) || index == position + 1
            });
        }
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

    fn set_pseudo(&mut self, target: Target, value: &[u8]) {
        match target {
            Target::Method => self.set_method(value),
            Target::Path => self.set_path(value),
            Target::Scheme => self.set_scheme(value),
            Target::Authority => self.set_authority(value),
            Target::Status => {
                if let Some(status) = str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok())
                {
                    self.set_status(status);
                }
            }
            Target::Known(_) | Target::Text => {}
        }
    }

    #[inline]
    fn position(&self, known: Known) -> Option<usize> {
        if self.present & known.bit() == 0 {
            return None;
        }
        self.fields
            .iter()
            .position(|field| field.known == Some(known))
    }

    #[inline]
    fn field(&self, known: Known) -> Option<Field> {
        Some(self.fields[self.position(known)?])
    }

    /// Removes the lines of all names in the mask; tells whether there was one.
    fn remove_present(&mut self, names: u128) -> bool {
        if self.present & names == 0 {
            return false;
        }
        self.fields
            .retain(|field| field.known.is_none_or(|known| known.bit() & names == 0));
        self.present &= !names;
        true
    }

    fn reduce_te(&mut self) {
        let Some(value) = self.get(Known::Te) else {
            return;
        };
        if value == b"trailers" {
            return;
        }
        if tokens(value).any(|token| token == b"trailers") {
            self.set_in_place(Known::Te, b"trailers");
        } else {
            self.remove_known(Known::Te);
        }
    }

    fn store(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        clean(&mut self.bytes[start..]);
        Span::new(start, text.len())
    }

    fn store_line(&mut self, known: Option<Known>, name: &[u8], value: &[u8]) -> Field {
        let name_start = self.bytes.len();
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        let value_start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        clean(&mut self.bytes[value_start..]);
        self.bytes.extend_from_slice(b"\r\n");
        Field {
            name_start: name_start as u32,
            value_start: value_start as u32,
            value_length: value.len() as u32,
            name_length: name.len() as u16,
            known,
            canonical: true,
        }
    }
}

/// The entries of a comma-separated list, without the empty ones (RFC 9110 section 5.6.1).
pub(in crate::http) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Makes sure that a text that comes from an edit ends no line.
fn clean(text: &mut [u8]) {
    // Without an early exit the compiler tests many bytes at once.
    let dirty = text.iter().fold(false, |dirty, byte| {
        dirty | matches!(byte, b'\0' | b'\r' | b'\n')
    });
    if dirty {
        for byte in text {
            if matches!(byte, b'\0' | b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }
}
