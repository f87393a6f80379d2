//! Closing a descriptor elsewhere.
//!
//! The last close of a file may take long: that of the last descriptor into an unmounted overlay
//! writes its upper filesystem to disk first.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::pipe::PipeFlags;

use crate::clone::{self, Child, Options};

/// Closes `fd` so that a child, not the caller, makes the last close. The child has no other
/// descriptor of the caller's, and its end raises `SIGCHLD`.
///
/// # Errors
/// Those of `pipe(2)` and of [`clone::spawn`]; `fd` is then closed here.
pub fn in_child(fd: OwnedFd) -> io::Result<Child> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let child = clone::spawn(Options::default(), || {
        keep_only(fd.as_raw_fd(), reader.as_raw_fd());
        wait_for_end(&reader);
        0
    })?;
    // The child's copy is there. It goes when the child has read the end of the pipe, which is
    // after the caller's copy is gone.
    drop(fd);
    drop(writer);
    Ok(child)
}

fn wait_for_end(reader: &OwnedFd) {
    while let Ok(1..) | Err(rustix::io::Errno::INTR) = rustix::io::read(reader, &mut [0; 1]) {}
}

/// Closes every descriptor but two. Only for the child, whose owners of the others never run: it
/// exits without going back into the code that it was cloned from.
fn keep_only(one: RawFd, other: RawFd) {
    let (first, second) = (one.min(other), one.max(other));
    for (from, to) in [(0, first - 1), (first + 1, second - 1), (second + 1, RawFd::MAX)] {
        if from <= to {
            // SAFETY: the descriptors in this range belong to values of the parent's, of which
            // this child has copies that it never touches again (see above).
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    }
}
