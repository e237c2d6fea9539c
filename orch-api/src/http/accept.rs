//! In which form a client wants its answer.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`.

use http::{HeaderMap, header};
use orch_core::{ApiError, status::Reason};

/// The serialization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// What the objects are turned into before they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// The objects themselves.
    #[default]
    Plain,
    /// `meta.k8s.io/v1` `Table`.
    Table,
    /// `PartialObjectMetadata`, or a list of them.
    Metadata,
}

/// What was agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) encoding: Encoding,
    pub(super) shape: Shape,
}

/// One media range of an `Accept` header.
pub(super) struct Range<'a> {
    pub(super) media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Range<'_> {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The media ranges of the `Accept` headers, the most wanted first.
pub(super) fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    let mut found: Vec<(f32, Range<'_>)> = Vec::new();
    for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut words = range.split(';').map(str::trim);
            let media_type = words.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> = words.filter_map(|w| w.split_once('=')).collect();
            let quality = parameters.iter().find(|(key, _)| *key == "q");
            let quality = quality.and_then(|(_, value)| value.parse().ok()).unwrap_or(1.0);
            if !media_type.is_empty() {
                found.push((quality, Range { media_type, parameters }));
            }
        }
    }
    // The sort is stable: among equals, the order of the header counts.
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().map(|(_, range)| range).collect()
}

/// Agrees on a form. `reads` says whether the answer may be a table or metadata.
///
/// # Errors
/// `NotAcceptable` if the client takes nothing that the server has.
pub(super) fn negotiate(headers: &HeaderMap, reads: bool) -> Result<Accepted, ApiError> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(Accepted::default());
    }
    let only_protobuf =
        ranges.iter().all(|r| r.media_type == "application/vnd.kubernetes.protobuf");
    for range in &ranges {
        let encoding = match range.media_type {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            // JSON is what objects are kept in: protobuf is for those who take nothing else.
            "application/vnd.kubernetes.protobuf" if only_protobuf => Encoding::Protobuf,
            _ => continue,
        };
        let shape = match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
            (None, ..) => Shape::Plain,
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) if reads => Shape::Table,
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1"),
            ) if reads => Shape::Metadata,
            _ => continue,
        };
        return Ok(Accepted { encoding, shape });
    }
    Err(ApiError::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_wanted_form_that_exists_is_given() {
        let check = |accept: &str, expected: Option<(Encoding, Shape)>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            let found = negotiate(&headers, true).ok().map(|a| (a.encoding, a.shape));
            assert_eq!(found, expected, "{accept}");
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        check(&format!("{table},application/json"), Some((Encoding::Json, Shape::Table)));
        check("application/json;as=Table;v=v9;g=meta.k8s.io, */*", Some(Default::default()));
        check("application/json;q=0.1, application/yaml", Some((Encoding::Yaml, Shape::Plain)));
        check("application/vnd.kubernetes.protobuf, application/json", Some(Default::default()));
        check("text/html", None);
    }
}
