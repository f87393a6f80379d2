//! HTTP/2 as gRPC's C core speaks it, which Python, Ruby, PHP and C++ share: not quite as the
//! standard has it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use berth_tests::Engine;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW: u8 = 8;
const END_OF_STREAM: u8 = 1;
const END_OF_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, body].concat()
}

/// A literal field that both sides keep.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [vec![0x40], text(name), text(value)].concat()
}

/// The next frame: its kind, its stream and what is in it.
fn next(connection: &mut UnixStream) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    connection.read_exact(&mut head).unwrap();
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut body = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    connection.read_exact(&mut body).unwrap();
    (kind, u32::from_be_bytes(stream), body)
}

/// The data that answers the call on `stream`.
fn answer(connection: &mut UnixStream, stream: u32) -> Vec<u8> {
    loop {
        match next(connection) {
            (DATA, of, body) if of == stream => return body,
            (kind @ (RESET | GO_AWAY), of, body) => panic!("frame {kind} on {of}: {body:?}"),
            _ => {}
        }
    }
}

#[test]
fn paths_are_authorities_and_what_was_never_begun_is_cancelled() {
    let engine = Engine::start();
    let mut connection = UnixStream::connect(engine.address()).unwrap();
    let fields = [
        field(":path", "/containerd.services.version.v1.Version/Version"),
        field(":authority", "run%2Fcontainerd%2Fcontainerd.sock"),
        vec![0x83, 0x86],
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ];
    // The second call names the fields of the first by their numbers, the last one first.
    let again = [0xc1, 0xc0, 0x83, 0x86, 0xbf, 0xbe];
    let message = [0; 5];
    let sent = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_OF_HEADERS, 1, &fields.concat()),
        frame(DATA, END_OF_STREAM, 1, &message),
        frame(RESET, 0, 3, &8_u32.to_be_bytes()),
        frame(WINDOW, 0, 5, &8_u32.to_be_bytes()),
    ];
    connection.write_all(&sent.concat()).unwrap();
    let first = answer(&mut connection, 1);
    assert!(first.contains(&b'.'), "{first:?}");
    let sent = [frame(HEADERS, END_OF_HEADERS, 7, &again), frame(DATA, END_OF_STREAM, 7, &message)];
    connection.write_all(&sent.concat()).unwrap();
    assert_eq!(answer(&mut connection, 7), first);
}
