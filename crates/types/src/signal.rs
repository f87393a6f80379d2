//! Signals by name and number, as signal(7) and Docker have them. The numbers are those of x86
//! and ARM.

use crate::{Error, Result};

/// The signal that asks a process to end.
pub const SIGTERM: i32 = 15;

/// The signal that ends a process.
pub const SIGKILL: i32 = 9;

/// The first and the last real-time signal that programs may use: the C library keeps two.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Names without `SIG`; the first of a number is its usual one.
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", SIGKILL),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", SIGTERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];

/// The number of a signal given as `SIGTERM`, `TERM`, `term`, `15` or `RTMIN+3`.
///
/// # Errors
/// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when there is no such signal.
pub fn parse(text: &str) -> Result<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    known.or_else(|| real_time(name)).or_else(|| number(&upper)).ok_or_else(|| {
        Error::invalid_argument(format!(
            "invalid signal {text:?}: use a name such as SIGTERM or a number from 1 to 64"
        ))
    })
}

fn number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number| (1..=*REAL_TIME.end()).contains(number))
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-2`
fn real_time(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => REAL_TIME.start() + offset(rest, '+')?,
        (_, Some(rest)) => REAL_TIME.end() - offset(rest, '-')?,
        _ => return None,
    };
    REAL_TIME.contains(&number).then_some(number)
}

/// The usual name of a signal, `SIGTERM` or `SIGRTMIN+3`; `None` for numbers that are none.
pub fn name(number: i32) -> Option<String> {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => Some(format!("SIG{name}")),
        None if number == *REAL_TIME.start() => Some("SIGRTMIN".to_owned()),
        None if REAL_TIME.contains(&number) => {
            Some(format!("SIGRTMIN+{}", number - REAL_TIME.start()))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_accepts() {
        for text in ["SIGTERM", "TERM", "term", "sigterm", "15", " 15 "] {
            assert_eq!(parse(text).unwrap(), SIGTERM, "{text}");
        }
        let pairs = [("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("64", 64), ("POLL", 29)];
        for (text, number) in pairs {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in ["", "SIG", "0", "-9", "65", "NOPE", "RTMIN+31", "RTMIN-1", "RTMAX+1", "SIG9"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_lead_back() {
        for number in (1..=31).chain(34..=64) {
            assert_eq!(parse(&name(number).unwrap()).unwrap(), number);
        }
        assert_eq!(name(32), None);
        assert_eq!(name(17).unwrap(), "SIGCHLD");
    }
}
