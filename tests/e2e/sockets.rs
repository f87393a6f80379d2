//! What the daemon listens on besides its socket: TCP for clients with a certificate, and metrics.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use berth_proto::containerd::services::version::v1::version_client::VersionClient;
use berth_tests::{Engine, Finished, Image};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// An address that nothing listens on.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Two authorities, each with a certificate for the loopback address.
fn make_certificates(directory: &Path) {
    let script = r#"
        set -e; cd "$1"
        for name in one two; do
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$name-authority \
                -keyout $name-ca.key -out $name-ca.crt
            openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1' >san
            openssl x509 -req -in $name.csr -CA $name-ca.crt -CAkey $name-ca.key -CAcreateserial \
                -days 2 -extfile san -out $name.crt
        done
    "#;
    Finished::run("sh", &["-c", script, "sh", directory.to_str().unwrap()], b"").success();
}

/// A connection with the certificate `name`, or without one.
async fn connect(address: &str, directory: &Path, name: Option<&str>) -> Option<Channel> {
    let pem = |file: String| std::fs::read(directory.join(file)).unwrap();
    let certificate = |file: &str| CertificateDer::from_pem_slice(&pem(format!("{file}.crt")));
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate("one-ca").unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted);
    let mut config = match name {
        None => config.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_slice(&pem(format!("{name}.key"))).unwrap();
            config.with_client_auth_cert(vec![certificate(name).unwrap()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".into()];
    let (connector, address) = (TlsConnector::from(Arc::new(config)), address.to_owned());
    let connector = tower::service_fn(move |_: Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
            std::io::Result::Ok(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.ok()
}

async fn version(channel: Option<Channel>) -> bool {
    let Some(channel) = channel else { return false };
    VersionClient::new(channel).version(()).await.is_ok()
}

#[tokio::test]
async fn sockets_over_tcp_serve_those_with_a_certificate() {
    let Some(mut engine) = Engine::prepare() else { return };
    let (address, directory) = (free_address(), engine.path("certificates"));
    std::fs::create_dir(&directory).unwrap();
    make_certificates(&directory);
    let at = directory.display();
    engine.configure(&format!(
        "[grpc]\ntcp_address = \"{address}\"\ntcp_tls_ca = \"{at}/one-ca.crt\"\n\
         tcp_tls_cert = \"{at}/one.crt\"\ntcp_tls_key = \"{at}/one.key\"\n"
    ));
    engine.start_daemon();
    assert!(version(connect(&address, &directory, Some("one")).await).await);
    assert!(!version(connect(&address, &directory, Some("two")).await).await);
    assert!(!version(connect(&address, &directory, None).await).await);
    // Who says nothing holds nobody up.
    let _silent = TcpStream::connect(&address).await.unwrap();
    assert!(version(connect(&address, &directory, Some("one")).await).await);
}

#[test]
fn sockets_over_tcp_need_certificates() {
    let Some(engine) = Engine::prepare() else { return };
    engine.configure(&format!("[grpc]\ntcp_address = \"{}\"\n", free_address()));
    let refused = Finished::leaving(&mut engine.daemon_command());
    assert_ne!(refused.code, 0);
    refused.complains("tcp_tls_ca");
    // It is started once more, to be tidied up after.
    engine.configure("");
}

/// What is at `path`: the status and the body.
fn get(address: &str, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn sockets_with_metrics_tell_them() {
    let Some(mut engine) = Engine::prepare() else { return };
    let address = free_address();
    engine.configure(&format!("[metrics]\naddress = \"{address}\"\n"));
    engine.start_daemon();
    let image = "docker.io/library/busybox:latest";
    engine.import(&Image::busybox(image));
    engine.cli(&["run", "-d", image, "sleep", "1000"]).success();
    let id = engine.cli(&["ps", "-q", "--no-trunc"]).success().stdout;
    engine.ctr(&["containers", "info", "nobody"]).exited(1);
    let (status, text) = get(&address, "/v1/metrics");
    assert_eq!(status, 200);
    let label = format!("container_id=\"{}\"", id.trim());
    for name in ["container_pids_current", "container_cpu_", "container_memory_"] {
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(&label));
        let line = line.unwrap_or_else(|| panic!("no {name} with {label} in\n{text}"));
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 0.0 || !name.contains("pids"), "{line}");
    }
    let count = |name: &str, service: &str, method: &str, code: &str| {
        let labels = [
            format!("grpc_service=\"containerd.services.{service}\""),
            format!("grpc_method={method:?}"),
            code.to_owned(),
        ];
        let is_it =
            |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        let line = text.lines().find(is_it);
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    let (containers, content) = ("containers.v1.Containers", "content.v1.Content");
    assert_eq!(count("grpc_server_started_total", containers, "Get", ""), 1);
    let missing = "grpc_code=\"NotFound\"";
    assert_eq!(count("grpc_server_handled_total", containers, "Get", missing), 1);
    assert_eq!(count("grpc_server_msg_received_total", containers, "Get", ""), 1);
    assert_eq!(count("grpc_server_msg_sent_total", containers, "Get", ""), 0);
    // The image came in parts, each with an answer, the last one with two.
    let streamed = "grpc_type=\"bidi_stream\"";
    let received = count("grpc_server_msg_received_total", content, "Write", streamed);
    let sessions = count("grpc_server_started_total", content, "Write", streamed);
    assert!(received > sessions);
    let sent = count("grpc_server_msg_sent_total", content, "Write", streamed);
    assert_eq!(sent, received + sessions);
    let fine = "grpc_code=\"OK\"";
    assert!(count("grpc_server_handled_total", content, "Write", fine) > 0);
    for line in text.lines() {
        let whole =
            line.starts_with("# TYPE ") || line.rsplit(' ').next().unwrap().parse::<f64>().is_ok();
        assert!(whole, "{line}");
    }
    assert!(
        text.contains("\ncontainerd_build_info_total{")
            || text.starts_with("# TYPE containerd_build_info_total")
    );
    assert_eq!(get(&address, "/").0, 404);
}
