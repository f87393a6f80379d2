//! Bytes into the content store and out of it.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    DeleteContentRequest, ReadContentRequest, WriteAction, WriteContentRequest,
};
use berth_types::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{ROUNDS, add, rates};
use crate::client::Client;
use crate::peer::Peer;
use crate::table::Table;

const SIZE: usize = 256 << 20;

/// What containerd's clients send at a time.
const FRAME: usize = 1 << 20;

/// The blob, and what it is written as.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

pub(super) fn measure(peers: &[Peer], table: &mut Table) -> Result<()> {
    let bytes: Vec<u8> =
        (0..SIZE as u64 / 8).flat_map(|word| (word * word).to_ne_bytes()).collect();
    let blob = &Blob { digest: Digest::of(&bytes).to_string(), bytes };
    let write = async |client: Client| {
        let rate = put(&client, blob).await?;
        remove(&client, blob).await?;
        Ok(rate)
    };
    add(table, "content written", "MB/s", &rates(ROUNDS, peers, write)?);
    rates(0, peers, async |client: Client| put(&client, blob).await)?;
    let read = rates(ROUNDS, peers, async |client: Client| get(&client, blob).await)?;
    add(table, "content read", "MB/s", &read);
    rates(0, peers, async |client: Client| remove(&client, blob).await.map(|()| 0.0)).map(drop)
}

/// Writes the blob to its commit.
async fn put(client: &Client, blob: &Blob) -> Result<f64> {
    let (sender, receiver) = mpsc::channel(4);
    let message = |action: WriteAction, offset: usize, data: &[u8]| WriteContentRequest {
        action: action.into(),
        r#ref: "bench".to_owned(),
        total: SIZE as i64,
        expected: blob.digest.clone(),
        offset: offset as i64,
        data: data.to_vec().into(),
        ..Default::default()
    };
    let begin = Instant::now();
    let send = async {
        for (number, frame) in blob.bytes.chunks(FRAME).enumerate() {
            sender.send(message(WriteAction::Write, number * FRAME, frame)).await?;
        }
        sender.send(message(WriteAction::Commit, SIZE, b"")).await?;
        anyhow::Ok(())
    };
    let receive = async {
        let mut content = ContentClient::new(client.channel.clone());
        let request = client.request(ReceiverStream::new(receiver))?;
        let mut responses = content.write(request).await?.into_inner();
        while let Some(response) = responses.message().await? {
            if response.action == i32::from(WriteAction::Commit) {
                return Ok(());
            }
        }
        anyhow::bail!("the blob was not committed")
    };
    tokio::try_join!(send, receive)?;
    Ok(megabytes(SIZE, begin))
}

async fn get(client: &Client, blob: &Blob) -> Result<f64> {
    let mut content = ContentClient::new(client.channel.clone());
    let request = ReadContentRequest { digest: blob.digest.clone(), ..Default::default() };
    let begin = Instant::now();
    let mut frames = content.read(client.request(request)?).await?.into_inner();
    let mut received = 0;
    while let Some(frame) = frames.message().await.context("read the blob")? {
        received += frame.data.len();
    }
    ensure!(received == SIZE, "{received} bytes came instead of {SIZE}");
    Ok(megabytes(SIZE, begin))
}

async fn remove(client: &Client, blob: &Blob) -> Result<()> {
    let request = DeleteContentRequest { digest: blob.digest.clone() };
    ContentClient::new(client.channel.clone()).delete(client.request(request)?).await?;
    Ok(())
}

fn megabytes(size: usize, since: Instant) -> f64 {
    size as f64 / 1e6 / since.elapsed().as_secs_f64()
}
