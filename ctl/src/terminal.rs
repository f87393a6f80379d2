//! The user's terminal: raw mode and window size (termios(3), tty_ioctl(4)).

use std::io::{self, IsTerminal};

use berth_proto::berth::v1::WindowSize;
use rustix::termios::{self, OptionalActions, Termios};

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The window size of the terminal on standard output, if it is one.
pub(crate) fn window_size() -> Option<WindowSize> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0)
        .then(|| WindowSize { width: size.ws_col.into(), height: size.ws_row.into() })
}

/// A terminal in raw mode, which it leaves when dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Puts the terminal on standard input into raw mode: each key goes to the container.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
