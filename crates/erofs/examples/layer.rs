//! Writes a layer as an image: `layer LAYER IMAGE`.

use std::fs::File;

use berth_archive::{Decompress, Limits};
use berth_types::{Result, ResultExt};

fn main() -> Result<()> {
    let mut paths = std::env::args_os().skip(1);
    let (layer, image) = (paths.next().unwrap_or_default(), paths.next().unwrap_or_default());
    let layer = File::open(&layer).context(|| format!("open {}", layer.display()))?;
    let file = File::options().read(true).write(true).create_new(true).open(&image);
    let file = file.context(|| format!("create {}", image.display()))?;
    let limits = Limits { entries: 1 << 22, ..Limits::default() };
    let draft = match std::env::var_os("PLAIN") {
        Some(_) => berth_erofs::write(Decompress::new(layer)?, file, limits)?,
        None => berth_erofs::write_restorable(Decompress::new(layer)?, file, limits)?,
    };
    let sealed = draft.seal()?;
    println!("{} bytes, {} inodes", sealed.length, sealed.inodes);
    Ok(())
}
