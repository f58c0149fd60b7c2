//! How is a moment written? `strftime` in UTC with Envoy's additions, by hand: every log line begins with a time.

use std::time::SystemTime;

const NANOS_PER_SECOND: u32 = 1_000_000_000;
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A parsed time format.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TimeFormat {
    /// `2026-11-23T04:58:59.049Z`.
    Default,
    /// What the configuration says.
    Custom(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    Number {
        field: Field,
        width: u8,
        pad: u8,
    },
    DayName {
        long: bool,
    },
    MonthName {
        long: bool,
    },
    HalfOfDay {
        upper: bool,
    },
    /// Digits of the fraction of the second.
    Fraction {
        digits: u8,
    },
    /// The fraction without its trailing zeros, with a point if there is one; absent when it is zero.
    ShortFraction {
        point: bool,
    },
    /// Seconds since 1970.
    Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Year,
    Century,
    YearOfCentury,
    IsoYear,
    IsoYearOfCentury,
    Month,
    Day,
    DayOfYear,
    Hour,
    Hour12,
    Minute,
    Second,
    /// 1 is Monday.
    IsoDay,
    /// 0 is Sunday.
    WeekDay,
    WeekFromSunday,
    WeekFromMonday,
    IsoWeek,
}

impl TimeFormat {
    /// Parses the argument of `START_TIME`: strftime letters, `%s`, `%f` and `%1f` … `%9f`. What is none of them stands
    /// for itself.
    pub(super) fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::Default;
        }
        let mut parts = Vec::new();
        parse_into(text, &mut parts);
        Self::Custom(parts)
    }

    /// Appends the text of a moment.
    pub(super) fn render(&self, moment: SystemTime, out: &mut Vec<u8>) {
        let civil = Civil::at(moment);
        match self {
            Self::Default => civil.render_default(out),
            Self::Custom(parts) => parts.iter().for_each(|part| civil.render(part, out)),
        }
    }
}

fn parse_into(text: &str, parts: &mut Vec<Part>) {
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        push_literal(parts, &rest[..percent]);
        let specifier = &rest[percent + 1..];
        let length = specifier_length(specifier);
        let (letters, after) = specifier.split_at(length);
        parse_specifier(letters, parts);
        rest = after;
    }
    push_literal(parts, rest);
}

/// How many bytes follow the `%`: one letter, or a digit or an `E` modifier with its letters.
fn specifier_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let letters = match bytes {
        [b'1'..=b'9', b'f', ..] | [b'E', b'z' | b'T', ..] | [b':', b'z', ..] => 2,
        [b'E', b'*' | b'0'..=b'9', b'S' | b'f' | b'z' | b'Y', ..] => 3,
        [] => 0,
        _ => text.chars().next().map_or(0, char::len_utf8),
    };
    letters.min(text.len())
}

