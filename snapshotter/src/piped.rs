//! Archives on their way from a tree to what is made of them.

use std::io::{BufWriter, PipeReader, PipeWriter};
use std::thread;

use berth_types::{Error, Kind, Result, ResultExt};

/// Lets `pack` write an archive, on a thread of its own, that `take` reads.
pub(crate) fn piped<T>(
    pack: impl FnOnce(BufWriter<PipeWriter>) -> Result<()> + Send,
    take: impl FnOnce(PipeReader) -> Result<T>,
) -> Result<T> {
    let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
    let (packed, taken) = thread::scope(|scope| {
        let packing = scope.spawn(|| pack(BufWriter::new(writer)));
        let taken = take(reader);
        (packing.join().unwrap_or_else(|_| Err(Error::internal("a thread failed"))), taken)
    });
    match (packed, taken) {
        (Ok(()), taken) => taken,
        // Whichever failed first is why the other did.
        (Err(_), Err(error)) if error.kind() != Kind::DataLoss => Err(error),
        (Err(error), _) => Err(error),
    }
}
