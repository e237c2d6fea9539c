//! The tokens with which a client asks for the next page of a list.
//!
//! Source: `k8s.io/apiserver/pkg/storage/continue.go`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use orch_core::ApiError;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the list; -1 goes on with whatever is there now.
    rv: i64,
    /// The first key of the next page, relative to the collection.
    start: String,
}

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    /// `None` goes on at the newest revision, after the list's own was compacted.
    pub(super) revision: Option<u64>,
    pub(super) start: Vec<u8>,
}

/// The token of the page that starts behind `last_key`.
pub(super) fn encode(prefix: &[u8], last_key: &[u8], revision: Option<u64>) -> String {
    let relative = last_key.strip_prefix(prefix).unwrap_or(last_key);
    let start = format!("{}\0", String::from_utf8_lossy(relative));
    let rv = revision.and_then(|r| i64::try_from(r).ok()).unwrap_or(-1);
    let token = Token { v: "meta.k8s.io/v1".into(), rv, start };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// Reads a token.
///
/// # Errors
/// `BadRequest` for one that this server cannot have given.
pub(super) fn decode(prefix: &[u8], token: &str) -> Result<Continuation, ApiError> {
    let bad = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
    let token =
        URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| bad(&e.to_string()))?;
    let token: Token = serde_json::from_slice(&token).map_err(|e| bad(&e.to_string()))?;
    if token.v != "meta.k8s.io/v1" {
        return Err(bad(&format!("server does not recognize this encoded version {:?}", token.v)));
    }
    let revision = match token.rv {
        -1 => None,
        rv => Some(u64::try_from(rv).ok().filter(|rv| *rv > 0).ok_or_else(|| {
            bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
        })?),
    };
    if token.start.is_empty() || token.start.starts_with('/') {
        return Err(bad("encoded start key empty or invalid (version meta.k8s.io/v1)"));
    }
    let start = [prefix, token.start.as_bytes()].concat();
    Ok(Continuation { revision, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        let token = encode(b"/registry/pods/", b"/registry/pods/default/a", Some(7));
        let back = decode(b"/registry/pods/", &token).unwrap();
        let start = b"/registry/pods/default/a\0".to_vec();
        assert_eq!(back, Continuation { revision: Some(7), start });
        for bad in ["", "!!", "e30", "AAAA"] {
            assert_eq!(decode(b"/", bad).unwrap_err().code(), 400, "{bad}");
        }
    }
}
