//! In which values may Lateen and Envoy differ?
//!
//! `docs/books/allowed-differences.md` is the only list. A line never lets a value be missing, added or moved: both sides
//! must have it in the same place, and each side's value must have the shape that the line names.
//!
//! Its second table names the deviations: requests that Lateen answers otherwise than Envoy on purpose. A row of a page
//! points at one by its key; then Envoy's status must be the one that the table gives for Envoy.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The list.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    rules: Vec<Rule>,
    deviations: BTreeMap<String, u16>,
}

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A header of the response to the client.
    Response,
    /// A header of the request to the backend.
    Request,
    /// A field of the access log.
    Log,
}

#[derive(Clone, Debug)]
struct Rule {
    place: Place,
    field: String,
    shape: Shape,
}

/// What a value that may differ must look like on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    HttpDate,
    /// `2026-11-23T05:16:11.060Z`
    Timestamp,
    /// A non-negative whole number.
    Digits,
    /// A decimal number.
    Decimal,
    /// 8-4-4-4-12 hex digits.
    Uuid,
    /// `address:port`
    Address,
    /// `name="ffffffffffffffff"` and attributes.
    HashCookie,
}

impl Allowed {
    /// Reads the list of the books.
    ///
    /// # Errors
    /// When the file cannot be read or a line is malformed.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("allowed-differences.md");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Parses the list: the Markdown tables `where | field | shape | why` and `deviation | envoy | why`.
    ///
    /// # Errors
    /// When a line names an unknown place or shape, or gives no reason.
    pub fn parse(text: &str) -> Result<Self> {
        let mut allowed = Self::default();
        for line in text.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> =
                line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            if cells[0].starts_with("--") || ["where", "deviation"].contains(&cells[0]) {
                continue;
            }
            if cells.last().is_none_or(|why| why.is_empty()) {
                bail!("no reason given: {line}");
            }
            match cells[..] {
                [place, field, shape, _] => allowed.rules.push(Rule {
                    place: parse_place(place).with_context(|| format!("unknown place `{place}`"))?,
                    field: field.to_ascii_lowercase(),
                    shape: parse_shape(shape).with_context(|| format!("unknown shape `{shape}`"))?,
                }),
                [key, status, _] => {
                    let status = status.parse().with_context(|| format!("`{status}` is not a status"))?;
                    if allowed.deviations.insert(key.to_owned(), status).is_some() {
                        bail!("`{key}` stands there twice");
                    }
                }
                _ => bail!("expected four cells, or three: {line}"),
            }
        }
        Ok(allowed)
    }

    /// The status that Envoy gives where a row points at this deviation.
    pub fn envoy_status(&self, deviation: &str) -> Option<u16> {
        self.deviations.get(deviation).copied()
    }

    /// The keys of all deviations.
    pub fn deviations(&self) -> impl Iterator<Item = &str> {
        self.deviations.keys().map(String::as_str)
    }

    /// May this field differ between these two values?
    pub fn permits(&self, place: Place, field: &str, left: &str, right: &str) -> bool {
        self.rules
            .iter()
            .filter(|rule| rule.place == place && rule.field.eq_ignore_ascii_case(field))
            .any(|rule| rule.shape.fits(left) && rule.shape.fits(right))
    }
}

fn parse_place(text: &str) -> Option<Place> {
    Some(match text {
        "response" => Place::Response,
        "request" => Place::Request,
        "log" => Place::Log,
        _ => return None,
    })
}

fn parse_shape(text: &str) -> Option<Shape> {
    Some(match text {
        "http-date" => Shape::HttpDate,
        "timestamp" => Shape::Timestamp,
        "digits" => Shape::Digits,
        "decimal" => Shape::Decimal,
        "uuid" => Shape::Uuid,
        "address" => Shape::Address,
        "hash-cookie" => Shape::HashCookie,
        _ => return None,
    })
}

impl Shape {
    fn fits(self, value: &str) -> bool {
        let like = |form: &str| {
            form.len() == value.len()
                && form.bytes().zip(value.bytes()).all(|(form, byte)| match form {
                    b'9' => byte.is_ascii_digit(),
                    b'A' => byte.is_ascii_alphabetic(),
                    b'f' => byte.is_ascii_hexdigit(),
                    literal => literal == byte,
                })
        };
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::HttpDate => like("AAA, 99 AAA 9999 99:99:99 GMT"),
            Self::Timestamp => like("9999-99-99T99:99:99.999Z"),
            Self::Digits => number(value),
            Self::Decimal => value.split_once('.').is_some_and(|(whole, part)| number(whole) && number(part)),
            Self::Uuid => like("ffffffff-ffff-ffff-ffff-ffffffffffff"),
            Self::Address => value.parse::<std::net::SocketAddr>().is_ok(),
            Self::HashCookie => {
                let digits = value.split('"').nth(1).unwrap_or_default();
                digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_value_may_differ_only_within_its_shape() {
        let allowed = Allowed::parse(
            "| where | field | shape | why |\n|---|---|---|---|\n| response | `date` | `http-date` | two clocks |\n",
        )
        .unwrap();
        let (one, other) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 07 Nov 1994 08:49:37 GMT");
        assert!(allowed.permits(Place::Response, "date", one, other));
        assert!(!allowed.permits(Place::Response, "date", one, "yesterday"));
        assert!(!allowed.permits(Place::Request, "date", one, other));
        assert!(!allowed.permits(Place::Response, "server", "a", "b"));
    }

    #[test]
    fn every_line_needs_a_known_shape_and_a_reason() {
        assert!(Allowed::parse("| response | date | http-date |  |\n").is_err());
        assert!(Allowed::parse("| response | date | anything | because |\n").is_err());
    }

    #[test]
    fn deviations_are_found_by_their_key() {
        let allowed =
            Allowed::parse("| deviation | envoy | why |\n|---|---|---|\n| `folded` | 200 | stricter |\n").unwrap();
        assert_eq!(allowed.envoy_status("folded"), Some(200));
        assert_eq!(allowed.envoy_status("other"), None);
        assert!(Allowed::parse("| folded | 200 |  |\n").is_err());
    }

    #[test]
    fn the_list_of_the_books_is_well_formed() {
        Allowed::load(&crate::book::folder()).unwrap();
    }
}
