//! Events to many subscribers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_proto::containerd::services::events::v1::events_client::EventsClient;
use berth_proto::containerd::services::events::v1::{PublishRequest, SubscribeRequest};
use berth_tests::Engine;
use prost_types::Any;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{ROUNDS, add};
use crate::client::Client;
use crate::peer::Peer;
use crate::samples::alternate;
use crate::table::Table;

const SUBSCRIBERS: usize = 100;
const EVENTS: usize = 1000;

pub(super) fn measure(peers: &[Peer], table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = alternate(ROUNDS, peers, |peer| {
        let Some(engine) = peer.for_ctr() else { return Ok(None) };
        runtime.block_on(deliver(engine)).map(Some)
    })?;
    add(table, &format!("events to {SUBSCRIBERS} subscribers"), "/s", &figures);
    Ok(())
}

/// How many events arrive in a second.
async fn deliver(engine: &Engine) -> Result<f64> {
    let mut subscribers = JoinSet::new();
    let mut ready = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let (heard, hearing) = watch::channel(false);
        subscribers.spawn(subscribe(Client::connect(engine).await?, heard));
        ready.push(hearing);
    }
    let client = Client::connect(engine).await?;
    // A subscription answers with its first event alone.
    while !ready.iter().all(|heard| *heard.borrow()) {
        publish(&client, "/bench/probe").await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begin = Instant::now();
    for _ in 1..EVENTS {
        publish(&client, "/bench/event").await?;
    }
    publish(&client, "/bench/last").await?;
    while let Some(done) = subscribers.join_next().await {
        done??;
    }
    Ok((SUBSCRIBERS * EVENTS) as f64 / begin.elapsed().as_secs_f64())
}

/// Listens until the last event.
async fn subscribe(client: Client, heard: watch::Sender<bool>) -> Result<()> {
    let filters = vec!["topic~=^/bench/".to_owned()];
    let request = client.request(SubscribeRequest { filters })?;
    let mut events =
        EventsClient::new(client.channel.clone()).subscribe(request).await?.into_inner();
    loop {
        let envelope = events.message().await?.context("the subscription ended")?;
        match envelope.topic.as_str() {
            "/bench/probe" => drop(heard.send_replace(true)),
            "/bench/last" => return Ok(()),
            _ => {}
        }
    }
}

async fn publish(client: &Client, topic: &str) -> Result<()> {
    let event = Any { type_url: "bench.Event".to_owned(), value: vec![b'x'; 200] };
    let request = PublishRequest { topic: topic.to_owned(), event: Some(event) };
    EventsClient::new(client.channel.clone()).publish(client.request(request)?).await?;
    Ok(())
}
