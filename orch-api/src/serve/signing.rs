//! Certificates that others asked for.

use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Pki, PkiError, pki::set_validity};

/// What a certificate says that its request does not decide.
#[derive(Clone, Copy, Debug)]
pub struct SigningTerms<'a> {
    /// What it may be used for, by the names of `certificates.k8s.io` (`client auth`, ...).
    pub usages: &'a [String],
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// No such usage.
    #[error("unrecognized usage values: [{0:?}]")]
    Usage(String),
    /// The request cannot be read, or is not signed by the key that it is for.
    #[error("unable to verify certificate request signature: {0}")]
    Request(rcgen::Error),
    /// The authority's key cannot be used.
    #[error(transparent)]
    Authority(#[from] PkiError),
    /// The system has no randomness, or the certificate could not be made.
    #[error("failed to sign certificate: {0}")]
    Sign(String),
}

impl Pki {
    /// Signs a request in PEM: the certificate has its subject, its alternative names and its key,
    /// the terms' usages and times, is no authority's, and has a serial number of its own.
    ///
    /// Differs: a request for extensions other than alternative names, usages and constraints is
    /// refused; upstream passes over them.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn sign_request(&self, pem: &str, terms: SigningTerms<'_>) -> Result<String, SigningError> {
        let mut request =
            CertificateSigningRequestParams::from_pem(pem).map_err(SigningError::Request)?;
        let params = &mut request.params;
        set_usages(params, terms.usages)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions.clear();
        set_validity(params, terms.not_before, terms.not_after);
        params.serial_number = Some(serial_number()?);
        let signed = request.signed_by(&self.issuer()?);
        signed.map(|signed| signed.pem()).map_err(|error| SigningError::Sign(error.to_string()))
    }
}

/// As many random bits as upstream's have, and not negative.
fn serial_number() -> Result<SerialNumber, SigningError> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| SigningError::Sign("there is no randomness".to_owned()))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Source: `pkg/controller/certificates/authority/policies.go`.
fn set_usages(params: &mut CertificateParams, usages: &[String]) -> Result<(), SigningError> {
    use ExtendedKeyUsagePurpose as Extended;
    use KeyUsagePurpose as Plain;
    let (mut plain, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match usage.as_str() {
            "signing" | "digital signature" => plain.push(Plain::DigitalSignature),
            "content commitment" => plain.push(Plain::ContentCommitment),
            "key encipherment" => plain.push(Plain::KeyEncipherment),
            "key agreement" => plain.push(Plain::KeyAgreement),
            "data encipherment" => plain.push(Plain::DataEncipherment),
            "cert sign" => plain.push(Plain::KeyCertSign),
            "crl sign" => plain.push(Plain::CrlSign),
            "encipher only" => plain.push(Plain::EncipherOnly),
            "decipher only" => plain.push(Plain::DecipherOnly),
            "any" => extended.push(Extended::Any),
            "server auth" => extended.push(Extended::ServerAuth),
            "client auth" => extended.push(Extended::ClientAuth),
            "code signing" => extended.push(Extended::CodeSigning),
            "email protection" | "s/mime" => extended.push(Extended::EmailProtection),
            "ipsec end system" => extended.push(Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 5])),
            "ipsec tunnel" => extended.push(Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 6])),
            "ipsec user" => extended.push(Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 7])),
            "timestamping" => extended.push(Extended::TimeStamping),
            "ocsp signing" => extended.push(Extended::OcspSigning),
            "microsoft sgc" => {
                extended.push(Extended::Other(vec![1, 3, 6, 1, 4, 1, 311, 10, 3, 3]));
            }
            "netscape sgc" => extended.push(Extended::Other(vec![2, 16, 840, 1, 113_730, 4, 1])),
            other => return Err(SigningError::Usage(other.to_owned())),
        }
    }
    // What the request asks for is not what was approved.
    params.key_usages.clear();
    params.extended_key_usages.clear();
    for usage in plain {
        if !params.key_usages.contains(&usage) {
            params.key_usages.push(usage);
        }
    }
    for usage in extended {
        if !params.extended_key_usages.contains(&usage) {
            params.extended_key_usages.push(usage);
        }
    }
    Ok(())
}
