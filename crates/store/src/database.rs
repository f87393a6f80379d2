//! The file: opened, locked, and opened again after a failure.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use berth_types::{Error, Result, ResultExt};

use crate::error::{DbResultExt, damaged};
use crate::room::{Room, Roomy};
use crate::schema;

/// redb's own default is 1 GiB. The tables of a thousand containers take a few MiB.
const CACHE_BYTES: usize = 4 << 20;

/// A database file. After an I/O failure redb refuses every further call until it is opened
/// anew, which the next call does: a disk that was full for a while must not need a restart.
pub(crate) struct Database {
    path: PathBuf,
    // `None` between a failure and the next call.
    open: RwLock<Option<Opened>>,
}

/// The file while it is open.
pub(crate) struct Opened {
    pub(crate) database: redb::Database,
    pub(crate) room: Arc<Room>,
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = open(path)?;
        Ok(Self { path: path.to_owned(), open: RwLock::new(Some(database)) })
    }

    /// Runs `run` on the open database.
    pub(crate) fn with<T>(&self, run: impl FnOnce(&Opened) -> Result<T>) -> Result<T> {
        // A panicking reader leaves the option as it was, so a poisoned lock is as good as any.
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*open {
            return run(opened);
        }
        drop(open);
        self.reopen()?;
        match &*self.open.read().unwrap_or_else(PoisonError::into_inner) {
            Some(opened) => run(opened),
            None => Err(Error::unavailable("the database closed again: try again")),
        }
    }

    /// Closes the file after a failure, once the readers are done. What was not synced is gone.
    pub(crate) fn close(&self) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn reopen(&self) -> Result<()> {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            tracing::info!(path = %self.path.display(), "opening the database again");
            *slot = Some(open(&self.path)?);
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Opened> {
    let what = || format!("open {}", path.display());
    match fs::metadata(path) {
        // redb would begin anew, and all that is kept would be of no record.
        Ok(file) if file.len() == 0 => return Err(damaged("the file is empty")).context(what),
        Ok(_) => {}
        Err(_) => make(path)?,
    }
    let opened = open_file(path).context(what)?;
    schema::migrate(&opened.database, schema::MIGRATIONS).context(what)?;
    Ok(opened)
}

/// Makes an empty database. It gets its name when it is whole, because redb can't open what a
/// crash leaves of a new one.
fn make(path: &Path) -> Result<()> {
    let what = || format!("make {}", path.display());
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(what(), &error)),
        _ => {}
    }
    // redb would make it readable for all.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).context(what)?;
    drop(open_file(&unfinished).context(what)?);
    fs::rename(&unfinished, path).context(what)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = File::open(parent.unwrap_or(Path::new("."))).context(what)?;
    parent.sync_all().context(what)
}

fn open_file(path: &Path) -> Result<Opened> {
    // Measured on ext4 with rows of 4 KB, the size of a container's: the check takes 20 ms for a
    // thousand rows, 40–70 ms for ten thousand and half a second for a hundred thousand. Without
    // it a flipped bit is found when somebody reads it, if at all. Quick repair, which spares the
    // walk after a crash, makes each commit twice as long (0.9 ms instead of 0.4) to win less than
    // 0.1 s at ten thousand rows, so it is off.
    let file =
        OpenOptions::new().read(true).write(true).open(path).map_err(redb::Error::Io).db()?;
    let file = Roomy::new(file).db()?;
    let room = file.room();
    let database = redb::Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(file)
        .db()?;
    Ok(Opened { database, room })
}
