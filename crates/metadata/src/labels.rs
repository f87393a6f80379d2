//! Labels of records: checked, updated by field masks, looked up by filters.

use std::collections::HashMap;
use std::time::SystemTime;

use berth_types::{Error, Result, labels};
use prost_types::Timestamp;

/// Labels as the wire has them.
pub(crate) type Map = HashMap<String, String>;

/// Checks labels and drops those without a value, which is how clients remove one.
///
/// # Errors
/// `InvalidArgument` when one is too long.
pub(crate) fn check(map: &mut Map) -> Result<()> {
    for (key, value) in map.iter() {
        labels::validate(key, value)?;
    }
    map.retain(|_, value| !value.is_empty());
    Ok(())
}

/// Applies `path` of a field mask to a map called `name`: the whole map for `name`, one entry for
/// `name.KEY`, where `KEY` may have dots. False when the path is about something else.
pub(crate) fn apply<V: Clone>(
    path: &str,
    name: &str,
    to: &mut HashMap<String, V>,
    from: &HashMap<String, V>,
) -> bool {
    let Some(rest) = path.strip_prefix(name) else { return false };
    if rest.is_empty() {
        to.clone_from(from);
        return true;
    }
    let Some(key) = rest.strip_prefix('.') else { return false };
    match from.get(key) {
        Some(value) => to.insert(key.to_owned(), value.clone()),
        None => to.remove(key),
    };
    true
}

/// Applies a field mask to a record of which only labels can be changed; no paths replace all.
///
/// # Errors
/// `InvalidArgument` for any other path, and when a label is too long.
pub(crate) fn update(noun: &str, paths: &[String], to: &mut Map, from: &Map) -> Result<()> {
    if paths.is_empty() {
        to.clone_from(from);
    }
    for path in paths {
        if !apply(path, "labels", to, from) {
            return Err(immutable(noun, path));
        }
    }
    check(to)
}

pub(crate) fn immutable(noun: &str, path: &str) -> Error {
    Error::invalid_argument(format!("cannot update {path:?} field on {noun}"))
}

/// The value that a filter's path means within a map.
pub(crate) fn field<'a>(path: &[String], map: &'a Map) -> Option<&'a str> {
    map.get(&path.join(".")).map(String::as_str)
}

/// The text, unless it is empty, which filters take for absent.
pub(crate) fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

pub(crate) fn now() -> Option<Timestamp> {
    Some(SystemTime::now().into())
}

#[cfg(test)]
mod tests {
    use berth_types::Kind;

    use super::*;

    fn map(entries: &[(&str, &str)]) -> Map {
        entries.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn masks_replace_set_and_remove() {
        let from = map(&[("a.b/c", "new"), ("x", "1"), ("gone", "")]);
        let mut to = map(&[("a.b/c", "old"), ("gone", "1"), ("away", "1"), ("kept", "1")]);
        let paths = ["labels.a.b/c", "labels.gone", "labels.away"].map(String::from);
        update("image", &paths, &mut to, &from).unwrap();
        assert_eq!(to, map(&[("a.b/c", "new"), ("kept", "1")]));
        update("image", &["labels".into()], &mut to, &from).unwrap();
        assert_eq!(to, map(&[("a.b/c", "new"), ("x", "1")]));
        update("image", &[], &mut to, &map(&[])).unwrap();
        assert!(to.is_empty());
    }

    #[test]
    fn other_paths_are_refused() {
        for path in ["", "label", "labelsx", "labelsx.a", "name", "size"] {
            let error = update("image", &[path.into()], &mut map(&[]), &map(&[])).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{path}");
        }
        let long = map(&[("k", &"v".repeat(labels::MAX_LENGTH))]);
        assert!(update("image", &[], &mut map(&[]), &long).is_err());
    }
}
