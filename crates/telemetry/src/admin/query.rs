//! What does a query string ask for? Names and values, percent-decoded as Envoy does: `+` stays `+`.

/// The parameters of a query, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Parses `a=1&b&c=%20`; a parameter without `=` has an empty value.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let parameters = query.split('&').filter(|parameter| !parameter.is_empty()).map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (decoded(name), decoded(value))
        });
        Self { parameters: parameters.collect() }
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is there, whatever its value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All parameters, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let escape = escape.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        // `from_str_radix` takes a sign, an escape does not.
        match escape.filter(|_| bytes[at + 1].is_ascii_hexdigit()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_broken_escapes_stay() {
        let query = Query::parse("filter=%5eup%73tream+x&usedonly&&a=1=2&bad=%zz%+1%4&utf=%ff&a=3");
        assert_eq!(query.get("filter"), Some("^upstream+x"));
        assert_eq!(query.get("usedonly"), Some(""));
        assert_eq!(query.get("a"), Some("1=2"));
        assert_eq!(query.get("bad"), Some("%zz%+1%4"));
        assert_eq!(query.get("utf"), Some("\u{fffd}"));
        assert!(!query.has("missing"));
        assert_eq!(query.iter().filter(|(name, _)| *name == "a").count(), 2);
    }
}
