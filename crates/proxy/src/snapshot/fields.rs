//! Reading fields of Envoy messages: durations and packed messages.

use std::time::Duration;

use super::Invalid;

impl Invalid {
    /// A finding at a field path.
    pub fn at(path: impl Into<String>, message: String) -> Self {
        Self { path: path.into(), message }
    }

    /// The same finding inside an outer field.
    #[must_use]
    pub fn under(self, outer: &str) -> Self {
        let path = if self.path.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.path) };
        Self { path, message: self.message }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// A `google.protobuf.Duration` that must not be negative.
///
/// # Errors
/// A negative duration.
pub(crate) fn duration(message: &prost_types::Duration, path: &str) -> Result<Duration, Invalid> {
    Duration::try_from(*message).map_err(|_| Invalid::at(path, "a duration must not be negative".into()))
}

/// A duration for which zero means "no limit".
pub(crate) fn limit(message: Option<&prost_types::Duration>, path: &str) -> Result<Option<Duration>, Invalid> {
    let Some(message) = message else { return Ok(None) };
    Ok(Some(duration(message, path)?).filter(|limit| !limit.is_zero()))
}

/// The message packed in an `Any`.
///
/// # Errors
/// Another type than the expected one, or bytes that do not decode.
pub(crate) fn unpack<M: prost::Message + prost::Name + Default>(
    any: &prost_types::Any,
    path: &str,
) -> Result<M, Invalid> {
    lateen_xds::any::unpack(any).map_err(|error| Invalid::at(path, error.to_string()))
}
