//! The variables of a new process: from the command line and from files.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Outcome};

/// What is to be in the environment.
#[derive(Args, Debug)]
pub(crate) struct Environment {
    /// Set environment variables; a name alone takes the value that it has here
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_named)]
    env: Vec<String>,
    /// Read environment variables from a file with one on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl Environment {
    /// The variables as `KEY=VALUE`, those of files first: later ones count. Names without a value
    /// are completed from this command's environment, and left out where they are unset.
    pub(crate) fn variables(self) -> Outcome<Vec<String>> {
        let mut typed = Vec::new();
        for file in &self.env_file {
            typed.extend(read(file)?);
        }
        typed.extend(self.env);
        Ok(typed.into_iter().filter_map(complete).collect())
    }
}

fn complete(variable: String) -> Option<String> {
    match variable.contains('=') {
        true => Some(variable),
        false => std::env::var(&variable).ok().map(|value| format!("{variable}={value}")),
    }
}

/// `KEY` or `KEY=VALUE`.
pub(crate) fn parse_named(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        None | Some("") => Err("it has no name: give KEY or KEY=VALUE".to_owned()),
        Some(_) => Ok(text.to_owned()),
    }
}

fn read(file: &Path) -> Outcome<Vec<String>> {
    let failed = |why: String| Failure::new(format!("--env-file {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    parse_lines(&text).map_err(failed)
}

/// As Docker: what follows `=` is the value, quotes and blanks and all; a line that begins with
/// `#` is a comment.
fn parse_lines(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        let wrong = |why| format!("line {}: {line:?} {why}", index + 1);
        if name.is_empty() {
            return Err(wrong("has no name: write KEY=VALUE"));
        }
        // A name alone may have blanks after it.
        let alone = name.trim_end();
        if name.len() == line.len() && !alone.contains(char::is_whitespace) {
            variables.push(alone.to_owned());
        } else if name.contains(char::is_whitespace) {
            return Err(wrong("has blanks in its name"));
        } else {
            variables.push(line.to_owned());
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_labels_have_a_name() {
        assert_eq!(parse_named("A=b=c"), Ok("A=b=c".to_owned()));
        assert_eq!(parse_named("A"), Ok("A".to_owned()));
        for text in ["", "=", "=x"] {
            assert!(parse_named(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unset_variables_are_left_out() {
        let env = vec!["A=b".to_owned(), "SURELY_NOT_SET_ANYWHERE".to_owned()];
        let environment = Environment { env, env_file: Vec::new() };
        assert_eq!(environment.variables().expect("variables"), ["A=b"]);
    }

    #[test]
    fn files_have_a_variable_on_each_line() {
        let text = "\u{feff}A=1\n\n# B=2\n  C= \"3\" \nD=\nE \r\nF=x=y\r\n";
        assert_eq!(parse_lines(text).unwrap(), ["A=1", "C= \"3\" ", "D=", "E", "F=x=y"]);
        for text in ["=1", "A B=1", "A B", "A =1"] {
            assert!(parse_lines(text).is_err(), "{text}");
        }
        let missing = Environment { env: Vec::new(), env_file: vec!["/nowhere".into()] };
        assert!(missing.variables().unwrap_err().to_string().contains("/nowhere"));
    }
}
