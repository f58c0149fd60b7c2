//! What is the name of a header, as configuration gives it?

use std::fmt;

use super::known::Known;

/// A header name of the configuration, ready to be looked for: lower case, and with its number when it is a known one.
///
/// `:method`, `:path`, `:authority`, `:scheme` and `:status` name the pseudo header fields (RFC 9113 section 8.3) in
/// every protocol; `host` is `:authority`, as in Envoy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName {
    text: Box<str>,
    target: Target,
}

/// Where a head keeps the values of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::http) enum Target {
    /// Lines with this number.
    Known(Known),
    /// Lines with this text.
    Text,
    /// `:method`.
    Method,
    /// `:path`.
    Path,
    /// `:authority` or `host`.
    Authority,
    /// `:scheme`.
    Scheme,
    /// `:status`.
    Status,
}

/// A text that is no header name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHeaderName;

impl HeaderName {
    /// Longest name in bytes; a head stores the length in 16 bits.
    pub const MAX_LENGTH: usize = u16::MAX as usize;

    /// Reads a field name (RFC 9110 section 5.1) or a pseudo header name; upper case becomes lower case.
    ///
    /// # Errors
    /// The text is empty, too long, has a byte that is no token character, or begins with `:` and is no pseudo header.
    pub fn parse(text: &str) -> Result<Self, InvalidHeaderName> {
        let text = text.to_ascii_lowercase();
        let target = match text.as_str() {
            ":method" => Target::Method,
            ":path" => Target::Path,
            ":authority" | "host" => Target::Authority,
            ":scheme" => Target::Scheme,
            ":status" => Target::Status,
            name if name.is_empty() || name.len() > Self::MAX_LENGTH || !name.bytes().all(is_token) => {
                return Err(InvalidHeaderName);
            }
            name => Known::lookup(name.as_bytes()).map_or(Target::Text, Target::Known),
        };
        Ok(Self { text: text.into(), target })
    }

    /// The name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name's number.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        match self.target {
            Target::Known(known) => Some(known),
            Target::Authority => Some(Known::Host),
            _ => None,
        }
    }

    pub(in crate::http) fn target(&self) -> Target {
        self.target
    }
}

impl From<Known> for HeaderName {
    fn from(known: Known) -> Self {
        let target = if known == Known::Host { Target::Authority } else { Target::Known(known) };
        Self { text: known.as_str().into(), target }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for InvalidHeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a header name: use letters, digits and !#$%&'*+-.^_`|~")
    }
}

impl std::error::Error for InvalidHeaderName {}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
pub(in crate::http) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_cased_and_recognised() {
        let name = HeaderName::parse("X-Request-ID").unwrap();
        assert_eq!(name.as_str(), "x-request-id");
        assert_eq!(name.known(), Some(Known::XRequestId));
        assert_eq!(HeaderName::parse("x-foo").unwrap().known(), None);
        assert_eq!(HeaderName::parse("Host").unwrap().target(), Target::Authority);
        assert_eq!(HeaderName::from(Known::Host).target(), Target::Authority);
    }

    #[test]
    fn texts_that_are_no_names_are_refused() {
        for text in ["", "a b", "a:", ":foo", "ä", "a\r\nb", "a\0"] {
            assert_eq!(HeaderName::parse(text), Err(InvalidHeaderName), "{text:?}");
        }
        assert_eq!(HeaderName::parse(&"a".repeat(70_000)), Err(InvalidHeaderName));
    }
}
