//! Activation of mounts, which containerd has since 2.2: Debian's does not.

use berth_proto::containerd::services::mounts::v1::mounts_client::MountsClient;
use berth_proto::containerd::services::mounts::v1::{
    ActivateRequest, DeactivateRequest, InfoRequest, ListRequest,
};
use berth_proto::containerd::types::Mount;
use berth_tests::Engine;
use tonic::Code;

use super::{Api, code};

#[tokio::test]
async fn what_the_kernel_mounts_needs_no_activation() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    let mut client = api.client(MountsClient::new);
    let overlay = Mount { r#type: "overlay".into(), ..Mount::default() };
    let activate = |name: &str| ActivateRequest {
        name: name.into(),
        mounts: vec![overlay.clone()],
        ..Default::default()
    };
    let refused = client.activate(api.request(activate("one"))).await;
    assert_eq!(code(refused), Code::Unimplemented);
    let badly_named = client.activate(api.request(activate("a/b"))).await;
    assert_eq!(code(badly_named), Code::InvalidArgument);
    let info = InfoRequest { name: "one".into() };
    assert_eq!(code(client.info(api.request(info)).await), Code::NotFound);
    let deactivate = DeactivateRequest { name: "one".into() };
    assert_eq!(code(client.deactivate(api.request(deactivate)).await), Code::NotFound);
    let list = client.list(api.request(ListRequest::default())).await.unwrap();
    assert!(list.into_inner().message().await.unwrap().is_none());
}
