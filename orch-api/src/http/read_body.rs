//! Request bodies.

use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use orch_core::{ApiError, cbor, client::PatchKind, protobuf, status::Reason};
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use super::{
    Exchange,
    accept::{Offers, unsupported},
};
use crate::registry::{BodyError, decode_json};

/// How much of a body that cannot be read is shown in the refusal, in bytes.
const SHOWN: usize = 30;

/// A body, and complaints about fields that it gives twice.
pub(super) struct Decoded {
    pub(super) value: Value,
    pub(super) duplicates: Vec<String>,
}

impl Exchange {
    fn media_type(&self) -> String {
        let value = self.parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let value = value.unwrap_or_default().split(';').next().unwrap_or_default();
        value.trim().to_ascii_lowercase()
    }

    async fn body_bytes(&mut self) -> Result<Bytes, ApiError> {
        let max = self.server.options.body_bytes_max;
        let mut body = std::mem::replace(self.body.get_mut(), super::respond::empty());
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                ApiError::bad_request(format!("the body could not be read: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > max {
                let why = format!("Request entity too large: limit is {max}");
                return Err(ApiError::new(Reason::RequestEntityTooLarge, why));
            }
            read.extend_from_slice(&data);
        }
        Ok(read.freeze())
    }

    /// The object in the body, which should be of a kind; `None` if there is no body.
    pub(super) async fn object(
        &mut self,
        kind: &str,
        offers: Offers,
    ) -> Result<Option<Decoded>, ApiError> {
        let media_type = self.media_type();
        let bytes = self.body_bytes().await?;
        decode_object(&media_type, &bytes, kind, offers)
    }

    /// The patch in the body.
    pub(super) async fn patch(&mut self, offers: Offers) -> Result<(PatchKind, Decoded), ApiError> {
        let media_type = self.media_type();
        let kind = patch_kind(&media_type, offers)?;
        let bytes = self.body_bytes().await?;
        let cbor = media_type == cbor::APPLY_PATCH;
        Ok((kind, decode_patch(kind, cbor, &bytes)?))
    }
}

/// The object in a body of that media type; `None` if the body is empty.
pub(super) fn decode_object(
    media_type: &str,
    bytes: &[u8],
    kind: &str,
    offers: Offers,
) -> Result<Option<Decoded>, ApiError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match media_type {
        "" | "application/json" => decode(bytes).map(Some).map_err(|why| {
            refused(why, |why| unrecognized(kind, &format!("{NO_KIND}{why}"), bytes))
        }),
        "application/yaml" => {
            decode_yaml(bytes).map(Some).map_err(|why| unrecognized(kind, &why, bytes))
        }
        protobuf::CONTENT_TYPE => {
            let value = protobuf::decode(bytes)
                .map_err(|error| unrecognized(kind, &error.to_string(), bytes))?;
            Ok(Some(Decoded { value, duplicates: Vec::new() }))
        }
        cbor::CONTENT_TYPE if offers.cbor => {
            let value = cbor::decode(bytes)
                .map_err(|error| unrecognized(kind, &format!("{NO_CBOR_KIND}{error}"), bytes))?;
            Ok(Some(Decoded { value, duplicates: Vec::new() }))
        }
        _ => Err(offers.unsupported()),
    }
}

fn patch_kind(media_type: &str, offers: Offers) -> Result<PatchKind, ApiError> {
    let kinds = patch_kinds(offers);
    let kind = kinds.iter().find(|(of, _)| *of == media_type).map(|(_, kind)| *kind);
    kind.ok_or_else(|| {
        let known: Vec<&str> = kinds.iter().map(|(of, _)| *of).collect();
        unsupported(&known.join(", "))
    })
}

/// The patch in a body.
pub(super) fn decode_patch(
    kind: PatchKind,
    is_cbor: bool,
    bytes: &[u8],
) -> Result<Decoded, ApiError> {
    match kind {
        PatchKind::Apply if is_cbor => {
            let value = cbor::decode(bytes).map_err(|error| undecodable(&error.to_string()))?;
            Ok(Decoded { value, duplicates: Vec::new() })
        }
        PatchKind::Apply => decode_yaml(bytes)
            .map_err(|why| ApiError::bad_request(format!("error decoding YAML: {why}"))),
        _ => decode(bytes).map_err(|why| refused(why, undecodable)),
    }
}

