//! How does a typed message go into a `google.protobuf.Any`, and how does it come out again?

use std::fmt;

use prost::{DecodeError, Name};
use prost_types::Any;

/// Wraps a message with its type URL, `type.googleapis.com/<full name>`.
pub fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Takes the message out of an [`Any`].
///
/// # Errors
/// [`AnyError::Type`] when the wrapped message is of another type, [`AnyError::Decode`] when its bytes are malformed.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M, AnyError> {
    if !is::<M>(any) {
        return Err(AnyError::Type { expected: M::full_name(), found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|error| AnyError::Decode { message: M::full_name(), error })
}

/// Whether an [`Any`] wraps a message of type `M`. Only the name counts: Envoy ignores what precedes the last `/` too.
pub fn is<M: Name>(any: &Any) -> bool {
    type_name(&any.type_url).strip_prefix(M::PACKAGE).and_then(|rest| rest.strip_prefix('.')) == Some(M::NAME)
}

/// The full message name at the end of a type URL.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// Why an [`Any`] could not be unpacked.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyError {
    /// It wraps another type of message.
    Type {
        /// Full name of the message that was asked for.
        expected: String,
        /// Type URL that was found.
        found: String,
    },
    /// The bytes are not an encoded message of the type that the URL names.
    Decode {
        /// Full name of the message.
        message: String,
        /// What the decoder met.
        error: DecodeError,
    },
}

impl fmt::Display for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyError::Type { expected, found } if found.is_empty() => {
                write!(f, "expected a {expected}, found an Any without a type URL")
            }
            AnyError::Type { expected, found } => write!(f, "expected a {expected}, found {found}"),
            AnyError::Decode { message, error } => write!(f, "cannot decode {message}: {error}"),
        }
    }
}

impl std::error::Error for AnyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AnyError::Type { .. } => None,
            AnyError::Decode { error, .. } => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::core::v3::{Pipe, SocketAddress};

    fn pipe() -> Pipe {
        Pipe { path: "@lateen".into(), mode: 0o600 }
    }

    #[test]
    fn packs_with_a_type_url_and_unpacks() {
        let any = pack(&pipe());
        assert_eq!(any.type_url, "type.googleapis.com/envoy.config.core.v3.Pipe");
        assert_eq!(unpack::<Pipe>(&any), Ok(pipe()));
    }

    #[test]
    fn any_host_before_the_type_name_is_accepted() {
        for prefix in ["", "/", "type.example/"] {
            let any = Any { type_url: format!("{prefix}envoy.config.core.v3.Pipe"), ..pack(&pipe()) };
            assert_eq!(unpack::<Pipe>(&any), Ok(pipe()), "prefix {prefix:?}");
        }
    }

    #[test]
    fn another_type_is_refused_by_name() {
        let error = unpack::<SocketAddress>(&pack(&pipe())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a envoy.config.core.v3.SocketAddress, found type.googleapis.com/envoy.config.core.v3.Pipe"
        );
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let any = Any { value: vec![0x0a, 0x7f], ..pack(&pipe()) };
        assert!(matches!(unpack::<Pipe>(&any), Err(AnyError::Decode { message, .. }) if message.ends_with("Pipe")));
    }
}
