use berth_proto::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use berth_proto::containerd::services::introspection::v1::{PluginInfoRequest, PluginsRequest};
use berth_proto::containerd::services::version::v1::version_client::VersionClient;
use berth_proto::containerd::types::{RuntimeInfo, RuntimeRequest};
use berth_tests::Engine;
use prost::{Message, Name};
use prost_types::Any;
use tonic::{Code, Request};

use super::{Api, code};

#[tokio::test]
async fn an_engine_says_what_it_is() {
    let api = Api::start().await;
    let version = api.client(VersionClient::new).version(Request::new(())).await.unwrap();
    assert!(version.into_inner().version.contains('.'));
    let mut client = api.client(IntrospectionClient::new);
    let server = client.server(Request::new(())).await.unwrap().into_inner();
    assert_eq!(server.uuid.len(), 36);
    assert_eq!(client.server(Request::new(())).await.unwrap().into_inner().uuid, server.uuid);

    let mut ids = async |filters: &[&str]| {
        let filters = filters.iter().map(|filter| filter.to_string()).collect();
        let plugins = client.plugins(Request::new(PluginsRequest { filters })).await.unwrap();
        plugins.into_inner().plugins.into_iter().map(|plugin| plugin.id).collect::<Vec<_>>()
    };
    let snapshotters = ids(&["type==io.containerd.snapshotter.v1,id~=^overlay"]).await;
    assert_eq!(snapshotters, ["overlayfs"]);
    let either = ["type==io.containerd.snapshotter.v1,id==overlayfs", "id==walking"];
    let mut found = ids(&either).await;
    found.sort();
    found.dedup();
    assert_eq!(found, ["overlayfs", "walking"]);
    let services = ids(&["type==io.containerd.grpc.v1"]).await;
    for service in ["containers", "content", "diff", "events", "images", "leases", "tasks"] {
        assert!(services.contains(&service.to_owned()), "{service}: {services:?}");
    }
}

/// What runtimes can do, which containerd tells since 2.0.
#[tokio::test]
async fn runtimes_say_what_they_can_do() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    let mut client = api.client(IntrospectionClient::new);
    let ask = |kind: &str, id: &str, runtime: Option<&str>| {
        let request = |path: &str| RuntimeRequest { runtime_path: path.into(), options: None };
        let options = runtime.map(|path| Any {
            type_url: RuntimeRequest::full_name(),
            value: request(path).encode_to_vec(),
        });
        Request::new(PluginInfoRequest { r#type: kind.into(), id: id.into(), options })
    };
    let runtimes = "io.containerd.runtime.v2";
    let plain = client.plugin_info(ask(runtimes, "task", None)).await.unwrap().into_inner();
    assert_eq!(plain.plugin.unwrap().id, "task");
    let asked = ask(runtimes, "task", Some("io.containerd.runc.v2"));
    let extra = client.plugin_info(asked).await.unwrap().into_inner().extra.unwrap();
    let info = RuntimeInfo::decode(&*extra.value).unwrap();
    assert!(info.features.is_some() && info.version.is_some(), "{info:?}");
    let nobodys = client.plugin_info(ask(runtimes, "task", Some("io.nobodys.v9"))).await;
    assert_eq!(code(nobodys), Code::NotFound);
    assert_eq!(code(client.plugin_info(ask(runtimes, "nothing", None)).await), Code::NotFound);
}
