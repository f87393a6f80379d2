//! Garbage collection of very many blobs.

use std::time::Instant;

use anyhow::{Context, Result};
use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{WriteAction, WriteContentRequest};
use berth_proto::containerd::services::leases::v1::DeleteRequest;
use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_types::Digest;

use super::{LEASE, rate};
use crate::client::Client;
use crate::peer::Peer;
use crate::samples::Samples;
use crate::table::{Better, Table};

/// Once for each engine: to write the blobs takes minutes.
pub(super) fn measure(count: usize, peers: &[Peer], table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut written, mut collected) = (Vec::new(), Vec::new());
    for peer in peers {
        let (mut rates, mut times) = (Samples::default(), Samples::default());
        if let Some(engine) = peer.for_ctr() {
            runtime.block_on(async {
                let client = Client::connect(engine).await?;
                rates.add(write(client.clone(), count).await?);
                times.add(collect(&client).await?);
                anyhow::Ok(())
            })?;
        }
        written.push(rates);
        collected.push(times);
    }
    super::add(table, "small blobs written", "/s", &written);
    let name = format!("garbage collection of {count} blobs");
    table.add(&name, "s", Better::Less, &collected, None);
    Ok(())
}

async fn write(client: Client, count: usize) -> Result<f64> {
    rate(count, move |number| put(client.clone(), number)).await
}

async fn put(client: Client, number: usize) -> Result<()> {
    let data = format!("blob {number}").into_bytes();
    let request = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: format!("blob-{number}"),
        total: data.len() as i64,
        expected: Digest::of(&data).to_string(),
        data: data.into(),
        ..Default::default()
    };
    let request = client.leased(LEASE, tokio_stream::once(request))?;
    let mut content = ContentClient::new(client.channel.clone());
    let mut responses = content.write(request).await?.into_inner();
    responses.message().await?.context("the blob was not committed")?;
    Ok(())
}

/// In seconds.
async fn collect(client: &Client) -> Result<f64> {
    let delete = DeleteRequest { id: LEASE.to_owned(), sync: true };
    let begin = Instant::now();
    LeasesClient::new(client.channel.clone()).delete(client.request(delete)?).await?;
    Ok(begin.elapsed().as_secs_f64())
}
