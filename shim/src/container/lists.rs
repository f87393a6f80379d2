//! Lists of processors and memory nodes, as the kernel writes them: `0-3,7`.

use berth_types::{Error, Result};

/// No number above is read: there are no machines with more.
const MAX: usize = 8191;

/// The numbers in `list`, the value of `field`.
///
/// # Errors
/// InvalidArgument when it is no list.
pub(super) fn parse(field: &str, list: &str) -> Result<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last && last <= MAX => numbers.extend(first..=last),
            _ => {
                let message = format!("{field} {list:?} is no list of numbers such as 0-3,7");
                return Err(Error::invalid_argument(message));
            }
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(parse("f", "0-2,7, 9").unwrap(), [0, 1, 2, 7, 9]);
        for bad in ["", "a", "3-1", "-1", "1-", "0-99999999", "1,,2"] {
            assert!(parse("f", bad).is_err(), "{bad}");
        }
    }
}
