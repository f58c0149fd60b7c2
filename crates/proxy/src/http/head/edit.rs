//! How is a head changed? Every change appends to the buffer or takes a field out of the list; nothing is moved.

use super::known::{JOINED_IN_REQUESTS, JOINED_IN_RESPONSES, Known};
use super::name::{HeaderName, Target};
use super::{Field, Head, Scheme, Span, Version, tokens};

/// Names that concern one connection only (RFC 9110 section 7.6.1), besides those that `connection` lists.
const CONNECTION_NAMES: u128 = Known::Connection.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::TransferEncoding.bit()
    | Known::Upgrade.bit()
    | Known::Http2Settings.bit();

impl Head {
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
            _ => Scheme::Other(Span { start: field.value_start, length: field.value_length }),
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

    /// Appends a line; but of a name of which a head keeps one line, the value is appended to that line after a bare
    /// comma, as in Envoy.
    pub fn append_joined(&mut self, name: &HeaderName, value: &[u8]) {
        let names = if self.status == 0 { JOINED_IN_REQUESTS } else { JOINED_IN_RESPONSES };
        if let Target::Known(known) = name.target()
            && self.present & names & known.bit() != 0
        {
            let present = self.get(known).unwrap_or_default();
            let joined = [present, b",", value].concat();
            self.set_in_place(known, &joined);
            return;
        }
        self.append(name, value);
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
            self.remove_present(CONNECTION_NAMES & !(Known::Connection.bit() | Known::Upgrade.bit()));
            return;
        }
        while let Some(position) = self.position(Known::Connection) {
            let list = self.fields.remove(position);
            let bytes = &self.bytes;
            for name in tokens(list.value(bytes)) {
                self.fields.retain(|field| {
                    matches!(field.known, Some(Known::ContentLength | Known::Te | Known::Connection))
                        || !field.name(bytes).eq_ignore_ascii_case(name)
                });
            }
        }
        self.fields.retain(|field| field.known.is_none_or(|known| known.bit() & CONNECTION_NAMES == 0));
        self.present = self.fields.iter().filter_map(|field| field.known).fold(0, |mask, known| mask | known.bit());
    }

    /// Removes from a response what concerned only the upstream connection: `connection`, `keep-alive`,
    /// `proxy-connection`, `transfer-encoding` and `upgrade`. With `keep_upgrade` (status 101) `connection` and
    /// `upgrade` stay.
    pub fn remove_response_connection_headers(&mut self, keep_upgrade: bool) {
        let kept = if keep_upgrade { Known::Connection.bit() | Known::Upgrade.bit() } else { 0 };
        self.remove_present(CONNECTION_NAMES & !Known::Http2Settings.bit() & !kept);
    }

    /// Appends a line of another head.
    pub(in crate::http) fn append_text(&mut self, name: &[u8], value: &[u8]) {
        self.append_line(Known::lookup(name), name, value);
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
                    self.bytes.extend_from_within(from..from + field.value_length as usize);
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

    fn set_pseudo(&mut self, target: Target, value: &[u8]) {
        match target {
            Target::Method => self.set_method(value),
            Target::Path => self.set_path(value),
            Target::Scheme => self.set_scheme(value),
            Target::Authority => self.set_authority(value),
            Target::Status => {
                if let Some(status) = str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
                    self.set_status(status);
                }
            }
            Target::Known(_) | Target::Text => {}
        }
    }

    /// Removes the lines of all names in the mask; tells whether there was one.
    fn remove_present(&mut self, names: u128) -> bool {
        if self.present & names == 0 {
            return false;
        }
        self.fields.retain(|field| field.known.is_none_or(|known| known.bit() & names == 0));
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

/// Makes sure that a text that comes from an edit ends no line.
fn clean(text: &mut [u8]) {
    // Without an early exit the compiler tests many bytes at once.
    let dirty = text.iter().fold(false, |dirty, byte| dirty | matches!(byte, b'\0' | b'\r' | b'\n'));
    if dirty {
        for byte in text {
            if matches!(byte, b'\0' | b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(head: &Head) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        head.fields().map(|(name, value)| text(name) + "=" + &text(value)).collect()
    }

    fn head() -> Head {
        let mut head = Head::new();
        for (name, value) in [("via", "1"), ("x_a", "2"), ("via", "3"), ("x-b", "4"), ("server", "5")] {
            head.append(&HeaderName::parse(name).unwrap(), value.as_bytes());
        }
        head
    }

    #[test]
    fn set_removes_every_line_and_appends_one() {
        let mut head = head();
        head.set_known(Known::Via, b"6");
        assert_eq!(lines(&head), ["x_a=2", "x-b=4", "server=5", "via=6"]);
        head.set(&HeaderName::parse("X-B").unwrap(), b"7");
        assert_eq!(lines(&head), ["x_a=2", "server=5", "via=6", "x-b=7"]);
    }

    #[test]
    fn set_in_place_keeps_the_first_line_and_removes_the_others() {
        for value in ["6", "longer", ""] {
            let mut head = head();
            head.set_in_place(Known::Via, value.as_bytes());
            assert_eq!(lines(&head), [format!("via={value}").as_str(), "x_a=2", "x-b=4", "server=5"]);
        }
        let mut head = head();
        head.set_in_place(Known::Date, b"6");
        assert_eq!(lines(&head).last().map(String::as_str), Some("date=6"));
    }

    #[test]
    fn removing_tells_whether_there_was_something() {
        let mut head = head();
        assert!(head.remove_known(Known::Via));
        assert!(!head.remove_known(Known::Via) && !head.contains(Known::Via));
        assert!(head.remove(&HeaderName::parse("x-b").unwrap()));
        assert!(!head.remove(&HeaderName::parse("x-b").unwrap()));
        head.set_authority(b"h");
        assert!(head.remove_known(Known::Host) && head.authority().is_none());
        assert_eq!(lines(&head), ["x_a=2", "server=5"]);
    }

    #[test]
    fn removing_by_condition_keeps_presence_right() {
        let mut head = head();
        head.remove_where(|name| name.contains(&b'_') || name == b"server");
        assert_eq!(lines(&head), ["via=1", "via=3", "x-b=4"]);
        assert!(head.contains(Known::Via) && !head.contains(Known::Server));
    }

    #[test]
    fn pseudo_headers_are_set_by_name() {
        let mut head = Head::new();
        for (name, value) in
            [(":path", "/a"), (":method", "PUT"), (":scheme", "https"), ("host", "h"), (":status", "404")]
        {
            head.set(&HeaderName::parse(name).unwrap(), value.as_bytes());
        }
        assert_eq!((head.path(), head.method(), head.scheme()), (&b"/a"[..], &b"PUT"[..], &b"https"[..]));
        assert_eq!((head.authority(), head.status()), (Some(&b"h"[..]), 404));
        assert!(head.is_empty());
    }

    #[test]
    fn the_scheme_can_come_from_a_field() {
        for scheme in ["http", "https", "other"] {
            let mut head = Head::new();
            head.append_known(Known::XForwardedProto, scheme.as_bytes());
            head.set_scheme_from(Known::XForwardedProto);
            assert_eq!(head.scheme(), scheme.as_bytes());
        }
    }

    #[test]
    fn names_of_envoy_are_noticed() {
        let mut head = head();
        assert!(!head.has_envoy_headers());
        head.append_known(Known::XEnvoyRetryOn, b"5xx");
        assert!(head.has_envoy_headers());
    }
}
