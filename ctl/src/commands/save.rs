//! `berth save`

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use berth_proto::berth::v1::InspectImageRequest;
use berth_proto::containerd::types::transfer::{ImageExportStream, ImageReference, ImageStore};
use clap::Args;

use super::missing;
use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::transfer::{Stream, any, transfer};

/// Save one or more images to a tar archive (to standard output by default)
#[derive(Args, Debug)]
pub(crate) struct Save {
    /// The file to write instead
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Save {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        if self.output.is_none() && io::stdout().is_terminal() {
            return Err(Failure::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        let mut names = Vec::new();
        for image in &self.images {
            let request = InspectImageRequest { image: image.clone() };
            let found = daemon.images().await?.inspect(request).await?.into_inner();
            let name = found.image.ok_or_else(|| missing("image"))?.name;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        match &self.output {
            Some(path) if !is_special(path) => save_to(daemon, names, path).await?,
            Some(path) => {
                let file = File::options().write(true).open(path);
                save(daemon, names, file.map_err(|error| writing(path, &error))?).await?;
            }
            None => save(daemon, names, io::stdout().lock()).await?,
        }
        Ok(0)
    }
}

/// Whether there is something at `path` that is no file, as a pipe: it stays what it is.
fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file())
}

/// Writes a file that takes the place of one that is there only once it is whole.
async fn save_to(daemon: &Daemon, names: Vec<String>, path: &Path) -> Outcome<()> {
    let failed = |error: io::Error| writing(path, &error);
    let mut partial = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(partial);
    let file = File::create_new(&partial).map_err(failed)?;
    let saved = match save(daemon, names, file).await {
        Ok(()) => fs::rename(&partial, path).map_err(failed),
        Err(failure) => Err(failure),
    };
    if saved.is_err() {
        let _ = fs::remove_file(&partial);
    }
    saved
}

async fn save(daemon: &Daemon, names: Vec<String>, mut output: impl Write) -> Outcome<()> {
    let stream = Stream::open(daemon).await?;
    let export = ImageExportStream { stream: stream.id(), ..Default::default() };
    let mut names = names.into_iter();
    let source = ImageStore {
        name: names.next().unwrap_or_default(),
        extra_references: names.map(|name| ImageReference { name, ..Default::default() }).collect(),
        ..Default::default()
    };
    let what = |error| Failure::new(format!("write the archive: {error}"));
    let received = async {
        stream.receive(|bytes| output.write_all(bytes).map_err(what)).await?;
        output.flush().map_err(what)
    };
    let (done, received) =
        tokio::join!(transfer(daemon, any(&source), any(&export), String::new()), received);
    // A file that can't be written is why the daemon could not send.
    received.and(done)
}

fn writing(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("write {}: {error}", path.display()))
}