fn parse_specifier(letters: &str, parts: &mut Vec<Part>) {
    let number = |field, width| Part::Number { field, width, pad: b'0' };
    let blank_padded = |field| Part::Number { field, width: 2, pad: b' ' };
    let part = match letters {
        "Y" | "E4Y" => number(Field::Year, 4),
        "C" => number(Field::Century, 2),
        "y" => number(Field::YearOfCentury, 2),
        "G" => number(Field::IsoYear, 4),
        "g" => number(Field::IsoYearOfCentury, 2),
        "m" => number(Field::Month, 2),
        "d" => number(Field::Day, 2),
        "e" => blank_padded(Field::Day),
        "j" => number(Field::DayOfYear, 3),
        "H" => number(Field::Hour, 2),
        "k" => blank_padded(Field::Hour),
        "I" => number(Field::Hour12, 2),
        "l" => blank_padded(Field::Hour12),
        "M" => number(Field::Minute, 2),
        "S" => number(Field::Second, 2),
        "u" => number(Field::IsoDay, 1),
        "w" => number(Field::WeekDay, 1),
        "U" => number(Field::WeekFromSunday, 2),
        "W" => number(Field::WeekFromMonday, 2),
        "V" => number(Field::IsoWeek, 2),
        "a" => Part::DayName { long: false },
        "A" => Part::DayName { long: true },
        "b" | "h" => Part::MonthName { long: false },
        "B" => Part::MonthName { long: true },
        "p" => Part::HalfOfDay { upper: true },
        "P" => Part::HalfOfDay { upper: false },
        "s" => Part::Epoch,
        "f" => Part::Fraction { digits: 9 },
        "E*S" => {
            parts.push(number(Field::Second, 2));
            Part::ShortFraction { point: true }
        }
        "E*f" => Part::ShortFraction { point: false },
        "F" => return parse_into("%Y-%m-%d", parts),
        "D" | "x" => return parse_into("%m/%d/%y", parts),
        "T" | "X" => return parse_into("%H:%M:%S", parts),
        "R" => return parse_into("%H:%M", parts),
        "r" => return parse_into("%I:%M:%S %p", parts),
        "c" => return parse_into("%a %b %e %H:%M:%S %Y", parts),
        "z" => return push_literal(parts, "+0000"),
        "Ez" | ":z" => return push_literal(parts, "+00:00"),
        "E*z" => return push_literal(parts, "+00:00:00"),
        "Z" => return push_literal(parts, "UTC"),
        "ET" => return push_literal(parts, "T"),
        "t" => return push_literal(parts, "\t"),
        "%" => return push_literal(parts, "%"),
        other => match other.as_bytes() {
            [digit @ b'1'..=b'9', b'f'] => Part::Fraction { digits: digit - b'0' },
            [b'E', digit @ b'0'..=b'9', b'S'] => {
                parts.push(number(Field::Second, 2));
                if *digit == b'0' {
                    return;
                }
                push_literal(parts, ".");
                Part::Fraction { digits: digit - b'0' }
            }
            [b'E', digit @ b'1'..=b'9', b'f'] => Part::Fraction { digits: digit - b'0' },
            _ => {
                push_literal(parts, "%");
                return push_literal(parts, other);
            }
        },
    };
    parts.push(part);
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Some(Part::Literal(before)) = parts.last_mut() {
        *before = [before, text.as_bytes()].concat().into();
    } else {
        parts.push(Part::Literal(text.as_bytes().into()));
    }
}

