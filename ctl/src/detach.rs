//! Detach keys: the key sequence that leaves a container running and ends the attachment.

use std::str::FromStr;

/// A key sequence such as `ctrl-p,ctrl-q`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(key).collect::<Result<Vec<u8>, String>>().map(Self)
    }
}

/// The byte of one key: a character, or `ctrl-` with a letter or one of `@[\]^_`.
fn key(name: &str) -> Result<u8, String> {
    let unknown = || format!("{name:?} is not a key: give a character or ctrl-<value>");
    let byte = name.strip_prefix("ctrl-").unwrap_or(name);
    let &[byte] = byte.as_bytes() else { return Err(unknown()) };
    if !name.starts_with("ctrl-") {
        return Ok(byte);
    }
    match byte.to_ascii_uppercase() {
        upper @ b'@'..=b'_' => Ok(upper - b'@'),
        _ => Err(unknown()),
    }
}

/// Looks for the sequence in what the user types. Keys that may begin it are held back until it
/// is clear whether they do.
#[derive(Debug)]
pub(crate) struct DetachFilter {
    keys: DetachKeys,
    matched: usize,
}

/// What the filter made of some input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    /// What the container gets.
    pub(crate) pass: Vec<u8>,
    /// The whole sequence was typed; nothing after it counts.
    pub(crate) detach: bool,
}

impl DetachFilter {
    /// A filter that has seen nothing.
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes in what was typed.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> Filtered {
        let mut pass = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.keys.0[self.matched] != byte {
                pass.extend_from_slice(&self.keys.0[..self.matched]);
                self.matched = 0;
            }
            if self.keys.0[self.matched] == byte {
                self.matched += 1;
            } else {
                pass.push(byte);
            }
            if self.matched == self.keys.0.len() {
                return Filtered { pass, detach: true };
            }
        }
        Filtered { pass, detach: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(filter: &mut DetachFilter, typed: &[u8]) -> (Vec<u8>, bool) {
        let filtered = filter.feed(typed);
        (filtered.pass, filtered.detach)
    }

    #[test]
    fn the_default_sequence_detaches_across_reads() {
        let mut filter = DetachFilter::new(DetachKeys::default());
        assert_eq!(feed(&mut filter, b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(feed(&mut filter, b"\x11rest"), (Vec::new(), true));
    }

    #[test]
    fn held_keys_are_given_up_when_the_sequence_breaks() {
        let mut filter = DetachFilter::new(DetachKeys::default());
        assert_eq!(feed(&mut filter, b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(feed(&mut filter, b"\x10\x10\x11"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn sequences_are_parsed() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        assert_eq!("ctrl-@,x".parse(), Ok(DetachKeys(vec![0, b'x'])));
        assert!("".parse::<DetachKeys>().is_err());
        assert!("ctrl-!".parse::<DetachKeys>().is_err());
        assert!("ab".parse::<DetachKeys>().is_err());
    }
}
