use berth_proto::containerd::services::images::v1::images_client::ImagesClient;
use berth_proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest,
    UpdateImageRequest,
};
use berth_proto::containerd::types::Descriptor;
use berth_types::Digest;
use tonic::Code;

use super::{Api, code, labels, mask, oversize};

fn image(name: &str, content: &[u8]) -> Image {
    let target = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: Digest::of(content).to_string(),
        size: content.len() as i64,
        ..Default::default()
    };
    Image { name: name.into(), target: Some(target), ..Default::default() }
}

#[tokio::test]
async fn images() {
    let api = Api::start().await;
    let mut client = api.client(ImagesClient::new);
    let create =
        |image: Image| CreateImageRequest { image: Some(image), ..CreateImageRequest::default() };
    let first = Image { labels: labels(&[("a", "1")]), ..image("one", b"first") };
    client.create(api.request(create(first.clone()))).await.unwrap();
    let again = client.create(api.request(create(first))).await;
    assert_eq!(code(again), Code::AlreadyExists);
    let descriptor = |change: fn(&mut Descriptor)| {
        let mut image = image("bad", b"bad");
        change(image.target.as_mut().unwrap());
        image
    };
    for bad in [
        image("", b"x"),
        descriptor(|target| target.digest = "sha256:short".into()),
        descriptor(|target| target.size = 0),
        descriptor(|target| target.media_type.clear()),
        Image { labels: oversize(), ..image("bad", b"x") },
    ] {
        let refused = client.create(api.request(create(bad.clone()))).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{bad:?}");
    }

    let update = |image: Image, paths: &[&str]| UpdateImageRequest {
        image: Some(image),
        update_mask: mask(paths),
        ..UpdateImageRequest::default()
    };
    let other = Image { labels: labels(&[("b", "2")]), ..image("one", b"second") };
    client.update(api.request(update(other.clone(), &["labels.b"]))).await.unwrap();
    let get = GetImageRequest { name: "one".into() };
    let got = client.get(api.request(get)).await.unwrap().into_inner().image.unwrap();
    assert_eq!(got.labels, labels(&[("a", "1"), ("b", "2")]));
    assert_eq!(got.target.unwrap().digest, Digest::of(b"first").to_string());
    client.update(api.request(update(other, &["target"]))).await.unwrap();
    let refused = client.update(api.request(update(image("one", b"x"), &["name"]))).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let missing = client.update(api.request(update(image("two", b"x"), &["target"]))).await;
    assert_eq!(code(missing), Code::NotFound);

    let second = Digest::of(b"second");
    for (filter, found) in [
        ("name==one", 1),
        ("name~=^o", 1),
        (format!("target.digest=={second}").as_str(), 1),
        ("target.mediatype~=manifest,labels.b==2", 1),
        ("labels.\"b\"!=2", 0),
        ("name==two", 0),
    ] {
        let list = ListImagesRequest { filters: vec![filter.into()] };
        let list = client.list(api.request(list)).await.unwrap().into_inner();
        assert_eq!(list.images.len(), found, "{filter}");
    }
    let list = ListImagesRequest { filters: vec!["name=".into()] };
    assert_eq!(code(client.list(api.request(list)).await), Code::InvalidArgument);

    let delete = DeleteImageRequest { name: "one".into(), sync: true, target: None };
    client.delete(api.request(delete.clone())).await.unwrap();
    assert_eq!(code(client.delete(api.request(delete)).await), Code::NotFound);
    let get = GetImageRequest { name: "one".into() };
    assert_eq!(code(client.get(api.request(get)).await), Code::NotFound);
}
