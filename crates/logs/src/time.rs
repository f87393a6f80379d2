//! Points in time as Docker writes them: RFC 3339 in UTC, as many decimals as needed.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// Appends `time` as `2026-01-02T03:04:05.000000006Z`. Times before 1970 are written as 1970.
pub fn format(time: SystemTime, out: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = date(since.as_secs() / DAY);
    let second = since.as_secs() % DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Writing to a vector can't fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() > 0 {
        let _ = write!(out, ".{:09}", since.subsec_nanos());
        while out.ends_with(b"0") {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// Reads what [`format()`] writes; `None` for anything else, offsets from UTC included.
pub fn parse(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// Days before the first of each month in a year that starts in March, so that the leap day comes
/// last: 153 days make five months, whatever the place of the group.
fn days_before(month_from_march: u64) -> u64 {
    (153 * month_from_march + 2) / 5
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    // 719,468 days separate 0000-03-01 from 1970-01-01.
    year * 365 + leaps + days_before(month) + day - 1 - 719_468
}

/// The inverse of [`days`].
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let century = (days * 4 + 3) / 146_097;
    let in_century = days - century * 146_097 / 4;
    let year = (in_century * 4 + 3) / 1461;
    let in_year = in_century - year * 1461 / 4;
    let month = (in_year * 5 + 2) / 153;
    let day = in_year - days_before(month) + 1;
    let (year, month) = (century * 100 + year, month + 3);
    if month > 12 { (year + 1, month - 12, day) } else { (year, month, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(seconds: u64, nanos: u32) -> String {
        let mut out = Vec::new();
        format(UNIX_EPOCH + Duration::new(seconds, nanos), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn formats_as_docker_does() {
        assert_eq!(formatted(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(formatted(951_782_399, 0), "2000-02-28T23:59:59Z");
        assert_eq!(formatted(951_782_400, 120_000_000), "2000-02-29T00:00:00.12Z");
        assert_eq!(formatted(4_107_542_400, 6), "2100-03-01T00:00:00.000000006Z");
    }

    #[test]
    fn every_day_of_eight_centuries_round_trips() {
        for day in 0..8 * 146_097 / 4 {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
            let text = formatted(day * DAY + 3661, 7);
            assert_eq!(parse(&text), Some(UNIX_EPOCH + Duration::new(day * DAY + 3661, 7)));
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "Z",
            "T",
            "2026-01-02",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
