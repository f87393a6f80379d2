//! Sizes and times as people read and write them, in Docker's words.

use jiff::Timestamp;

/// Bytes with a decimal unit and three or four significant figures, as in `1.23MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", significant(value, 3), UNITS[unit])
}

/// Bytes with a binary unit, as in `1.95GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{}{}", significant(value, 4), UNITS[unit])
}

/// `value` with `figures` significant figures and no trailing zeros.
fn significant(value: f64, figures: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = (figures - 1 - value.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Bytes from text such as `512m` or `1.5g`: binary units, as Docker takes them.
pub(crate) fn parse_size(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: {text:?}: give a number with b, k, m, g or t");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &lower[digits.len()..];
    let shift = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(invalid()),
    };
    let value: f64 = digits.trim().parse().map_err(|_| invalid())?;
    let bytes =
        value * f64::from(1u32 << (shift % 30)) * if shift >= 30 { 1073741824.0 } else { 1.0 };
    if !(0.0..9.0e18).contains(&bytes) {
        return Err(invalid());
    }
    Ok(bytes as i64)
}

/// Foreign text with its control characters escaped: on a terminal they could do anything, such
/// as hide what is printed next.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

/// A span of time in one unit, as in `About a minute` or `3 hours`.
pub(crate) fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// When something was, as in `3 hours ago`; `N/A` where nobody knows. Images that are built the
/// same every time say 1970.
pub(crate) fn ago(then: Option<prost_types::Timestamp>) -> String {
    match then {
        Some(at) if at.seconds > 0 => format!("{} ago", since(then)),
        _ => "N/A".to_owned(),
    }
}

/// The time since `then`, as [`duration`] words it.
pub(crate) fn since(then: Option<prost_types::Timestamp>) -> String {
    let then = then.map_or(0, |then| then.seconds);
    duration(Timestamp::now().as_second().saturating_sub(then))
}

/// RFC 3339 with nanoseconds; the year 1 for a time that never was, as Docker writes it.
pub(crate) fn rfc3339(at: Option<prost_types::Timestamp>) -> String {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string())
}

/// A time from text: RFC 3339, the same without a zone for this machine's, a date for its first
/// moment here, seconds since 1970, or a span before now such as `10m`.
pub(crate) fn parse_time(text: &str) -> Result<prost_types::Timestamp, String> {
    let at = if let Ok(seconds) = text.parse::<i64>() {
        Timestamp::from_second(seconds).map_err(|error| error.to_string())?
    } else if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else if let Ok(here) = text.parse::<jiff::civil::DateTime>() {
        jiff::tz::TimeZone::system().to_timestamp(here).map_err(|error| error.to_string())?
    } else if let Ok(span) = text.parse::<jiff::SignedDuration>() {
        Timestamp::now().checked_sub(span).map_err(|error| error.to_string())?
    } else {
        return Err(format!(
            "invalid time {text:?}: give a date, RFC 3339, seconds or a span such as 10m"
        ));
    };
    Ok(prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_234_567, "1.23MB"),
            (77_800_000, "77.8MB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(25_000_000_000), "23.28GiB");
    }

    #[test]
    fn sizes_are_parsed() {
        let cases =
            [("64m", 64 << 20), ("1g", 1 << 30), ("1.5k", 1536), ("7", 7), ("2GiB", 2 << 30)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "nan", "99999999999t"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(printable("docker.io/é:1 \"x\""), "docker.io/é:1 \"x\"");
        assert_eq!(printable("a\x1b[2J\nb\u{9b}"), r"a\u{1b}[2J\nb\u{9b}");
    }

    #[test]
    fn durations() {
        let cases = [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 21, "3 weeks"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn what_never_was_is_not_long_ago() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        assert_eq!((ago(None).as_str(), ago(at(0)).as_str()), ("N/A", "N/A"));
        assert!(ago(at(1)).ends_with(" years ago"));
    }

    #[test]
    fn times_are_parsed() {
        assert_eq!(parse_time("12").map(|at| at.seconds), Ok(12));
        assert_eq!(parse_time("1970-01-01T00:00:05Z").map(|at| at.seconds), Ok(5));
        assert!(parse_time("10m").is_ok());
        let (day, noon) = (parse_time("2026-11-24").unwrap(), parse_time("2026-11-24T12:00:00"));
        assert_eq!(noon.unwrap().seconds - day.seconds, 12 * 3600);
        assert!(parse_time("yesterday").is_err());
    }
}
