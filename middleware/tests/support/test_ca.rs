//! Test CA: issues certificates for one test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

/// Certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM file with the CA certificate.
    pub(crate) file: PathBuf,
}

/// Files of an issued certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let file = directory.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Issues a certificate for `names`, valid until the start of `year`, to `file` with the
    /// extensions `crt` and `key`.
    pub(crate) fn issue(&self, file: &Path, names: &[&str], year: i32) -> Issued {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let issued = Issued { cert: file.with_extension("crt"), key: file.with_extension("key") };
        std::fs::write(&issued.key, key.serialize_pem()).unwrap();
        std::fs::write(&issued.cert, certificate.pem()).unwrap();
        issued
    }
}
