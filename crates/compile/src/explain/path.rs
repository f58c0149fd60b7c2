//! In which form does a path take part in routing? As the connection manager normalises it.

use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction;

use super::route::without_query;

/// The path after normalisation, query included: escaped slashes, then dot segments and escapes that stand for
/// ordinary characters, then repeated slashes.
pub(crate) fn normalize(manager: &HttpConnectionManager, path: &str) -> String {
    let bare = without_query(path);
    let query = &path[bare.len()..];
    let mut new = bare.to_owned();
    if matches!(
        manager.path_with_escaped_slashes_action(),
        PathWithEscapedSlashesAction::UnescapeAndForward | PathWithEscapedSlashesAction::UnescapeAndRedirect
    ) {
        for (escape, slash) in [("%2F", "/"), ("%2f", "/"), ("%5C", "\\"), ("%5c", "\\")] {
            new = new.replace(escape, slash);
        }
    }
    if manager.normalize_path == Some(true) && new.starts_with('/') {
        new = without_dots(&unescape(&new.replace('\\', "/")));
    }
    if manager.merge_slashes {
        while new.contains("//") {
            new = new.replace("//", "/");
        }
    }
    new.push_str(query);
    new
}

/// Decodes escapes of letters, digits and `-._~`, which mean the same either way.
fn unescape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let decoded = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .map(char::from)
            .filter(|character| character.is_ascii_alphanumeric() || "-._~".contains(*character));
        match decoded {
            Some(character) => {
                out.push(character);
                rest = &after[2..];
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Resolves `.` and `..`; the latter never leaves the root.
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => {
                segments.push(part);
                continue;
            }
        }
        // What ends in dots is a folder.
        if last {
            segments.push("");
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(path: &str, merge_slashes: bool) -> String {
        let manager = HttpConnectionManager { normalize_path: Some(true), merge_slashes, ..Default::default() };
        normalize(&manager, path)
    }

    #[test]
    fn dot_segments_and_needless_escapes_go() {
        assert_eq!(normalized("/a/./b/../c?x=/../", false), "/a/c?x=/../");
        assert_eq!(normalized("/../%61/..", false), "/");
        assert_eq!(normalized("/a%2Fb%7e", false), "/a%2Fb~");
        assert_eq!(normalized("/a//b", false), "/a//b");
        assert_eq!(normalized("/a//b", true), "/a/b");
    }
}
