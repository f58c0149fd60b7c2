//! What do routes say that answer a request without an upstream: redirects and direct responses?

use lateen_xds::envoy::config::route::v3 as route_v3;

use super::super::Invalid;
use super::super::matcher::unsupported;
use super::super::regex::Substitution;
use super::inline_bytes;

/// Envoy's `RedirectAction`.
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The scheme of the new location.
    pub scheme: RedirectScheme,
    /// Its host, which may contain a port; empty to keep the request's.
    pub host: Box<[u8]>,
    /// Its port.
    pub port: Option<u16>,
    /// Its path.
    pub path: RedirectPath,
    /// The query is dropped, unless the new path has one itself.
    pub strip_query: bool,
}

/// What becomes of the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectScheme {
    /// It stays.
    Keep,
    /// It is this one; `https_redirect` or `scheme_redirect`.
    Set(Box<[u8]>),
}

/// What becomes of the path.
#[derive(Debug)]
pub enum RedirectPath {
    /// It stays.
    Keep,
    /// It is replaced as a whole, and keeps its query unless the new one has a `?`.
    Replace(Box<[u8]>),
    /// The matched prefix is replaced.
    Prefix(Box<[u8]>),
    /// All matches in the path are replaced.
    Regex(Substitution),
}

impl Redirect {
    /// Reads the message.
    ///
    /// # Errors
    /// A port above 65535, an unknown response code, an expression that does not compile.
    pub(super) fn build(message: &route_v3::RedirectAction) -> Result<Self, Invalid> {
        use route_v3::redirect_action::SchemeRewriteSpecifier as Scheme;
        use route_v3::redirect_action::{PathRewriteSpecifier as Path, RedirectResponseCode as Code};
        let status = match Code::try_from(message.response_code) {
            Ok(Code::MovedPermanently) => 301,
            Ok(Code::Found) => 302,
            Ok(Code::SeeOther) => 303,
            Ok(Code::TemporaryRedirect) => 307,
            Ok(Code::PermanentRedirect) => 308,
            Err(_) => {
                return Err(Invalid::at("response_code", format!("{} is no response code", message.response_code)));
            }
        };
        let scheme = match &message.scheme_rewrite_specifier {
            Some(Scheme::HttpsRedirect(true)) => RedirectScheme::Set(b"https".as_slice().into()),
            Some(Scheme::SchemeRedirect(scheme)) if !scheme.is_empty() => RedirectScheme::Set(scheme.as_bytes().into()),
            Some(Scheme::HttpsRedirect(false) | Scheme::SchemeRedirect(_)) | None => RedirectScheme::Keep,
        };
        // An empty text means the same as none.
        let path = match &message.path_rewrite_specifier {
            Some(Path::PathRedirect(path)) if !path.is_empty() => RedirectPath::Replace(path.as_bytes().into()),
            Some(Path::PrefixRewrite(prefix)) if !prefix.is_empty() => RedirectPath::Prefix(prefix.as_bytes().into()),
            Some(Path::PathRedirect(_) | Path::PrefixRewrite(_)) | None => RedirectPath::Keep,
            Some(Path::RegexRewrite(rewrite)) => {
                RedirectPath::Regex(super::forward::substitution(rewrite, "regex_rewrite")?)
            }
            Some(Path::PathRewrite(_)) => return Err(unsupported("path_rewrite", "formatted paths")),
        };
        let port = match u16::try_from(message.port_redirect) {
            Ok(0) => None,
            Ok(port) => Some(port),
            Err(_) => return Err(Invalid::at("port_redirect", format!("{} is no port", message.port_redirect))),
        };
        let host = message.host_redirect.as_bytes().into();
        Ok(Self { status, scheme, host, port, path, strip_query: message.strip_query })
    }
}

/// Envoy's `DirectResponseAction`.
#[derive(Debug)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// The body; `text/plain` if there is one.
    pub body: Box<[u8]>,
}

impl DirectResponse {
    /// Reads the message.
    ///
    /// # Errors
    /// A status outside 200–599, a body that is too long or does not lie in the message.
    pub(super) fn build(message: &route_v3::DirectResponseAction, max_body: usize) -> Result<Self, Invalid> {
        let status = u16::try_from(message.status).ok().filter(|status| (200..600).contains(status));
        let Some(status) = status else {
            return Err(Invalid::at("status", format!("{} is not between 200 and 599", message.status)));
        };
        if message.body_format.is_some() {
            return Err(unsupported("body_format", "formatted bodies"));
        }
        let body = match &message.body {
            Some(source) => inline_bytes(source).map_err(|invalid| invalid.under("body"))?,
            None => b"",
        };
        if body.len() > max_body {
            let message = format!("response body size is {} bytes; maximum is {max_body}", body.len());
            return Err(Invalid::at("body", message));
        }
        Ok(Self { status, body: body.into() })
    }
}
