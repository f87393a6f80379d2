//! Calls that only ask.

use anyhow::Result;
use berth_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
    container::Runtime,
};
use berth_proto::containerd::services::images::v1::images_client::ImagesClient;
use berth_proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, Image, ListImagesRequest,
};
use berth_proto::containerd::services::version::v1::version_client::VersionClient;
use berth_proto::containerd::types::Descriptor;

use super::{ROUNDS, add, rate, rates};
use crate::client::Client;
use crate::peer::Peer;
use crate::table::Table;

const CALLS: usize = 5000;
const IMAGES: usize = 1000;
const LISTS: usize = 200;

/// The container that is asked for.
const ID: &str = "asked-for";

pub(super) fn measure(peers: &[Peer], table: &mut Table) -> Result<()> {
    add(table, "Version", "calls/s", &rates(ROUNDS, peers, ask_version)?);
    rates(0, peers, make_container)?;
    add(table, "Containers.Get", "calls/s", &rates(ROUNDS, peers, get_container)?);
    rates(0, peers, remove_container)?;
    rates(0, peers, make_images)?;
    let lists = rates(ROUNDS, peers, list_images)?;
    add(table, &format!("Images.List of {IMAGES}"), "calls/s", &lists);
    rates(0, peers, remove_images).map(drop)
}

async fn ask_version(client: Client) -> Result<f64> {
    rate(CALLS, move |_| {
        let client = client.clone();
        async move {
            VersionClient::new(client.channel.clone()).version(client.request(())?).await?;
            Ok(())
        }
    })
    .await
}

async fn make_container(client: Client) -> Result<f64> {
    let runtime = Runtime { name: "io.containerd.runc.v2".to_owned(), options: None };
    let spec =
        prost_types::Any { type_url: "types.containerd.io/x".into(), value: vec![b'x'; 4096] };
    let container = Container {
        id: ID.to_owned(),
        runtime: Some(runtime),
        spec: Some(spec),
        ..Default::default()
    };
    let request = client.request(CreateContainerRequest { container: Some(container) })?;
    ContainersClient::new(client.channel.clone()).create(request).await?;
    Ok(0.0)
}

async fn get_container(client: Client) -> Result<f64> {
    rate(CALLS, move |_| {
        let client = client.clone();
        async move {
            let request = client.request(GetContainerRequest { id: ID.to_owned() })?;
            ContainersClient::new(client.channel.clone()).get(request).await?;
            Ok(())
        }
    })
    .await
}

async fn remove_container(client: Client) -> Result<f64> {
    let request = client.request(DeleteContainerRequest { id: ID.to_owned() })?;
    ContainersClient::new(client.channel.clone()).delete(request).await?;
    Ok(0.0)
}

fn image_name(number: usize) -> String {
    format!("registry.example/many/image:{number}")
}

async fn make_images(client: Client) -> Result<f64> {
    rate(IMAGES, move |number| {
        let client = client.clone();
        async move {
            let target = Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: format!("sha256:{number:064x}"),
                size: 1000,
                ..Default::default()
            };
            let name = image_name(number);
            let image = Image { name, target: Some(target), ..Default::default() };
            let request = CreateImageRequest { image: Some(image), ..Default::default() };
            ImagesClient::new(client.channel.clone()).create(client.request(request)?).await?;
            Ok(())
        }
    })
    .await
}

async fn list_images(client: Client) -> Result<f64> {
    rate(LISTS, move |_| {
        let client = client.clone();
        async move {
            let mut images = ImagesClient::new(client.channel.clone());
            let request = client.request(ListImagesRequest::default())?;
            let listed = images.list(request).await?.into_inner().images.len();
            anyhow::ensure!(listed >= IMAGES, "only {listed} images are listed");
            Ok(())
        }
    })
    .await
}

async fn remove_images(client: Client) -> Result<f64> {
    rate(IMAGES, move |number| {
        let client = client.clone();
        async move {
            let request = DeleteImageRequest { name: image_name(number), ..Default::default() };
            ImagesClient::new(client.channel.clone()).delete(client.request(request)?).await?;
            Ok(())
        }
    })
    .await
}
