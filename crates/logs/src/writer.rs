//! Writing a log, in the shim.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use berth_types::{Error, Result, ResultExt};

use crate::entry::{Format, Stream};
use crate::files::aged;

/// A longer line is cut into entries of this many bytes, as Docker cuts it.
pub const MAX_LINE: usize = 16 * 1024;

/// How long a file that could not be written is left alone: on a full disk each attempt may keep the
/// kernel busy for a while, looking for room.
const PAUSE: Duration = Duration::from_millis(200);

/// How much is kept in memory while the file can't be written, in bytes.
const MAX_BEHIND: usize = 256 * 1024;

/// When a log starts a new file, and how many it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A new file is started once the current one has this many bytes; `None` for never.
    pub max_size: Option<u64>,
    /// Files kept, the current one among them; 0 counts as 1.
    pub max_files: u32,
}

impl Default for Rotation {
    /// Docker's default: one file that grows.
    fn default() -> Self {
        Self { max_size: None, max_files: 1 }
    }
}

/// The only writer of a log.
///
/// A file that can't be written (full disk) stops nothing: up to 256 KiB wait in memory and are
/// written later, exactly where they belong; what comes beyond is counted and the count is logged.
pub struct Writer {
    path: PathBuf,
    format: Format,
    rotation: Rotation,
    file: File,
    size: u64,
    /// Begun lines of standard output and standard error.
    begun: [Vec<u8>; 2],
    /// Encoded entries that aren't in the file yet.
    behind: Vec<u8>,
    lost: u64,
    /// When the file could not be written, and has not been since.
    failed: Option<Instant>,
}

impl Writer {
    /// Opens the log at `path` to append to it, or makes it (mode 0640).
    ///
    /// # Errors
    /// As [`berth_types::Error::io`].
    pub fn open(path: &Path, format: Format, rotation: Rotation) -> Result<Self> {
        let (file, size) = open(path, false).context(|| format!("open log {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            format,
            rotation,
            file,
            size,
            begun: [Vec::new(), Vec::new()],
            behind: Vec::new(),
            lost: 0,
            failed: None,
        })
    }