fn refused(error: BodyError, malformed: impl FnOnce(&str) -> ApiError) -> ApiError {
    match error {
        BodyError::Json(error) => malformed(&error.to_string()),
        BodyError::TooLarge => ApiError::new(Reason::RequestEntityTooLarge, error.to_string()),
    }
}

/// The media types of patches, in upstream's order. Custom resources have no strategic merge.
///
/// Source: `k8s.io/apiserver/pkg/endpoints/installer.go`,
/// `k8s.io/apiextensions-apiserver/pkg/apiserver/customresource_handler.go`.
fn patch_kinds(offers: Offers) -> Vec<(&'static str, PatchKind)> {
    let kinds = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];
    let mut kinds: Vec<_> = kinds.into_iter().map(|kind| (kind.media_type(), kind)).collect();
    kinds.retain(|(_, kind)| !offers.custom || *kind != PatchKind::Strategic);
    if offers.cbor {
        kinds.push((cbor::APPLY_PATCH, PatchKind::Apply));
    }
    kinds
}

fn undecodable(error: &str) -> ApiError {
    ApiError::bad_request(format!("error decoding patch: {error}"))
}

const NO_KIND: &str = "couldn't get version/kind; json parse error: ";
const NO_CBOR_KIND: &str = "unable to determine group/version/kind: ";

/// Source: `k8s.io/apiserver/pkg/endpoints/handlers/create.go`, `transformDecodeError`.
fn unrecognized(kind: &str, why: &str, bytes: &[u8]) -> ApiError {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let mut summary = match shown.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        _ => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if bytes.len() > SHOWN {
        summary.push_str(" ...");
    }
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({summary})"
    ))
}

/// The refusal of a request that should have had a body.
pub(super) fn no_body(kind: &str) -> ApiError {
    unrecognized(kind, &format!("{NO_KIND}unexpected end of JSON input"), b"")
}

fn decode(bytes: &[u8]) -> Result<Decoded, BodyError> {
    let mut paths = Vec::new();
    let value = decode_json(bytes, &mut paths)?;
    let duplicates = paths.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    Ok(Decoded { value, duplicates })
}

/// Reads YAML as upstream's parser does: version 1.1, where plain `y` and `no` are booleans and
/// `0644` is octal. Of keys that are given twice the last one counts.
///
/// Source: `sigs.k8s.io/yaml`.
fn decode_yaml(bytes: &[u8]) -> Result<Decoded, String> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = decode(bytes)
    {
        return Ok(decoded);
    }
    let read = |duplicate_keys| {
        let options = serde_saphyr::options! {
            duplicate_keys: duplicate_keys,
            legacy_octal_numbers: true,
            with_snippet: false,
        };
        serde_saphyr::from_slice_with_options::<Value>(bytes, options)
    };
    match read(DuplicateKeyPolicy::Error) {
        Ok(value) => Ok(Decoded { value, duplicates: Vec::new() }),
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            let value = read(DuplicateKeyPolicy::LastWins).map_err(|error| error.to_string())?;
            let key = key.unwrap_or_default();
            let told = format!("line {}: key {key:?} already set in map", location.line());
            Ok(Decoded { value, duplicates: vec![told] })
        }
        Err(error) => Err(format!("error converting YAML to JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_as_upstream_reads_it() {
        let check = |text: &str, value: Value| {
            assert_eq!(decode_yaml(text.as_bytes()).map(|d| d.value), Ok(value), "{text}");
        };
        check("{a: y, b: No, c: 'y', d: on}", json!({"a": true, "b": false, "c": "y", "d": true}));
        check("mode: 0644", json!({"mode": 420}));
        check("{\"a\": 1}", json!({"a": 1}));
        check(
            "a: 1e3\nb: 1.5\nc: ~\nd: 2026-01-01",
            json!({"a": 1000.0, "b": 1.5, "c": null,
            "d": "2026-01-01"}),
        );
        for wrong in ["a: [", "a: b: c", "&x [*x, *y]"] {
            assert!(decode_yaml(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let twice = decode_yaml(b"a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(twice.value, json!({"a": 3, "b": 2}));
        assert_eq!(twice.duplicates, ["line 3: key \"a\" already set in map"]);
    }
}
