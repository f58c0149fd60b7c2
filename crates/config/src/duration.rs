//! How long is `1m30s`? Durations as Istio reads them: Go's notation, of which protobuf's `1.5s` is a case.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// It is no duration at all, or lacks a unit.
    Malformed,
    /// It is below zero.
    Negative,
    /// It is longer than the 290 years that Go can hold.
    TooLong,
}

/// Reads a sequence of decimal numbers with units: `300ms`, `1.5h`, `2h45m`. Units are `ns`, `us` (or `µs`), `ms`,
/// `s`, `m`, `h`. Only `0` needs no unit. The grammar is that of Go's `time.ParseDuration`, which Istio uses.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Malformed);
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanoseconds = unit_nanoseconds(unit).ok_or(DurationError::Malformed)?;
        total = total.saturating_add(decimal(whole, fraction, nanoseconds).ok_or(DurationError::TooLong)?);
        rest = after;
    }
    let total = u64::try_from(total).ok().filter(|total| *total <= i64::MAX as u64).ok_or(DurationError::TooLong)?;
    if negative && total > 0 {
        return Err(DurationError::Negative);
    }
    Ok(Duration::from_nanos(total))
}

fn unit_nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `whole.fraction` times `unit`, rounded down. `None` when it cannot be held.
fn decimal(whole: &str, fraction: &str, unit: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { u128::from(whole.parse::<u64>().ok()?) };
    // Digits beyond the eighteenth are below a nanosecond for every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = if fraction.is_empty() {
        0
    } else {
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        u128::from(fraction.parse::<u64>().ok()?) * unit / scale
    };
    Some(whole * unit + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_every_notation_are_read() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("1ns", 1),
            ("1.5s", 1_500_000_000),
            ("1500ms", 1_500_000_000),
            ("10s", 10_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1h15m30.918s", 4_530_918_000_000),
            (".5m", 30_000_000_000),
            ("3.s", 3_000_000_000),
            ("2us", 2_000),
            ("2µs", 2_000),
            ("+1ms", 1_000_000),
            ("0.000000001s", 1),
            ("0.0000000001s", 0),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "-", "5", "s", "1.", ".s", "1 s", "1d", "1s ", "10seconds", "1e3s", "∞s", "1.5"] {
            assert_eq!(parse_duration(text), Err(DurationError::Malformed), "{text}");
        }
        assert_eq!(parse_duration("-1s"), Err(DurationError::Negative));
        assert_eq!(parse_duration("9999999h"), Err(DurationError::TooLong));
        assert_eq!(parse_duration("99999999999999999999999h"), Err(DurationError::TooLong));
    }
}
