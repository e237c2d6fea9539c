//! The parsers of requests as functions over bytes.

use http::{HeaderMap, HeaderValue, header};
use orch_core::{cbor, client::PatchKind, protobuf};
use serde_json::Value;

use super::{
    accept::{self, Offers},
    options::Query,
    read_body::{decode_object, decode_patch},
    route,
};

const MEDIA_TYPES: [&str; 4] =
    ["application/json", "application/yaml", protobuf::CONTENT_TYPE, cbor::CONTENT_TYPE];
const OFFERS: Offers = Offers { cbor: true, custom: false, error: false, answers_only: false };

/// The object in a body; the first byte chooses the encoding.
pub(crate) fn body(data: &[u8]) -> Option<Value> {
    let (first, bytes) = data.split_first()?;
    let media_type = MEDIA_TYPES[usize::from(*first) % MEDIA_TYPES.len()];
    decode_object(media_type, bytes, "Pod", OFFERS).ok().flatten().map(|decoded| decoded.value)
}

/// The patch in a body.
pub(crate) fn patch(kind: PatchKind, data: &[u8]) -> Option<Value> {
    decode_patch(kind, false, data).ok().map(|decoded| decoded.value)
}

/// Query strings, read as the options of every verb.
pub(crate) fn queries(data: &[u8]) {
    let Ok(uri) = format!("/?{}", String::from_utf8_lossy(data)).parse() else { return };
    let query = Query::of(&uri);
    let _ = query.list();
    let _ = query.watch();
    for kind in ["CreateOptions", "UpdateOptions", "PatchOptions"] {
        let _ = query.write(kind);
    }
    let _ = query.delete(None);
}

/// The options of a deletion, in any encoding.
pub(crate) fn delete_options(data: &[u8]) {
    let Ok(uri) = "/".parse() else { return };
    if let Some(value) = body(data) {
        let _ = Query::of(&uri).delete(Some(&value));
    }
}

/// Paths. What is found must lead back to the parts that were found.
///
/// # Panics
/// If a part of a resource's path is empty, where a name means every object.
pub(crate) fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(route::Route::Resource(found)) = route::of(text) {
        assert!(!found.plural.is_empty() && !found.version.is_empty(), "{found:?}");
        for part in [&found.namespace, &found.name, &found.subresource].into_iter().flatten() {
            assert!(!part.is_empty(), "{found:?}");
        }
    }
}

/// `Accept` headers.
pub(crate) fn accept_headers(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(header::ACCEPT, value)]);
    for custom in [true, false] {
        let _ = accept::negotiate(&headers, Offers { custom, ..OFFERS });
    }
}
