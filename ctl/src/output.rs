//! What a command says itself. Its reader may have gone, as `head` does when it has seen enough:
//! that is no failure.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints one line, or several, on standard output.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints one line, or several, on standard error.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
