//! A command on a terminal that a test types at.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::pty::{Winsize, openpty};

use crate::process::wait_until;

/// A command in a session of its own, whose standard streams are its controlling terminal of 33
/// rows and 99 columns.
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts `command`, through setsid(1) for the session and the controlling terminal.
    pub fn start(command: Command) -> Self {
        let line = format!("{command:?}");
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("share the terminal"));
        session.stdin(end()).stdout(end()).stderr(end());
        let child = session.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        // The command keeps copies until it is dropped: the terminal would never end.
        drop(session);
        drop(pty.slave);
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().expect("share the terminal");
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let copy = shown.clone();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // It ends with EIO when the last program has left the terminal.
            while let Ok(length @ 1..) = screen.read(&mut chunk) {
                let mut shown = copy.lock().unwrap_or_else(PoisonError::into_inner);
                shown.extend_from_slice(&chunk[..length]);
            }
        });
        Self { child, keys, shown, reader }
    }

    /// What was shown so far.
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until `text` is shown.
    pub fn shows(&self, text: &str) {
        wait_until(&format!("{text:?} on the terminal"), || self.shown().contains(text));
    }

    /// Presses keys.
    pub fn types(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("type");
    }

    /// Makes the window another size: the kernel tells the foreground processes.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.keys, size).expect("resize the terminal");
    }

    /// Waits for the end of the command and of what it shows, and answers its exit status.
    pub fn ends(&mut self) -> i32 {
        let mut status = None;
        wait_until("the command on the terminal to end", || {
            status = status.or(self.child.try_wait().expect("look at a child"));
            status.is_some() && self.reader.is_finished()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
