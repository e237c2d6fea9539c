//! Request bodies.

use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use orch_core::{ApiError, client::PatchKind, status::Reason};
use serde_json::Value;

use super::Exchange;
use crate::registry::decode_json;

/// A body, and the paths of fields that it gives twice.
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

    /// The object in the body; `None` if there is no body.
    pub(super) async fn object(&mut self) -> Result<Option<Decoded>, ApiError> {
        let media_type = self.media_type();
        let bytes = self.body_bytes().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match media_type.as_str() {
            "" | "application/json" => decode(&bytes).map(Some),
            "application/yaml" => decode_yaml(&bytes).map(Some),
            "application/vnd.kubernetes.protobuf" => {
                let value = orch_core::protobuf::decode(&bytes)
                    .map_err(|error| ApiError::bad_request(error.to_string()))?;
                Ok(Some(Decoded { value, duplicates: Vec::new() }))
            }
            other => Err(unsupported(&format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json, application/yaml, application/vnd.kubernetes.protobuf (found {other})"
            ))),
        }
    }

    /// The patch in the body.
    pub(super) async fn patch(&mut self) -> Result<(PatchKind, Decoded), ApiError> {
        let media_type = self.media_type();
        let kinds = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];
        let kind = kinds.into_iter().find(|kind| kind.media_type() == media_type);
        let kind = kind.ok_or_else(|| {
            let known: Vec<&str> = kinds.iter().map(|kind| kind.media_type()).collect();
            unsupported(&format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                known.join(", ")
            ))
        })?;
        let bytes = self.body_bytes().await?;
        let decoded = match kind {
            PatchKind::Apply => decode_yaml(&bytes)?,
            _ => decode(&bytes)?,
        };
        Ok((kind, decoded))
    }
}

fn unsupported(why: &str) -> ApiError {
    ApiError::new(Reason::UnsupportedMediaType, why)
}

fn decode(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let mut duplicates = Vec::new();
    let value = decode_json(bytes, &mut duplicates).map_err(|error| {
        ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
    })?;
    Ok(Decoded { value, duplicates })
}

fn decode_yaml(bytes: &[u8]) -> Result<Decoded, ApiError> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = decode(bytes)
    {
        return Ok(decoded);
    }
    let value = serde_saphyr::from_slice(bytes).map_err(|error| {
        ApiError::bad_request(format!("error converting YAML to JSON: {error}"))
    })?;
    Ok(Decoded { value, duplicates: Vec::new() })
}
