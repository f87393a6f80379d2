//! The flags that say what becomes of a container's output.

use berth_proto::berth::v1::Log;
use clap::ValueEnum;

use crate::failure::{Failure, Outcome};
use crate::human;

/// Where the output of a container is kept.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Driver {
    /// In files of JSON, which `logs` reads
    #[default]
    JsonFile,
    /// Nowhere
    None,
}

/// An option of a log driver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Opt {
    /// Bytes of a file before the next is begun; 0 for no limit.
    MaxSize(u64),
    /// How many files are kept.
    MaxFile(u32),
}

/// The log of a container, as Docker checks it: more than one file needs a size.
pub(crate) fn log(driver: Driver, options: &[Opt]) -> Outcome<Log> {
    let mut log = Log {
        driver: match driver {
            Driver::JsonFile => "json-file",
            Driver::None => "none",
        }
        .to_owned(),
        ..Log::default()
    };
    if let (Driver::None, [_, ..]) = (driver, options) {
        return Err(Failure::new("invalid logging opts for driver none: it has none"));
    }
    for option in options {
        match *option {
            Opt::MaxSize(bytes) => log.max_size = bytes,
            Opt::MaxFile(count) => log.max_files = count,
        }
    }
    if log.max_files > 1 && log.max_size == 0 {
        return Err(Failure::new("--log-opt max-file: give max-size too, or nothing is rotated"));
    }
    Ok(log)
}

pub(crate) fn parse_option(text: &str) -> Result<Opt, String> {
    match text.split_once('=') {
        Some(("max-size", "-1")) => Ok(Opt::MaxSize(0)),
        Some(("max-size", size)) => match u64::try_from(human::parse_size(size)?) {
            Ok(bytes @ 1..) => Ok(Opt::MaxSize(bytes)),
            _ => Err(format!("max-size {size:?} is no number of bytes above 0")),
        },
        Some(("max-file", count)) => match count.parse() {
            Ok(count @ 1..) => Ok(Opt::MaxFile(count)),
            _ => Err(format!("max-file {count:?} is no number above 0")),
        },
        _ => Err("give max-size=BYTES or max-file=COUNT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_rotated_as_asked() {
        let options = ["max-size=10k", "max-file=3"].map(|text| parse_option(text).unwrap());
        assert_eq!(options, [Opt::MaxSize(10 << 10), Opt::MaxFile(3)]);
        let made = log(Driver::JsonFile, &options).unwrap();
        assert_eq!((&*made.driver, made.max_size, made.max_files), ("json-file", 10 << 10, 3));
        for text in ["max-size=0", "max-size=x", "max-file=0", "mode=non-blocking", "tag"] {
            assert!(parse_option(text).is_err(), "{text}");
        }
        assert!(log(Driver::JsonFile, &options[1..]).is_err());
        assert!(log(Driver::None, &options).is_err());
    }
}
