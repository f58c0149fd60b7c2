//! How does Envoy write floating-point numbers? Like `%g`, like `%.32g`, or as short as JSON allows.

/// Six significant digits, as C's `%g` writes them: `0.5`, `60000`, `1.8e+06`.
pub(super) fn general(value: f64) -> String {
    significant(value, 6)
}

/// As C's `%.<digits>g`: scientific where the exponent is below −4 or not below the digits, trailing zeros dropped.
pub(super) fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return non_finite(value);
    }
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        return format!("{}e{}", trim(mantissa), signed(exponent));
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{value:.decimals$}")).to_owned()
}

/// The shortest text that reads back as the same number; fixed unless scientific is shorter: `10000`, `3e+05`.
pub(super) fn shortest(value: f64) -> String {
    if !value.is_finite() {
        return non_finite(value);
    }
    let fixed = value.to_string();
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return fixed;
    };
    let scientific = format!("{mantissa}e{}", signed(exponent.parse().unwrap_or(0)));
    if scientific.len() < fixed.len() { scientific } else { fixed }
}

fn non_finite(value: f64) -> String {
    match value {
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        _ => "nan".into(),
    }
}

fn trim(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

fn signed(exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_envoy_printed_them() {
        let general = [0.5, 1.0, 2500.0, 600_000.0, 1_800_000.0, 3_600_000.0, 0.0, f64::NAN].map(general);
        assert_eq!(general, ["0.5", "1", "2500", "600000", "1.8e+06", "3.6e+06", "0", "nan"]);
        let shortest = [0.5, 10_000.0, 60_000.0, 300_000.0, 600_000.0, 1_800_000.0, 1.05].map(shortest);
        assert_eq!(shortest, ["0.5", "10000", "60000", "3e+05", "6e+05", "1800000", "1.05"]);
        assert_eq!(significant(10.476190476190476, 32), "10.476190476190476275064611400012");
        assert_eq!(significant(16.484848484848484, 32), "16.484848484848484417852887418121");
        assert_eq!(significant(409.051_279_115_178_83, 32), "409.05127911517882921543787233531");
        assert_eq!(significant(0.0, 32), "0");
        assert_eq!(significant(1e-5, 6), "1e-05");
    }
}
