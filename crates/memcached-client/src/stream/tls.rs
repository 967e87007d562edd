//! TLS, by rustls: the trusted authorities, and errors with their remedies.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        CertificateError, ClientConfig, Error, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// The settings of TLS, for servers that are [`ServerAddress::Tls`](crate::ServerAddress::Tls). Requires the Cargo feature `tls`.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// A file in PEM format with the certificates of the authorities that are trusted. Default: those that
    /// the platform trusts.
    pub ca_file: Option<PathBuf>,
    /// The certificate of this client and its key, for servers that require one (`ssl_verify_mode` of
    /// memcached). Default: none.
    pub client_certificate: Option<ClientCertificate>,
    /// The name that the certificate of the server must be for. Default: the host of the server.
    pub server_name: Option<String>,
    /// What was made of the settings. Connections share it, so that sessions are resumed.
    connector: SharedConnector,
}

/// A certificate and its private key, in files in PEM format.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate, followed by those of its authorities.
    pub certificates: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The connector of a client, made by its first connection.
#[derive(Clone, Default)]
struct SharedConnector(Arc<Mutex<Option<TlsConnector>>>);

impl fmt::Debug for SharedConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedConnector")
    }
}

impl SharedConnector {
    /// Returns the connector. If it cannot be made, for example because a file is missing, the next
    /// connection tries again.
    fn get(&self, settings: &TlsSettings) -> io::Result<TlsConnector> {
        let mut connector = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = &*connector {
            return Ok(connector.clone());
        }
        let made = TlsConnector::from(Arc::new(client_config(settings)?));
        *connector = Some(made.clone());
        Ok(made)
    }
}

/// Starts TLS on a connection to `host`.
pub(crate) async fn wrap(
    stream: TcpStream,
    host: &str,
    settings: &TlsSettings,
) -> io::Result<TlsStream<TcpStream>> {
    let name = settings.server_name.as_deref().unwrap_or(host);
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| problem(format!("“{name}” is not a name that a certificate can be for")))?;
    let connector = settings.connector.get(settings)?;
    connector.connect(server, stream).await.map_err(|error| explained(error, name))
}

fn client_config(settings: &TlsSettings) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots(settings)?);
    let Some(client) = &settings.client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let unreadable = |path: &Path, error: &dyn fmt::Display| {
        problem(format!("{} cannot be read: {error}", path.display()))
    };
    let certificates = CertificateDer::pem_file_iter(&client.certificates)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(&client.certificates, &error))?;
    let key = PrivateKeyDer::from_pem_file(&client.key)
        .map_err(|error| unreadable(&client.key, &error))?;
    builder
        .with_client_auth_cert(certificates, key)
        .map_err(|error| unreadable(&client.certificates, &error))
}

/// Returns the authorities that are trusted.
fn roots(settings: &TlsSettings) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = &settings.ca_file else {
        // Some of the platform's certificates may be unusable.
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let remedy = "install ca-certificates, or name a CA file";
            return Err(problem(format!("the platform trusts no certificate authority; {remedy}")));
        }
        return Ok(roots);
    };
    let unreadable = |error: &dyn fmt::Display| {
        problem(format!("the CA file {} cannot be read: {error}", file.display()))
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unreadable(&e))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(problem(format!("the CA file {} has no certificate", file.display())));
    }
    Ok(roots)
}

fn problem(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Adds the remedy to an error of the handshake.
fn explained(error: io::Error, name: &str) -> io::Error {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let text = match cause {
        Some(Error::InvalidCertificate(reason)) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate of the server has expired".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the certificate of the server is not for “{name}”")
            }
            CertificateError::UnknownIssuer => {
                "the certificate of the server is not signed by an authority that is trusted; name \
                 its CA file"
                    .to_owned()
            }
            other => format!("the certificate of the server is not valid: {other:?}"),
        },
        Some(Error::InvalidMessage(_)) => "the server does not speak TLS".to_owned(),
        _ => format!("TLS: {error}"),
    };
    io::Error::new(error.kind(), text)
}
