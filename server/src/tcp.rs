//! The API over TCP, for clients that show a certificate of a configured authority: who may use
//! it can do what root can.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use berth_types::{Error, Result, ResultExt};

use crate::config::Grpc;

/// How long a client has to show its certificate.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a failure to accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Clients whose certificates are looked at at a time; others wait.
const HANDSHAKES: usize = 64;

/// A listener, with what its clients must know.
pub(crate) struct Tcp {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tcp {
    /// Listens as `grpc` says; `None` without an address.
    ///
    /// # Errors
    /// `InvalidArgument` without certificates; those of reading them and of the address.
    pub(crate) async fn listen(grpc: &Grpc) -> Result<Option<Self>> {
        if grpc.tcp_address.is_empty() {
            return Ok(None);
        }
        let acceptor = TlsAcceptor::from(Arc::new(tls(grpc)?));
        let what = || format!("grpc.tcp_address: listen on {}", grpc.tcp_address);
        let listener = TcpListener::bind(&grpc.tcp_address).await.context(what)?;
        Ok(Some(Self { listener, acceptor }))
    }

    /// The connections of clients that have shown a certificate.
    pub(crate) fn connections(self) -> mpsc::Receiver<std::io::Result<Connection>> {
        let (sender, connections) = mpsc::channel(HANDSHAKES);
        tokio::spawn(async move {
            let slots = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
            while let Ok(slot) = slots.clone().acquire_owned().await {
                let accepted = tokio::select! {
                    accepted = self.listener.accept() => accepted,
                    () = sender.closed() => return,
                };
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let (acceptor, sender) = (self.acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(sender.send(Ok(Connection(stream))).await),
                        Ok(Err(error)) => tracing::info!(%error, "a client over TCP is refused"),
                        Err(_) => tracing::info!("a client over TCP shows no certificate"),
                    }
                });
            }
        });
        connections
    }
}

fn tls(grpc: &Grpc) -> Result<ServerConfig> {
    let paths = [&grpc.tcp_tls_ca, &grpc.tcp_tls_cert, &grpc.tcp_tls_key];
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(Error::invalid_argument(
            "grpc.tcp_address needs tcp_tls_ca, tcp_tls_cert and tcp_tls_key: clients over TCP \
             must show a certificate, as they can do what root can",
        ));
    }
    let unusable = |error: &dyn std::fmt::Display| {
        Error::failed_precondition(format!("the certificates of grpc.tcp_address: {error}"))
    };
    let mut authorities = RootCertStore::empty();
    for certificate in certificates("grpc.tcp_tls_ca", &grpc.tcp_tls_ca)? {
        authorities.add(certificate).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone())
            .build()
            .map_err(|error| unusable(&error))?;
    let what = || format!("grpc.tcp_tls_key: read {}", grpc.tcp_tls_key.display());
    let pem = std::fs::read(&grpc.tcp_tls_key).context(what)?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(&error)).context(what)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates("grpc.tcp_tls_cert", &grpc.tcp_tls_cert)?, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".into()];
    Ok(config)
}

fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let what = || format!("{name}: read {}", path.display());
    let pem = std::fs::read(path).context(what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::failed_precondition(format!("{}: it has no certificate in PEM", what()))),
    }
}

/// A client that has shown its certificate.
pub(crate) struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
