//! JSON web tokens signed with ES256 (EC P-256 and SHA-256), and the key set that verifies them.
//!
//! Source: RFC 7515, RFC 7518; `k8s.io/kubernetes/pkg/serviceaccount`, `jwt.go`.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What comes before the point of a P-256 key in its `SubjectPublicKeyInfo`.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Longer tokens are not looked at: ours are a tenth of it.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not an EC P-256 key in PKCS #8 and PEM.
    #[error("not an EC P-256 private key in PKCS #8 and PEM")]
    Key,
    /// The key did not sign.
    #[error("signing failed")]
    Sign,
}

/// A signing key and its public half. Cheap to clone.
#[derive(Clone)]
pub struct TokenKey(Arc<Inner>);

struct Inner {
    pair: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.0.id)
    }
}

impl TokenKey {
    /// A key from PEM, as [`crate::serve::Pki::service_account_key_pem`] gives it.
    ///
    /// # Errors
    /// [`KeyError::Key`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Key)?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    /// A new key that is kept nowhere.
    ///
    /// # Errors
    /// [`KeyError::Key`] if the operating system has no randomness to give.
    pub fn generate() -> Result<Self, KeyError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new());
        Self::from_pkcs8(der.map_err(|_| KeyError::Key)?.as_ref())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map_err(|_| KeyError::Key)?;
        let mut info = SPKI_PREFIX.to_vec();
        info.extend_from_slice(pair.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&info));
        Ok(Self(Arc::new(Inner { pair, id, random })))
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let header = json!({"alg": "ES256", "kid": self.0.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.0.pair.sign(&self.0.random, signed.as_bytes());
        let signature = signature.map_err(|_| KeyError::Sign)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key signed; `None` for any other.
    pub fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if header["alg"] != "ES256" {
            return None;
        }
        let public = self.0.pair.public_key().as_ref();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
        key.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// The key set (JWKS) that `/openid/v1/jwks` serves.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: a format byte, then both coordinates.
        let (x, y) = self.0.pair.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.0.id,
            "crv": "P-256",
            "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// The document that `/.well-known/openid-configuration` serves.
pub fn discovery(issuer: &str, jwks_uri: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_key_signed_is_believed() {
        let key = TokenKey::generate().unwrap();
        let token = key.sign(&json!({"sub": "a"})).unwrap();
        assert_eq!(key.verify(&token), Some(json!({"sub": "a"})));
        assert_eq!(TokenKey::generate().unwrap().verify(&token), None);
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#);
        assert_eq!(key.verify(&format!("{header}.{forged}.{signature}")), None);
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for token in [format!("{none}.{forged}."), String::new(), "a.b.c".into(), ".".into()] {
            assert_eq!(key.verify(&token), None, "{token}");
        }
    }

    #[test]
    fn the_key_set_has_both_coordinates() {
        let set = TokenKey::generate().unwrap().key_set();
        for coordinate in ["x", "y"] {
            let text = set["keys"][0][coordinate].as_str().unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(text).unwrap().len(), 32);
        }
    }
}
