//! `berth load`

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use berth_proto::containerd::types::transfer::{ImageImportStream, ImageStore};
use berth_types::Reference;
use clap::Args;
use tokio::sync::mpsc;

use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::output::say;
use crate::transfer::{Stream, any, transfer};

/// How much is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// Load images from a tar archive (from standard input by default)
#[derive(Args, Debug)]
pub(crate) struct Load {
    /// The file to read instead
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Show no progress, as without this
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let archive: Box<dyn Read + Send> = match &self.input {
            Some(path) => Box::new(
                File::open(path)
                    .map_err(|error| Failure::new(format!("open {}: {error}", path.display())))?,
            ),
            None if io::stdin().is_terminal() => {
                return Err(Failure::new("requested load from stdin, but stdin is empty"));
            }
            None => Box::new(io::stdin()),
        };
        let (upload, progress) = (Stream::open(daemon).await?, Stream::open(daemon).await?);
        let source = ImageImportStream { stream: upload.id(), ..Default::default() };
        let id = progress.id();
        let mut loaded = Vec::new();
        let (done, sent, watched) = tokio::join!(
            transfer(daemon, any(&source), any(&ImageStore::default()), id),
            upload.send(pieces(archive)),
            progress.watch(|progress| if progress.event == "saved" {
                loaded.push(progress.name);
            }),
        );
        // An archive that can't be read is why the daemon found it cut short.
        sent.and(done).and(watched)?;
        for name in &loaded {
            let shown = name.parse::<Reference>().map(|reference| reference.familiar());
            say(format_args!("Loaded image: {}", shown.as_ref().unwrap_or(name)));
        }
        Ok(0)
    }
}

/// Reads an archive on a thread of its own: a pipe may be slow.
fn pieces(mut archive: Box<dyn Read + Send>) -> mpsc::Receiver<Outcome<Vec<u8>>> {
    let (sender, pieces) = mpsc::channel(2);
    std::thread::spawn(move || {
        loop {
            let mut piece = Vec::new();
            let read = archive.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            let piece = match read {
                Ok(0) => return,
                Ok(_) => Ok(piece),
                Err(error) => Err(Failure::new(format!("read the archive: {error}"))),
            };
            let failed = piece.is_err();
            // The daemon may have had enough.
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    pieces
}