    /// Logs what a process wrote at `time`. An unfinished line is kept for the next call.
    ///
    /// # Errors
    /// The file can't be written now. Nothing is lost by that: see [`Writer::flush`].
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], time: SystemTime) -> Result<()> {
        let mut begun = std::mem::take(&mut self.begun[stream as usize]);
        while !bytes.is_empty() {
            let room = MAX_LINE - begun.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let length = end.unwrap_or_else(|| bytes.len().min(room));
            let (line, rest) = bytes.split_at(length);
            let full = length == room;
            if end.is_none() && !full {
                begun.extend_from_slice(line);
                break;
            }
            bytes = &rest[usize::from(end.is_some())..];
            if begun.is_empty() {
                self.entry(stream, line, end.is_some(), time);
            } else {
                begun.extend_from_slice(line);
                self.entry(stream, &begun, end.is_some(), time);
                begun.clear();
            }
        }
        // A line that is through leaves no buffer behind: most containers are silent.
        self.begun[stream as usize] = if begun.is_empty() { Vec::new() } else { begun };
        self.flush_if_due()
    }

    /// Logs the rest of a stream that ended without a newline.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn end(&mut self, stream: Stream, time: SystemTime) -> Result<()> {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        if !begun.is_empty() {
            self.entry(stream, &begun, false, time);
        }
        self.flush_if_due()
    }

    /// Writes what could not be written before. To be called now and then while
    /// [`Writer::is_behind`].
    ///
    /// # Errors
    /// The file still can't be written.
    pub fn flush(&mut self) -> Result<()> {
        if self.behind.is_empty() {
            return Ok(());
        }
        let written = self.drain();
        if written.is_ok() && self.lost > 0 {
            let note = format!("berth: {} log entries were lost here", self.lost);
            self.lost = 0;
            let now = SystemTime::now();
            self.format.encode(now, Stream::Stderr, note.as_bytes(), true, &mut self.behind);
            return self.flush();
        }
        written.context(|| format!("write log {}", self.path.display()))
    }

    /// Goes on in the file that has the log's name now, which is made where it is missing: whoever
    /// rotates the log from outside has moved the old one away.
    ///
    /// # Errors
    /// As [`Writer::open`]; the old file goes on being written.
    pub fn reopen(&mut self) -> Result<()> {
        // What is behind belongs into the old file, if it can be had there.
        let _ = self.flush();
        let opened = open(&self.path, false);
        (self.file, self.size) = opened.context(|| format!("open log {}", self.path.display()))?;
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<()> {
        match self.is_due() {
            true => self.flush(),
            false => Err(Error::unavailable(format!(
                "write log {}: it could not be written a moment ago",
                self.path.display()
            ))),
        }
    }

    /// Whether the file may be written, or tried again.
    fn is_due(&self) -> bool {
        self.failed.is_none_or(|failed| failed.elapsed() >= PAUSE)
    }

    /// Whether entries wait in memory because the file could not be written.
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// How many entries are not in the file: those that wait, and those that are lost and not yet
    /// told of.
    pub fn missing(&self) -> u64 {
        let waiting = self.behind.iter().filter(|byte| **byte == b'\n').count();
        waiting as u64 + self.lost
    }

    fn entry(&mut self, stream: Stream, text: &[u8], newline: bool, time: SystemTime) {
        if self.behind.len() >= MAX_BEHIND && (!self.is_due() || self.drain().is_err()) {
            self.lost += 1;
            return;
        }
        self.format.encode(time, stream, text, newline, &mut self.behind);
    }

    /// Writes all that is behind, starting new files between entries where their size demands it.
    fn drain(&mut self) -> io::Result<()> {
        let behind = std::mem::take(&mut self.behind);
        let mut rest = behind.as_slice();
        let mut outcome = Ok(());
        while !rest.is_empty() {
            let chunk = self.chunk(rest);
            let written = match self.file.write(&rest[..chunk]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.behind = rest.to_vec();
                    self.failed = Some(Instant::now());
                    return Err(error);
                }
            };
            self.failed = None;
            self.size += written as u64;
            let whole = rest[..written].ends_with(b"\n");
            rest = &rest[written..];
            if whole && self.rotation.max_size.is_some_and(|limit| self.size >= limit) {
                // The old file goes on being written where a new one can't be had.
                outcome = self.rotate();
            }
        }
        outcome
    }

    /// How much of `entries` goes into the current file: whole entries until the limit is passed.
    fn chunk(&self, entries: &[u8]) -> usize {
        let Some(limit) = self.rotation.max_size else { return entries.len() };
        let room = usize::try_from(limit.saturating_sub(self.size)).unwrap_or(usize::MAX).max(1);
        let after = entries.iter().skip(room - 1).position(|byte| *byte == b'\n');
        after.map_or(entries.len(), |at| room + at)
    }

    /// Ages every file by one and starts a new one. Followers keep reading the file they have.
    /// The new file is there before an old one moves, so that failure changes nothing.
    fn rotate(&mut self) -> io::Result<()> {
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let (file, size) = open(Path::new(&fresh), true)?;
        for age in (0..self.rotation.max_files.saturating_sub(1)).rev() {
            match std::fs::rename(aged(&self.path, age), aged(&self.path, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&fresh, &self.path)?;
        (self.file, self.size) = (file, size);
        Ok(())
    }
}

/// Opens a log and returns its size. A last entry that was cut off, by a crash, is ended.
/// With `empty`, whatever is there is thrown away.
fn open(path: &Path, empty: bool) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    let mut file = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)?;
    if empty {
        file.set_len(0)?;
    }
    let mut size = file.seek(SeekFrom::End(0))?;
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(size - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}
