//! Names and ids of containers.

use berth_types::{Error, Result};

/// How many names are made up for one container; with a few thousand in use, one of them is free.
const ATTEMPTS: usize = 8;

const ADJECTIVES: [&str; 48] = [
    "agile", "amber", "ample", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
    "cheerful", "clear", "coastal", "crisp", "daring", "eager", "earnest", "fair", "fearless",
    "gentle", "glad", "golden", "hardy", "honest", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "mellow", "merry", "mighty", "modest", "nimble", "patient", "placid", "proud",
    "quick", "quiet", "salty", "serene", "silver", "steady", "sturdy", "sunny", "swift", "tidy",
];

const NOUNS: [&str; 64] = [
    "albatross",
    "anchor",
    "barge",
    "barnacle",
    "barque",
    "beacon",
    "bollard",
    "bosun",
    "bowline",
    "breeze",
    "buoy",
    "caravel",
    "clipper",
    "compass",
    "coral",
    "cormorant",
    "corvette",
    "crane",
    "current",
    "cutter",
    "dinghy",
    "dolphin",
    "ferry",
    "fjord",
    "frigate",
    "galleon",
    "gannet",
    "grebe",
    "gull",
    "halyard",
    "harbour",
    "heron",
    "jetty",
    "kayak",
    "keel",
    "kelp",
    "ketch",
    "lagoon",
    "lantern",
    "lighthouse",
    "lugger",
    "mariner",
    "narwhal",
    "oyster",
    "pelican",
    "petrel",
    "pilot",
    "porpoise",
    "puffin",
    "quay",
    "rudder",
    "sailor",
    "schooner",
    "sextant",
    "skipper",
    "sloop",
    "spinnaker",
    "tern",
    "tide",
    "trawler",
    "tugboat",
    "walrus",
    "wharf",
    "yawl",
];

/// The names that a new container may get, in the order in which they are tried: the one that was
/// asked for, or made-up ones.
///
/// # Errors
/// `InvalidArgument`, in Docker's words, for a malformed name.
pub(crate) fn candidates(wanted: &str) -> Result<Vec<String>> {
    if wanted.is_empty() {
        return (0..ATTEMPTS).map(made_up).collect();
    }
    validate(wanted)?;
    Ok(vec![wanted.to_owned()])
}

fn validate(name: &str) -> Result<()> {
    let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if begins && name.len() <= 255 && name.bytes().all(rest) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(Error::invalid_argument(format!(
        "Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 255 of them \
         at most"
    )))
}

/// An adjective and a noun; from the second attempt on with a number, as Docker does.
fn made_up(attempt: usize) -> Result<String> {
    let number = random()?;
    let adjective = ADJECTIVES[(number & 0xffff) as usize % ADJECTIVES.len()];
    let noun = NOUNS[(number >> 16 & 0xffff) as usize % NOUNS.len()];
    Ok(match attempt {
        0 | 1 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}{}", (number >> 32) % 10_000),
    })
}

/// A new id, as Docker has them: 64 hexadecimal digits.
///
/// # Errors
/// `Internal` when the kernel gives no random numbers.
pub(crate) fn new_id() -> Result<String> {
    let parts = [random()?, random()?, random()?, random()?];
    Ok(parts.map(|part| format!("{part:016x}")).concat())
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| Error::internal(format!("no random numbers: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_names_are_accepted_and_others_refused() {
        for name in ["a", "web-1", "A_b.c", "0x", &"n".repeat(255)] {
            assert_eq!(candidates(name).unwrap(), [name]);
        }
        for name in ["-a", ".a", "_a", "a b", "a/b", "é", "a\n", &"n".repeat(256)] {
            assert!(candidates(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn made_up_names_and_ids_are_acceptable_and_new() {
        let names = candidates("").unwrap();
        assert!(names.iter().all(|name| validate(name).is_ok()), "{names:?}");
        assert!(names.iter().any(|name| *name != names[0]));
        let id = new_id().unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, new_id().unwrap());
    }
}