/// A moment in the Gregorian calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    epoch: i64,
    nanos: u32,
    /// Days since 1 January 1970.
    days: i64,
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Civil {
    fn at(moment: SystemTime) -> Self {
        let (epoch, nanos) = match moment.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => (seconds, 0),
                    nanos => (seconds - 1, NANOS_PER_SECOND - nanos),
                }
            }
        };
        let days = epoch.div_euclid(86_400);
        let second_of_day = epoch.rem_euclid(86_400);
        let (year, month, day) = date(days);
        Self {
            epoch,
            nanos,
            days,
            year,
            month,
            day,
            hour: (second_of_day / 3600) as u8,
            minute: (second_of_day / 60 % 60) as u8,
            second: (second_of_day % 60) as u8,
        }
    }

    /// `2026-11-23T04:58:59.049Z`.
    fn render_default(&self, out: &mut Vec<u8>) {
        if !(0..10_000).contains(&self.year) {
            push_padded(out, self.year, 4, b'0');
            push_text(out, "-");
            for (value, end) in [(self.month, "-"), (self.day, "T"), (self.hour, ":"), (self.minute, ":")] {
                push_padded(out, value.into(), 2, b'0');
                push_text(out, end);
            }
            push_padded(out, self.second.into(), 2, b'0');
            push_text(out, ".");
            push_padded(out, (self.nanos / 1_000_000).into(), 3, b'0');
            return push_text(out, "Z");
        }
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut two = |at: usize, value: u32| {
            text[at] = b'0' + (value / 10) as u8;
            text[at + 1] = b'0' + (value % 10) as u8;
        };
        let year = self.year as u32;
        let millis = self.nanos / 1_000_000;
        two(0, year / 100);
        two(2, year % 100);
        two(5, self.month.into());
        two(8, self.day.into());
        two(11, self.hour.into());
        two(14, self.minute.into());
        two(17, self.second.into());
        two(20, millis / 10);
        text[22] = b'0' + (millis % 10) as u8;
        out.extend_from_slice(&text);
    }

    fn render(&self, part: &Part, out: &mut Vec<u8>) {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Number { field, width, pad } => push_padded(out, self.field(*field), usize::from(*width), *pad),
            Part::DayName { long } => push_name(out, DAYS[self.week_day() as usize], *long),
            Part::MonthName { long } => push_name(out, MONTHS[usize::from(self.month) - 1], *long),
            Part::HalfOfDay { upper } => push_text(
                out,
                match (self.hour < 12, upper) {
                    (true, true) => "AM",
                    (false, true) => "PM",
                    (true, false) => "am",
                    (false, false) => "pm",
                },
            ),
            Part::Fraction { digits } => {
                let shown = self.nanos / 10_u32.pow(9 - u32::from(*digits));
                push_padded(out, shown.into(), usize::from(*digits), b'0');
            }
            Part::ShortFraction { point } => self.render_short_fraction(*point, out),
            Part::Epoch => push_padded(out, self.epoch, 1, b'0'),
        }
    }

    fn render_short_fraction(&self, point: bool, out: &mut Vec<u8>) {
        if self.nanos == 0 {
            // `%E*f` is a zero then, `%E*S` ends with the seconds.
            if !point {
                out.push(b'0');
            }
            return;
        }
        if point {
            out.push(b'.');
        }
        let start = out.len();
        push_padded(out, self.nanos.into(), 9, b'0');
        while out.len() > start && out.last() == Some(&b'0') {
            out.pop();
        }
    }

    fn field(&self, field: Field) -> i64 {
        match field {
            Field::Year => self.year,
            Field::Century => self.year.div_euclid(100),
            Field::YearOfCentury => self.year.rem_euclid(100),
            Field::IsoYear => self.iso_week().0,
            Field::IsoYearOfCentury => self.iso_week().0.rem_euclid(100),
            Field::Month => self.month.into(),
            Field::Day => self.day.into(),
            Field::DayOfYear => self.day_of_year() + 1,
            Field::Hour => self.hour.into(),
            Field::Hour12 => i64::from((self.hour + 11) % 12 + 1),
            Field::Minute => self.minute.into(),
            Field::Second => self.second.into(),
            Field::IsoDay => (self.week_day() + 6) % 7 + 1,
            Field::WeekDay => self.week_day(),
            Field::WeekFromSunday => (self.day_of_year() + 7 - self.week_day()) / 7,
            Field::WeekFromMonday => (self.day_of_year() + 7 - (self.week_day() + 6) % 7) / 7,
            Field::IsoWeek => self.iso_week().1,
        }
    }

    /// 0 is Sunday; 1 January 1970 was a Thursday.
    fn week_day(&self) -> i64 {
        (self.days + 4).rem_euclid(7)
    }

    /// 0 is 1 January.
    fn day_of_year(&self) -> i64 {
        self.days - days_until(self.year)
    }

    /// Year and week of ISO 8601: the week belongs to the year of its Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = self.days - (self.week_day() + 6) % 7 + 3;
        let (year, _, _) = date(thursday);
        (year, (thursday - days_until(year)) / 7 + 1)
    }
}

/// Days from 1970 to 1 January of a year.
fn days_until(year: i64) -> i64 {
    let before = year - 1;
    365 * (year - 1970) + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - (492 - 19 + 4)
}

