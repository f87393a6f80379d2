//! Writes a layer as an image, and its archive again from that: `layer LAYER IMAGE [ARCHIVE]`.

use std::fs::File;
use std::io;

use berth_archive::{Decompress, Limits};
use berth_erofs::Archive;
use berth_types::{Error, Result, ResultExt};

fn main() -> Result<()> {
    let mut paths = std::env::args_os().skip(1);
    let (layer, image) = (paths.next().unwrap_or_default(), paths.next().unwrap_or_default());
    let layer = File::open(&layer).context(|| format!("open {}", layer.display()))?;
    let file = File::options().read(true).write(true).create_new(true).open(&image);
    let file = file.context(|| format!("create {}", image.display()))?;
    let limits = Limits { entries: 1 << 22, ..Limits::default() };
    let draft = berth_erofs::write_restorable(Decompress::new(layer)?, file, limits)?;
    let sealed = draft.seal()?;
    println!("{} bytes, {} inodes", sealed.length, sealed.inodes);
    if let Some(path) = paths.next() {
        let archive = Archive::open(sealed.file)?;
        let mut archive = archive.ok_or_else(|| Error::internal("the image has no recipe"))?;
        let mut output = File::create(&path).context(|| format!("create {}", path.display()))?;
        io::copy(&mut archive, &mut output).context(|| "write the archive")?;
    }
    Ok(())
}
