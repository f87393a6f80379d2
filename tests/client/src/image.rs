//! Images: pulled by the engine, and read from its content store.

use client::services::v1::{GetImageRequest, ReadContentRequest, TransferOptions, TransferRequest};
use client::to_any;
use client::types::Platform;
use client::types::transfer::{ImageStore, OciRegistry, UnpackConfiguration};
use containerd_client as client;
use serde_json::Value;

use crate::{Engine, SNAPSHOTTER};

impl Engine {
    /// Lets the engine pull and unpack an image.
    pub(crate) async fn pull(&self, image: &str) {
        let source = OciRegistry { reference: image.into(), resolver: None };
        let platform = Platform {
            os: "linux".into(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64".into(),
                "aarch64" => "arm64".into(),
                other => other.into(),
            },
            ..Default::default()
        };
        let unpacks = vec![UnpackConfiguration {
            platform: Some(platform.clone()),
            snapshotter: SNAPSHOTTER.into(),
        }];
        let destination = ImageStore {
            name: image.into(),
            platforms: vec![platform],
            unpacks,
            ..Default::default()
        };
        let transfer = TransferRequest {
            source: Some(to_any(&source)),
            destination: Some(to_any(&destination)),
            options: Some(TransferOptions::default()),
        };
        self.client.transfer().transfer(self.request(transfer)).await.expect("a pull");
    }

    /// The chain of an image with one layer: what its snapshot is called.
    pub(crate) async fn chain_of(&self, name: &str) -> String {
        let get = GetImageRequest { name: name.into() };
        let image = self.client.images().get(self.request(get)).await.expect("an image");
        let target = image.into_inner().image.and_then(|image| image.target).expect("a target");
        let mut manifest = self.document(&target.digest).await;
        if let Some(first) = manifest["manifests"][0]["digest"].as_str().map(str::to_owned) {
            manifest = self.document(&first).await;
        }
        let config = manifest["config"]["digest"].as_str().expect("a configuration").to_owned();
        let config = self.document(&config).await;
        config["rootfs"]["diff_ids"][0].as_str().expect("a layer").to_owned()
    }

    /// A JSON document in the content store.
    async fn document(&self, digest: &str) -> Value {
        let read = ReadContentRequest { digest: digest.into(), ..Default::default() };
        let stream = self.client.content().read(self.request(read)).await;
        let mut stream = stream.expect("content").into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.expect("a part") {
            bytes.extend(part.data);
        }
        serde_json::from_slice(&bytes).expect("JSON")
    }
}
