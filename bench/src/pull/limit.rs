//! What a pull takes when simple tools do it: fetch, hash and write each blob, `gunzip | tar -x`
//! it into a directory of its own, two layers at a time, and `sync -f` at the end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use berth_types::{Algorithm, Digest, Hasher};

/// Layers at a time.
const WORKERS: usize = 2;

/// Where the layers come from.
pub(super) struct Source {
    /// `HOST:PORT` of the registry.
    pub(super) host: String,
    /// The image's name in it.
    pub(super) name: String,
    /// The layers.
    pub(super) layers: Vec<Digest>,
    /// The program that decompresses them.
    pub(super) inflate: &'static str,
}

/// Fetches and unpacks all layers into `directory`.
pub(super) fn pull(source: &Source, directory: &Path) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(layer) = source.layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let blob = directory.join(format!("{}.tar.gz", layer.hex()));
            fetch(source, layer, &blob)?;
            unpack(source.inflate, &blob, &directory.join(layer.hex()))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
        })
    })?;
    run(Command::new("sync").arg("-f").arg(directory))
}

/// One request of HTTP/1.0, which is answered plainly and closed.
fn fetch(source: &Source, layer: &Digest, blob: &Path) -> Result<()> {
    let mut stream = TcpStream::connect(&source.host)?;
    let Source { host, name, .. } = source;
    write!(stream, "GET /v2/{name}/blobs/{layer} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = BufReader::with_capacity(1 << 20, stream);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    ensure!(line.contains(" 200 "), "the registry answered {line:?}");
    while line != "\r\n" {
        line.clear();
        ensure!(answer.read_line(&mut line)? > 0, "the registry's answer is cut off");
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut file = File::create(blob)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = answer.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        file.write_all(&buffer[..length])?;
    }
    ensure!(hasher.finish() == *layer, "the registry sent other bytes");
    Ok(())
}

fn unpack(inflate: &str, blob: &Path, directory: &Path) -> Result<()> {
    fs::create_dir(directory)?;
    let script = "set -o pipefail; \"$1\" -dc \"$2\" | tar -x -C \"$3\"";
    run(Command::new("bash").args(["-c", script, "bash", inflate]).arg(blob).arg(directory))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
