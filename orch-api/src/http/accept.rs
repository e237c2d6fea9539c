//! In which form a client wants its answer.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`, `github.com/munnerz/goautoneg`.

use http::{HeaderMap, header};
use orch_core::{ApiError, status::Reason};

/// The serialization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Encoding {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => orch_core::protobuf::CONTENT_TYPE,
            Self::Cbor => orch_core::cbor::CONTENT_TYPE,
        }
    }

    /// The media type of a watch; none for what has no way to tell events apart.
    pub(super) fn stream_media_type(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("application/json"),
            Self::Yaml => None,
            Self::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
            Self::Cbor => Some(orch_core::cbor::SEQUENCE),
        }
    }
}

/// What the objects are turned into before they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// The objects themselves.
    #[default]
    Plain,
    /// `Table`.
    Table,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `PartialObjectMetadataList`.
    MetadataList,
}

/// What was agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) encoding: Encoding,
    pub(super) shape: Shape,
    /// The version of the shape is `v1beta1`, not `v1`.
    pub(super) beta: bool,
    /// The media range asks for text that humans read.
    pub(super) pretty: bool,
}

impl Accepted {
    /// `apiVersion` of what a shape makes of objects.
    pub(super) fn shape_version(self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }
}

/// What is on offer at an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offers {
    /// The server speaks CBOR.
    pub(super) cbor: bool,
    /// The resource is a custom one: its objects have no protobuf form, their metadata has.
    pub(super) custom: bool,
    /// The answer is an error: it has no other shape, but every encoding.
    pub(super) error: bool,
    /// The resource stores nothing: its answers have no metadata, and so no other shape.
    pub(super) answers_only: bool,
}

impl Offers {
    pub(super) fn encodings(self) -> impl Iterator<Item = Encoding> {
        let cbor = self.cbor.then_some(Encoding::Cbor);
        [Encoding::Json, Encoding::Yaml, Encoding::Protobuf].into_iter().chain(cbor)
    }

    fn media_types(self) -> String {
        let all: Vec<&str> = self.encodings().map(Encoding::media_type).collect();
        all.join(", ")
    }

    /// The refusal of a client that takes nothing of it.
    fn not_acceptable(self) -> ApiError {
        not_acceptable(&self.media_types())
    }

    /// The refusal of a watch in a form that has no stream.
    pub(super) fn no_stream(self) -> ApiError {
        let all: Vec<String> = self.encodings().filter_map(stream_offer).collect();
        not_acceptable(&all.join(", "))
    }

    /// The refusal of a body in another form.
    pub(super) fn unsupported(self) -> ApiError {
        unsupported(&self.media_types())
    }

    /// The form that a media range leads to, if that form is on offer.
    fn accept(self, range: &Range<'_>, encoding: Encoding) -> Option<Accepted> {
        let streams = encoding.stream_media_type().is_some();
        let stream = range.parameter("stream").unwrap_or_default();
        let version = range.parameter("sv").unwrap_or_default();
        if !(stream.is_empty() || streams && stream == "watch")
            || !(version.is_empty() || !self.error && version == "v1")
        {
            return None;
        }
        let pretty = range.parameter("pretty") == Some("1");
        let accepted = Accepted { encoding, pretty, ..Accepted::default() };
        let target = ["as", "g", "v"].map(|name| range.parameter(name));
        if target == [None; 3] {
            return (!self.custom || encoding != Encoding::Protobuf).then_some(accepted);
        }
        let [kind, group, version] = target.map(Option::unwrap_or_default);
        if self.error
            || self.answers_only
            || group != "meta.k8s.io"
            || !matches!(version, "v1" | "v1beta1")
        {
            return None;
        }
        let shape = match kind {
            "Table" if matches!(encoding, Encoding::Json | Encoding::Yaml) => Shape::Table,
            "PartialObjectMetadata" => Shape::Metadata,
            "PartialObjectMetadataList" => Shape::MetadataList,
            _ => return None,
        };
        Some(Accepted { shape, beta: version == "v1beta1", ..accepted })
    }
}

fn stream_offer(encoding: Encoding) -> Option<String> {
    match encoding {
        Encoding::Cbor => Some(orch_core::cbor::SEQUENCE.into()),
        other => other.stream_media_type().map(|_| format!("{};stream=watch", other.media_type())),
    }
}

fn not_acceptable(accepted: &str) -> ApiError {
    let why = format!("only the following media types are accepted: {accepted}");
    ApiError::new(Reason::NotAcceptable, why)
}

pub(super) fn unsupported(accepted: &str) -> ApiError {
    let why = format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted}"
    );
    ApiError::new(Reason::UnsupportedMediaType, why)
}

