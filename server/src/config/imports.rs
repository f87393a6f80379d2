//! Further files of one configuration.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use berth_types::{Error, Result, ResultExt};

use super::load::parse;

/// The most files that one configuration consists of; more of them import each other.
const MOST: usize = 64;

/// Adds to `table`, the content of the file at `path`, what the files say that it imports, and
/// those that they import. What comes later counts; tables are merged.
///
/// # Errors
/// As for the file itself, naming the file that is at fault.
pub(super) fn merge(mut table: Table, path: &Path) -> Result<Table> {
    let mut waiting = named(&table, path)?;
    let mut read = 0;
    while !waiting.is_empty() {
        let path = waiting.remove(0);
        read += 1;
        if read > MOST {
            return Err(Error::invalid_argument(format!(
                "more than {MOST} files are imported: {} imports another again",
                path.display()
            )));
        }
        let what = || format!("imported file {}", path.display());
        let text = fs::read_to_string(&path).context(what)?;
        let imported = parse(&text).context(what)?;
        waiting.extend(named(&imported, &path)?);
        overlay(&mut table, imported);
    }
    Ok(table)
}

/// The files that a file imports, in order of their names where `*` names several.
fn named(table: &Table, importer: &Path) -> Result<Vec<PathBuf>> {
    let patterns = table.get("imports").and_then(Value::as_array).into_iter().flatten();
    let mut found = Vec::new();
    for pattern in patterns.filter_map(Value::as_str) {
        let pattern = importer.parent().unwrap_or(Path::new("/")).join(pattern);
        found.extend(matching(&pattern)?);
    }
    Ok(found)
}

/// The files that a pattern names; a pattern without `*` names one that must be there.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned());
    let (Some(name), Some(directory)) = (name, pattern.parent()) else { return Ok(Vec::new()) };
    let Some((before, after)) = name.split_once('*') else { return Ok(vec![pattern.to_owned()]) };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(|| format!("list {}", directory.display()))?,
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names
        .filter(|name| name.len() >= before.len() + after.len())
        .filter(|name| name.starts_with(before) && name.ends_with(after))
        .collect();
    names.sort_unstable();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Puts `upper` over `lower`: tables are merged, anything else is replaced.
fn overlay(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => overlay(lower, upper),
            // Who imports whom is of one file alone.
            (_, _) if key == "imports" => {}
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_types::Kind;

    use super::super::load;
    use super::*;

    #[test]
    fn imported_files_are_read_in_order_and_the_last_word_counts() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("main.toml", "imports = [\"conf.d/*.toml\", \"none/*.toml\"]\n[grpc]\nuid = 1\n");
        write("conf.d/2.toml", "root = \"/two\"\n[runtimes]\nb = \"/b\"\n");
        write("conf.d/1.toml", "root = \"/one\"\n[grpc]\ngid = 7\n[runtimes]\na = \"/a\"\n");
        write("conf.d/3.other", "root = 5");
        let (config, unknown) = load(&directory.path().join("main.toml")).unwrap();
        assert_eq!(config.root, Path::new("/two"));
        assert_eq!((config.grpc.uid, config.grpc.gid, config.runtimes.len()), (1, 7, 2));
        assert!(unknown.is_empty(), "{unknown:?}");

        write("conf.d/2.toml", "root = 5\n");
        let error = load(&directory.path().join("main.toml")).unwrap_err();
        assert!(
            error.message().contains("2.toml") && error.message().contains("line 1"),
            "{error}"
        );
        write("conf.d/2.toml", "imports = [\"2.toml\"]\n");
        let error = load(&directory.path().join("main.toml")).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    }
}
