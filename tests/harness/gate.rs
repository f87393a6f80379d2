//! A door before a registry that lets blobs through slowly and notes who asks for what.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::Registry;

/// How often a throttled transfer goes on.
const BEAT: Duration = Duration::from_millis(10);

/// A request for a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The blob's digest.
    pub digest: String,
    /// The first byte that was asked for.
    pub from: u64,
}

/// The door. It stands as long as the test's process.
pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    registry: String,
    /// Bytes of a blob in each beat and on each connection.
    pace: AtomicU64,
    asked: Mutex<Vec<Asked>>,
}

impl Gate {
    /// A door before `registry`, which must speak plain HTTP. Each blob that is fetched gets about
    /// `rate` bytes in a second.
    pub fn start(registry: &Registry, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let pace = AtomicU64::new(rate / 100);
        let shared = Arc::new(Shared { registry: registry.host(), pace, asked: Mutex::default() });
        let inside = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = inside.clone();
                // Clients that are killed in the middle are what the tests are about.
                thread::spawn(move || drop(shared.pass(client)));
            }
        });
        Self { port, shared }
    }

    /// Lets about `rate` bytes of each blob through in a second, from now.
    pub fn slow(&self, rate: u64) {
        self.shared.pace.store(rate / 100, Ordering::SeqCst);
    }

    /// Slows nothing down from now.
    pub fn open(&self) {
        self.slow(u64::MAX);
    }

    /// The full name of an image behind the door.
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// The blobs asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    /// Carries one request to the registry, and the response back.
    fn pass(&self, client: TcpStream) -> io::Result<()> {
        let mut from_client = BufReader::new(client.try_clone()?);
        if from_client.fill_buf()?.first() == Some(&0x16) {
            // TLS, which is tried first.
            return Ok(());
        }
        let mut head = read_head(&mut from_client)?;
        let blob = self.note(&head);
        let after_first_line = head.find('\n').map_or(0, |end| end + 1);
        head.insert_str(after_first_line, "Connection: close\r\n");
        let mut registry = TcpStream::connect(&self.registry)?;
        registry.write_all(head.as_bytes())?;
        let mut response = BufReader::new(registry);
        let mut client = client;
        client.write_all(read_head(&mut response)?.as_bytes())?;
        match blob {
            true => self.trickle(response, client),
            false => io::copy(&mut response, &mut client).map(drop),
        }
    }

    /// Notes a request for a blob; whether it is one.
    fn note(&self, head: &str) -> bool {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let Some((_, digest)) = path.split_once("/blobs/") else { return false };
        let range = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let range = name.eq_ignore_ascii_case("range").then_some(value)?;
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
        });
        let asked = Asked { digest: digest.to_owned(), from: range.unwrap_or(0) };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        true
    }

    fn trickle(&self, response: impl Read, mut client: TcpStream) -> io::Result<()> {
        let mut response = response;
        loop {
            let pace = self.pace.load(Ordering::SeqCst);
            let passed = io::copy(&mut response.by_ref().take(pace), &mut client)?;
            if passed == 0 {
                return Ok(());
            }
            thread::sleep(BEAT);
        }
    }
}

/// The head of a request or response, with the empty line at its end.
pub(crate) fn read_head(from: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}
