//! containerd's API beside containerd itself: one client, several calls under way at once.

mod blobs;
mod calls;
mod collection;
mod events;
mod snapshots;

use std::future::Future;
use std::time::Instant;

use anyhow::Result;
use berth_proto::containerd::services::leases::v1::CreateRequest;
use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use tokio::task::JoinSet;

use crate::Bench;
use crate::client::Client;
use crate::peer::Peer;
use crate::samples::{Samples, alternate};
use crate::table::{Better, Table};

/// Counted rounds of each measure.
const ROUNDS: usize = 5;

/// Calls under way at once.
const WIDTH: usize = 16;

/// What keeps content and snapshots until it is deleted.
const LEASE: &str = "bench";

/// Every measure of the API, of the engines that have it.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    rates(0, peers, make_lease)?;
    calls::measure(peers, table)?;
    blobs::measure(peers, table)?;
    snapshots::measure(peers, table)?;
    events::measure(peers, table)?;
    collection::measure(bench.arguments.blobs, peers, table)
}

async fn make_lease(client: Client) -> Result<f64> {
    let lease = CreateRequest { id: LEASE.to_owned(), ..Default::default() };
    LeasesClient::new(client.channel.clone()).create(client.request(lease)?).await?;
    Ok(0.0)
}

/// Rates in turn: each round has a new connection.
fn rates(
    rounds: usize,
    peers: &[Peer],
    take: impl AsyncFn(Client) -> Result<f64>,
) -> Result<Vec<Samples>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    alternate(rounds, peers, |peer| {
        let Some(engine) = peer.for_ctr() else { return Ok(None) };
        runtime.block_on(async { take(Client::connect(engine).await?).await.map(Some) })
    })
}

/// Adds a line of rates in `unit`.
fn add(table: &mut Table, name: &str, unit: &str, figures: &[Samples]) {
    table.add(name, unit, Better::More, figures, None);
}

/// How many of `count` calls are done in a second, [`WIDTH`] at a time. Each call gets its number.
async fn rate<F>(count: usize, call: impl Fn(usize) -> F + Clone + Send + 'static) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send,
{
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for first in 0..WIDTH {
        let call = call.clone();
        tasks.spawn(async move {
            for number in (first..count).step_by(WIDTH) {
                call(number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}