/// One media range of an `Accept` header.
pub(super) struct Range<'a> {
    pub(super) media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Range<'_> {
    /// The last value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn covers(&self, media_type: &str) -> bool {
        self.media_type == media_type || matches!(self.media_type, "*/*" | "*" | "application/*")
    }

    /// What is sorted by: the most wanted first, and the exact before what has wildcards.
    fn order(&self) -> (f32, bool, bool) {
        let any = self.media_type.starts_with('*');
        (-self.quality, any, any || self.media_type.ends_with("/*"))
    }
}

/// The media ranges of the `Accept` header, the most wanted first.
pub(super) fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    let header = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let ranges = header.unwrap_or_default().split(',');
    let mut found: Vec<Range<'_>> = ranges.filter_map(range).collect();
    // The sort is stable: among equals, the order of the header counts.
    found.sort_by(|a, b| {
        let (a, b) = (a.order(), b.order());
        a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)))
    });
    found
}

fn range(text: &str) -> Option<Range<'_>> {
    let mut words = text.split(';').map(str::trim);
    let media_type = words.next().unwrap_or_default();
    if media_type != "*" && media_type.split('/').count() != 2 {
        return None;
    }
    let mut range = Range { media_type, parameters: Vec::new(), quality: 1.0 };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match (key.trim(), value.trim()) {
            (_, "") => {}
            (_, value) if value.contains('=') => {}
            ("q", value) => range.quality = value.parse().unwrap_or(0.0),
            parameter => range.parameters.push(parameter),
        }
    }
    Some(range)
}

/// Agrees on a form.
///
/// # Errors
/// `NotAcceptable` if the client takes nothing that is on offer.
pub(super) fn negotiate(headers: &HeaderMap, offers: Offers) -> Result<Accepted, ApiError> {
    if headers.get(header::ACCEPT).is_none_or(|value| value.is_empty()) {
        return Ok(Accepted::default());
    }
    let ranges = ranges(headers);
    let mut forms = ranges.iter().flat_map(|range| {
        let covered = offers.encodings().filter(|encoding| range.covers(encoding.media_type()));
        covered.filter_map(|encoding| offers.accept(range, encoding))
    });
    forms.next().ok_or_else(|| offers.not_acceptable())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

    fn of(accept: &str, offers: Offers) -> Option<Accepted> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        negotiate(&headers, offers).ok()
    }

    #[test]
    fn the_most_wanted_form_that_exists_is_given() {
        let check = |accept: &str, expected: Option<(Encoding, Shape)>| {
            let found = of(accept, Offers::default()).map(|a| (a.encoding, a.shape));
            assert_eq!(found, expected, "{accept}");
        };
        let json = Some((Encoding::Json, Shape::Plain));
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        check("", json);
        check(&format!("{table},application/json"), Some((Encoding::Json, Shape::Table)));
        check("application/json;as=Table;v=v9;g=meta.k8s.io, */*", json);
        check("application/json;as=Table", None);
        check("application/json;q=0.1, application/yaml", Some((Encoding::Yaml, Shape::Plain)));
        check("*/*, application/yaml", Some((Encoding::Yaml, Shape::Plain)));
        check(&format!("{PROTOBUF}, application/json"), Some((Encoding::Protobuf, Shape::Plain)));
        check(&format!("{PROTOBUF};as=Table;v=v1;g=meta.k8s.io, application/json"), json);
        let partial = format!("{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
        check(&partial, Some((Encoding::Protobuf, Shape::Metadata)));
        check("application/json;stream=watch", json);
        check("application/yaml;stream=watch, application/json", json);
        check("application/json;stream=novel", None);
        check("application/json;sv=v2", None);
        check("text/html", None);
        check("application", None);
        check("application/cbor", None);
    }

    #[test]
    fn what_is_on_offer_differs() {
        let custom = Offers { custom: true, ..Offers::default() };
        assert_eq!(of(PROTOBUF, custom), None);
        let both = of(&format!("{PROTOBUF},application/json"), custom).unwrap();
        assert_eq!(both.encoding, Encoding::Json);
        let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io");
        let partial = of(&partial, custom).unwrap();
        assert_eq!(
            (partial.shape, partial.shape_version()),
            (Shape::MetadataList, "meta.k8s.io/v1beta1")
        );
        let cbor = Offers { cbor: true, ..Offers::default() };
        assert_eq!(of("application/cbor", cbor).unwrap().encoding, Encoding::Cbor);
        let error = Offers { error: true, ..Offers::default() };
        assert_eq!(of("application/json;as=Table;v=v1;g=meta.k8s.io", error), None);
        assert!(cbor.no_stream().to_string().ends_with(
            ": application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, \
             application/cbor-seq"
        ));
    }
}
