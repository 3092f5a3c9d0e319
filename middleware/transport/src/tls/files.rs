//! PEM files: certificates, keys and CA stores for rustls.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::Error;

/// Certificate chain, leaf first, with its private key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A file and its content at the last read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::Unreadable(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    fn not_pem(&self, what: &'static str) -> Error {
        Error::NotPem(self.path.clone(), what)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certificates = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        certificates.ok().filter(|all| !all.is_empty()).ok_or_else(|| self.not_pem("certificate"))
    }

    /// Parses the CA certificates.
    pub(super) fn authorities(&self) -> Result<RootCertStore, Error> {
        let mut store = RootCertStore::empty();
        for certificate in self.certificates()? {
            store.add(certificate).map_err(|error| self.invalid_ca(error))?;
        }
        Ok(store)
    }

    pub(super) fn invalid_ca(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::InvalidCa(self.path.clone(), error.into())
    }
}

/// Parses a certificate chain and its private key.
pub(super) fn identity(chain: &File, key: &File) -> Result<Identity, Error> {
    let key = PrivateKeyDer::from_pem_slice(&key.bytes).map_err(|_| key.not_pem("private key"))?;
    Ok((chain.certificates()?, key))
}

/// Explicit provider: two are linked, so that rustls selects no process default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Returns the expiry (`notAfter`) of the leaf certificate in Unix seconds, or `None` if it cannot
/// be parsed.
pub(super) fn expiry(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let (_, certificate) = parse_x509_certificate(chain.first()?).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Returns the DNS names of a certificate (subject alternative names).
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = alternatives.value.general_names.iter();
    names.filter_map(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }).collect()
}
