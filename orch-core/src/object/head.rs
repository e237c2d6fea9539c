//! Where in an object's JSON its names are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, de::Error as _};

/// A string in an object's bytes, without its quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Option<Self> {
        let length = u32::try_from(end.checked_sub(start)?).ok()?;
        Some(Self { start: u32::try_from(start).ok()?, length })
    }

    pub(super) fn of(self, json: &[u8]) -> &str {
        let start = self.start as usize;
        let bytes = json.get(start..start + self.length as usize).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// The parts of an object that are asked for most, as places in its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Span,
    pub(super) api_version: Span,
    pub(super) name: Span,
    pub(super) namespace: Span,
    /// Behind the `{` of the metadata.
    pub(super) metadata: u32,
    /// The bytes begin in the order of [`super::encoding`].
    pub(super) ordered: bool,
}

/// What `"metadata":{` takes.
pub(super) const METADATA_KEY: usize = "\"metadata\":{".len();

impl Head {
    /// Reads the beginning of what [`super::encoding`] has written.
    pub(super) fn of_ordered(json: &[u8]) -> Option<Self> {
        let mut at = 0;
        expect(json, &mut at, b"{\"kind\":")?;
        let kind = string(json, &mut at)?;
        expect(json, &mut at, b",\"apiVersion\":")?;
        let api_version = string(json, &mut at)?;
        expect(json, &mut at, b",\"metadata\":{")?;
        let metadata = u32::try_from(at).ok()?;
        expect(json, &mut at, b"\"name\":")?;
        let name = string(json, &mut at)?;
        let namespace = match expect(json, &mut at, b",\"namespace\":") {
            Some(()) => string(json, &mut at)?,
            None => Span::default(),
        };
        Some(Self { kind, api_version, name, namespace, metadata, ordered: true })
    }

    /// Finds the places in any JSON.
    pub(super) fn of_any(json: &[u8]) -> Result<Self, serde_json::Error> {
        if let Some(head) = Self::of_ordered(json) {
            return Ok(head);
        }
        let found: Places<'_> = serde_json::from_slice(json)?;
        let place = |text: Option<&str>| match text {
            None => Ok(Span::default()),
            Some(text) => span_in(json, text)
                .ok_or_else(|| serde_json::Error::custom("the object is too long")),
        };
        let metadata = metadata_start(json).and_then(|at| u32::try_from(at).ok());
        Ok(Self {
            kind: place(found.kind)?,
            api_version: place(found.api_version)?,
            name: place(found.metadata.name)?,
            namespace: place(found.metadata.namespace)?,
            metadata: metadata.unwrap_or_default(),
            ordered: false,
        })
    }
}

/// Neither a name nor a kind holds what JSON escapes, so all of them are borrowed from the bytes.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Places<'a> {
    #[serde(borrow)]
    api_version: Option<&'a str>,
    #[serde(borrow)]
    kind: Option<&'a str>,
    #[serde(borrow)]
    metadata: Names<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Names<'a> {
    #[serde(borrow)]
    name: Option<&'a str>,
    #[serde(borrow)]
    namespace: Option<&'a str>,
}

/// The metadata alone.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Meta {
    #[serde(deserialize_with = "without_managers")]
    pub(super) metadata: ObjectMeta,
}

/// `managedFields` is often half of an object and hardly ever read: it stays in the bytes.
fn without_managers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut meta = ObjectMeta::deserialize(deserializer)?;
    meta.managed_fields = None;
    Ok(meta)
}

/// Where a part of the bytes is in them.
fn span_in(json: &[u8], part: &str) -> Option<Span> {
    let start = (part.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
    (start + part.len() <= json.len()).then_some(())?;
    Span::new(start, start + part.len())
}

fn expect(json: &[u8], at: &mut usize, text: &[u8]) -> Option<()> {
    json.get(*at..)?.starts_with(text).then(|| *at += text.len())
}

/// A string without escapes.
fn string(json: &[u8], at: &mut usize) -> Option<Span> {
    expect(json, at, b"\"")?;
    let start = *at;
    let length = json.get(start..)?.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    *at = start + length;
    expect(json, at, b"\"")?;
    Span::new(start, start + length)
}

/// The position behind the `{` of the top-level `metadata`. The bytes must be valid JSON.
fn metadata_start(json: &[u8]) -> Option<usize> {
    let (mut depth, mut at, mut key) = (0usize, 0usize, None);
    while at < json.len() {
        match json[at] {
            b'"' => {
                let end = string_end(json, at)?;
                if depth == 1 && key.is_none() {
                    key = Some(&json[at + 1..end]);
                }
                at = end;
            }
            b'{' if depth == 1 && key == Some(b"metadata") => return Some(at + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 1 => key = None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The position of the quote that ends the string which starts at `start`.
fn string_end(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_either_order() {
        let check = |json: &str, ordered: bool| {
            let head = Head::of_any(json.as_bytes()).unwrap();
            assert_eq!(head.ordered, ordered, "{json}");
            let text = |span: Span| span.of(json.as_bytes()).to_owned();
            let found = (text(head.kind), text(head.api_version), text(head.name));
            assert_eq!(found, ("Pod".into(), "v1".into(), "a".into()), "{json}");
            assert_eq!(text(head.namespace), "b", "{json}");
            assert_eq!(json.as_bytes()[head.metadata as usize - 1], b'{', "{json}");
        };
        let names = r#""name":"a","namespace":"b""#;
        check(&format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{{names}}}}}"#), true);
        check(&format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{{names}}}}}"#), false);
        check(
            &format!(
                r#"{{"x":{{"metadata":{{}}}},"metadata":{{{names}}},"kind":"Pod","apiVersion":"v1"}}"#
            ),
            false,
        );
        assert!(Head::of_any(br#"{"kind":"a\"b"}"#).is_err());
        assert!(Head::of_any(b"[1]").is_err());
        let nothing = Head::of_any(b"{}").unwrap();
        assert_eq!(nothing, Head::default());
    }
}
