//! Which certificates of registries are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_types::{Error, Result, ResultExt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, SignatureScheme,
};
use rustls_platform_verifier::Verifier;

/// The files that a registry is configured with.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Files {
    /// The registry, for messages.
    pub(crate) registry: String,
    /// Certificates to trust besides those of the system's authorities.
    pub(crate) ca: Vec<PathBuf>,
    /// Certificates that show who asks, and their keys.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
}

/// TLS as a registry's files say.
///
/// # Errors
/// Those of reading the files; `FailedPrecondition` for what is no certificate.
pub(crate) fn tls(files: &Files) -> Result<ClientConfig> {
    let domain = &files.registry;
    let mut listed = Vec::new();
    for path in &files.ca {
        listed.extend(read(path).context(|| {
            format!("read CA certificates of registry {domain} from {}", path.display())
        })?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: rustls::Error| {
        Error::failed_precondition(format!("the certificates of registry {domain}: {error}"))
    };
    let verifier = Listed::new(listed, provider.clone()).map_err(unusable)?;
    let mut shown = Vec::new();
    for (certificate, key) in &files.client {
        let what = |path: &Path| {
            format!("read the client certificate of registry {domain} from {}", path.display())
        };
        let chain = read(certificate).context(|| what(certificate))?;
        let key = read_key(key).context(|| what(key))?;
        shown.push(Arc::new(CertifiedKey::from_der(chain, key, &provider).map_err(unusable)?));
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &shown[..] {
        [] => builder.with_no_client_auth(),
        _ => builder.with_client_cert_resolver(Arc::new(Shown(shown))),
    };
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).context(|| "open")?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(no_certificate)?;
    if certificates.is_empty() {
        return Err(no_certificate("there is none"));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let pem = std::fs::read(path).context(|| "open")?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|why| Error::failed_precondition(format!("a key in PEM is expected: {why}")))
}

fn no_certificate(why: impl std::fmt::Display) -> Error {
    Error::failed_precondition(format!("certificates in PEM are expected: {why}"))
}

/// Shows the first certificate that an authority has issued whom the registry names, or else the
/// first one.
#[derive(Debug)]
struct Shown(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|key| key.key.choose_scheme(schemes).is_some());
        let issued = usable().find(|key| key.cert.iter().any(|one| is_issued(one, authorities)));
        issued.or_else(|| usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

fn is_issued(certificate: &CertificateDer<'_>, authorities: &[&[u8]]) -> bool {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
    let issuer = DistinguishedName::in_sequence(certificate.issuer());
    authorities.contains(&issuer.as_ref())
}

/// Trusts what webpki trusts, and a registry that presents one of the listed certificates itself
/// though it is an authority's: what `openssl req -x509` makes is one, unless told otherwise.
#[derive(Debug)]
struct Listed {
    listed: Vec<CertificateDer<'static>>,
    webpki: Verifier,
}

impl Listed {
    fn new(
        listed: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let webpki = Verifier::new_with_extra_roots(listed.clone(), provider)?;
        Ok(Self { listed, webpki })
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(error) if is_authority(&error) && self.listed.contains(end_entity) => {
                // Its dates were looked at before its role. Its signature is its own.
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Whether a certificate is refused for being an authority's, and for nothing else so far.
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}
