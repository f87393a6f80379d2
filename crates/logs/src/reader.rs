//! Reading a log, in the daemon.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::{Result, ResultExt};

use crate::entry::{self, Entry};
use crate::files::aged;
use crate::watch::Watch;

/// How much is read at a time, in bytes.
const CHUNK: usize = 32 * 1024;

/// The longest line that a writer makes: six bytes for each of an entry's, and what is around.
const MAX_ENCODED: usize = 6 * crate::MAX_LINE + 1024;

/// Which entries of a log are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only so many entries from the end; what comes later while following is not counted.
    pub tail: Option<u64>,
    /// Nothing before this.
    pub since: Option<SystemTime>,
    /// Nothing after this. A follower ends with the first entry beyond it.
    pub until: Option<SystemTime>,
    /// Wait for more at the end.
    pub follow: bool,
}

/// The entries of a log, from the oldest file on. While following, it survives rotation: it reads
/// the file that it has to the end and goes on with the next.
pub struct Reader {
    path: PathBuf,
    query: Query,
    watch: Option<Watch>,
    current: Option<Current>,
    /// Bytes of the current file that were read; those before `parsed` are done with.
    buffer: Vec<u8>,
    parsed: usize,
}

struct Current {
    file: File,
    identity: (u64, u64),
}

impl Current {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let identity = identity(&file.metadata()?);
                Ok(Some(Self { file, identity }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Reader {
    /// Opens the log at `path`. A log that isn't there has no entries; its follower waits for it.
    /// With [`Query::follow`] this must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`berth_types::Error::io`].
    pub fn open(path: &Path, query: Query) -> Result<Self> {
        let open = || {
            let watch = match path.parent() {
                Some(directory) if query.follow => Some(Watch::directory(directory)?),
                _ => None,
            };
            let current = start(path, query.tail)?;
            Ok::<_, io::Error>((watch, current))
        };
        let (watch, current) = open().context(|| format!("open log {}", path.display()))?;
        Ok(Self { path: path.to_owned(), query, watch, current, buffer: Vec::new(), parsed: 0 })
    }

    /// The next entry; `None` at the end, which a follower reaches only through
    /// [`Reader::stop_following`] or [`Query::until`]. Damaged lines are passed over. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// As [`berth_types::Error::io`].
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.read().context(|| self.what())? {
                if self.query.until.is_some_and(|until| entry.time > until) {
                    return Ok(None);
                }
                if self.query.since.is_none_or(|since| entry.time >= since) {
                    return Ok(Some(entry));
                }
                continue;
            }
            match &mut self.watch {
                Some(watch) => watch.changed().await.context(|| self.what())?,
                None => return Ok(None),
            }
        }
    }

    /// Makes the present end of the log the end: nothing more will be written.
    pub fn stop_following(&mut self) {
        self.watch = None;
    }

    fn what(&self) -> String {
        format!("read log {}", self.path.display())
    }

    /// The next entry that is there already.
    fn read(&mut self) -> io::Result<Option<Entry>> {
        loop {
            while let Some(length) =
                self.buffer[self.parsed..].iter().position(|byte| *byte == b'\n')
            {
                let line = self.parsed..self.parsed + length;
                self.parsed = line.end + 1;
                if let Some(entry) = entry::decode(&self.buffer[line]) {
                    return Ok(Some(entry));
                }
            }
            if !self.fill()? && !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Reads more of the current file; false at its end.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else { return Ok(false) };
        self.buffer.drain(..self.parsed);
        self.parsed = 0;
        if self.buffer.len() > MAX_ENCODED {
            // No entry is that long: this is no log, and must not fill the memory.
            self.buffer.clear();
        }
        self.buffer.reserve(CHUNK);
        let read = (&mut current.file).take(CHUNK as u64).read_to_end(&mut self.buffer)?;
        Ok(read > 0)
    }

    /// Goes on to the file after the current one; false when there is none yet.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else {
            self.current = start(&self.path, None)?;
            return Ok(self.current.is_some());
        };
        // Found at an age of its own, a file has been rotated: the next is the one an age younger.
        // Found nowhere, it has been thrown away since: the oldest of what is left comes next.
        let mut age = 0;
        let next = loop {
            let Some(candidate) = Current::open(&aged(&self.path, age))? else {
                if age == 0 {
                    return Ok(false);
                }
                break age - 1;
            };
            if candidate.identity == current.identity {
                match age {
                    0 => return self.truncated(),
                    _ => break age - 1,
                }
            }
            age += 1;
        };
        // Something may have been written between our last read and the rotation.
        if self.fill()? {
            return Ok(true);
        }
        self.buffer.clear();
        self.parsed = 0;
        self.current = Current::open(&aged(&self.path, next))?;
        Ok(self.current.is_some())
    }

    /// Whether the current file was cut to nothing in place, as Docker does with its only file; it
    /// is then read from its start.
    fn truncated(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else { return Ok(false) };
        let cut = current.file.metadata()?.len() < current.file.stream_position()?;
        if cut {
            current.file.rewind()?;
            self.buffer.clear();
            self.parsed = 0;
        }
        Ok(cut)
    }
}

/// Opens the file in which the last `tail` entries begin, at that place; with `None` the oldest
/// file.
fn start(path: &Path, tail: Option<u64>) -> io::Result<Option<Current>> {
    let mut missing = tail.unwrap_or(u64::MAX);
    let mut oldest = None;
    for age in 0.. {
        let Some(mut current) = Current::open(&aged(path, age))? else { break };
        let found = match tail {
            Some(_) => seek_back(&mut current.file, missing)?,
            None => 0,
        };
        missing -= found;
        oldest = Some(current);
        if missing == 0 {
            break;
        }
    }
    Ok(oldest)
}

/// Places `file` where its last `wanted` lines begin, or at its start; returns how many lines lie
/// behind that place. A last line without a newline is still being written and isn't counted.
fn seek_back(file: &mut File, wanted: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut buffer = vec![0; CHUNK];
    while end > 0 {
        let length = usize::try_from(end).map_or(CHUNK, |end| end.min(CHUNK));
        let begin = end - length as u64;
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut buffer[..length])?;
        for (at, byte) in buffer[..length].iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            if found == wanted {
                file.seek(SeekFrom::Start(begin + at as u64 + 1))?;
                return Ok(found);
            }
            found += 1;
        }
        end = begin;
    }
    file.rewind()?;
    Ok(found)
}