/// The date of a day counted from 1 January 1970. Years are counted from March, so that a leap day is the last of its
/// year, and in groups of 400 years, which all have 146 097 days.
fn date(days: i64) -> (i64, u8, u8) {
    let days = days.saturating_add(719_468);
    let group = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = group * 400 + year + i64::from(month <= 2);
    (year, month as u8, day_of_month as u8)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn push_name(out: &mut Vec<u8>, name: &str, long: bool) {
    push_text(out, if long { name } else { &name[..3] });
}

fn push_padded(out: &mut Vec<u8>, value: i64, width: usize, pad: u8) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    for _ in digits.len() - at..width {
        out.push(pad);
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn render(format: &str, seconds: u64, nanos: u32) -> String {
        let mut out = Vec::new();
        let moment = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        TimeFormat::parse(format).render(moment, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_is_iso_8601_with_milliseconds() {
        assert_eq!(render("", 1_795_409_939, 49_999_999), "2026-11-23T04:58:59.049Z");
        assert_eq!(render("", 0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(render("", 951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(render("", 253_402_300_800, 0), "10000-01-01T00:00:00.000Z");
    }

    #[test]
    fn seconds_and_fractions_are_envoys() {
        assert_eq!(render("%s.%3f", 1_795_409_939, 49_123_456), "1795409939.049");
        assert_eq!(render("%f %1f %9f", 0, 123_456_789), "123456789 1 123456789");
        assert_eq!(render("%Y/%m/%dT%H:%M:%S%z", 1_795_409_939, 0), "2026/11/23T04:58:59+0000");
        assert_eq!(render("%E3S %E*S %E*S", 1, 120_000_000).as_str(), "01.120 01.12 01.12");
        assert_eq!(render("%E0S%E*S%E*f", 1, 0), "01010");
    }

    #[test]
    fn names_weeks_and_halves_follow_strftime() {
        assert_eq!(
            render("%a %A %b %B %p %I %e|%j|%u|%w", 1_795_409_939, 0),
            "Mon Monday Nov November AM 04 23|327|1|1"
        );
        assert_eq!(render("%c", 1_795_409_939, 0), "Mon Nov 23 04:58:59 2026");
        assert_eq!(render("%F %T %R %D", 1_795_409_939, 0), "2026-11-23 04:58:59 04:58 11/23/26");
        // 1 January 2027 is a Friday and belongs to the last week of 2026.
        assert_eq!(render("%G-%V %U %W", 1_798_761_600, 0), "2026-53 00 00");
        assert_eq!(render("%l %P", 46_800, 0), " 1 pm");
    }

    #[test]
    fn unknown_specifiers_stand_for_themselves() {
        for format in ["%Q", "%", "a%", "%0f", "%E", "%Eé", "%3E"] {
            assert_eq!(render(format, 0, 0), format);
        }
    }

    #[test]
    fn moments_before_1970_have_dates() {
        let mut out = Vec::new();
        TimeFormat::Default.render(SystemTime::UNIX_EPOCH - Duration::new(86_400, 1), &mut out);
        assert_eq!(out, b"1969-12-30T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn dates_agree_with_a_calendar_library(seconds in 0_i64..253_402_300_799) {
            let timestamp = jiff::Timestamp::from_second(seconds).unwrap();
            let civil = timestamp.to_zoned(jiff::tz::TimeZone::UTC).datetime();
            let ours = Civil::at(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()));
            prop_assert_eq!((ours.year, ours.month, ours.day), (
                i64::from(civil.year()), civil.month().unsigned_abs(), civil.day().unsigned_abs()));
            prop_assert_eq!(ours.day_of_year() + 1, i64::from(civil.date().day_of_year()));
            let iso = civil.date().iso_week_date();
            prop_assert_eq!(ours.iso_week(), (i64::from(iso.year()), i64::from(iso.week())));
        }

        #[test]
        fn parsing_never_panics(format in "[%A-Za-z0-9*. é]{0,12}") {
            TimeFormat::parse(&format).render(SystemTime::now(), &mut Vec::new());
        }
    }
}
