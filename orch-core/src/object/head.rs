//! Where in an object's JSON its names are.

use std::ops::Range;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The strings of an object that are asked for most.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Kind,
    ApiVersion,
    Name,
    Namespace,
}

/// Where these are in its bytes, without their quotes. Every cached object has one of these, so
/// it is as small as can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    starts: [u32; 4],
    lengths: [u16; 4],
    /// Behind the `{` of the metadata.
    pub(super) metadata: u32,
    /// The bytes begin in the order of [`super::encoding`].
    pub(super) ordered: bool,
    /// The resource version is not in the bytes.
    pub(super) spliced: bool,
}

/// What `"metadata":{` takes.
pub(super) const METADATA_KEY: usize = "\"metadata\":{".len();

impl Head {
    pub(super) fn text(self, place: Place, json: &[u8]) -> &str {
        let start = self.starts[place as usize] as usize;
        let end = start + usize::from(self.lengths[place as usize]);
        std::str::from_utf8(json.get(start..end).unwrap_or_default()).unwrap_or_default()
    }

    fn set(&mut self, place: Place, (start, length): (usize, usize)) -> Option<()> {
        self.starts[place as usize] = u32::try_from(start).ok()?;
        self.lengths[place as usize] = u16::try_from(length).ok()?;
        Some(())
    }

    /// Reads the beginning of what [`super::encoding`] has written.
    pub(super) fn of_ordered(json: &[u8]) -> Option<Self> {
        let (mut head, mut at) = (Self { ordered: true, ..Self::default() }, 0);
        expect(json, &mut at, b"{\"kind\":")?;
        head.set(Place::Kind, string(json, &mut at)?)?;
        expect(json, &mut at, b",\"apiVersion\":")?;
        head.set(Place::ApiVersion, string(json, &mut at)?)?;
        expect(json, &mut at, b",\"metadata\":{")?;
        head.metadata = u32::try_from(at).ok()?;
        expect(json, &mut at, b"\"name\":")?;
        head.set(Place::Name, string(json, &mut at)?)?;
        if expect(json, &mut at, b",\"namespace\":").is_some() {
            head.set(Place::Namespace, string(json, &mut at)?)?;
        }
        Some(head)
    }

    /// Finds the places in any JSON.
    pub(super) fn of_any(json: &[u8]) -> Result<Self, serde_json::Error> {
        if let Some(head) = Self::of_ordered(json) {
            return Ok(head);
        }
        let found: Places<'_> = serde_json::from_slice(json)?;
        let metadata = metadata_start(json).and_then(|at| u32::try_from(at).ok());
        let mut head = Self { metadata: metadata.unwrap_or_default(), ..Self::default() };
        let texts = [
            (Place::Kind, found.kind),
            (Place::ApiVersion, found.api_version),
            (Place::Name, found.metadata.name),
            (Place::Namespace, found.metadata.namespace),
        ];
        for (place, text) in texts {
            let Some(text) = text else { continue };
            place_in(json, text)
                .and_then(|at| head.set(place, at))
                .ok_or_else(|| serde_json::Error::custom("a name is too long"))?;
        }
        Ok(head)
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

/// Where a part of the bytes is in them: start and length.
fn place_in(json: &[u8], part: &str) -> Option<(usize, usize)> {
    let start = (part.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
    (start + part.len() <= json.len()).then_some((start, part.len()))
}

fn expect(json: &[u8], at: &mut usize, text: &[u8]) -> Option<()> {
    json.get(*at..)?.starts_with(text).then(|| *at += text.len())
}

/// A string without escapes.
fn string(json: &[u8], at: &mut usize) -> Option<(usize, usize)> {
    expect(json, at, b"\"")?;
    let start = *at;
    let length = json.get(start..)?.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    *at = start + length;
    expect(json, at, b"\"")?;
    Some((start, length))
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

/// The range of a field of the object whose `{` ends before `start`, with one of the commas around
/// it: what is left without it is an object still. The bytes must be valid JSON.
fn field(json: &[u8], start: usize, name: &[u8]) -> Option<Range<usize>> {
    let (mut at, mut comma) = (start, None);
    loop {
        let begin = skip_space(json, at);
        if *json.get(begin)? != b'"' {
            return None;
        }
        let key_end = string_end(json, begin)?;
        let colon = skip_space(json, key_end + 1);
        let end = value_end(json, skip_space(json, colon + 1))?;
        let next = skip_space(json, end);
        let is_last = *json.get(next)? != b',';
        if &json[begin + 1..key_end] == name {
            return Some(if is_last { comma.unwrap_or(begin)..end } else { begin..next + 1 });
        }
        if is_last {
            return None;
        }
        comma = Some(next);
        at = next + 1;
    }
}

/// Cuts `managedFields` out of the metadata whose `{` ends before `start`. The bytes must be valid
/// JSON.
pub(super) fn cut_managers(json: &mut Vec<u8>, start: usize) {
    if let Some(managed) = field(json, start, b"managedFields") {
        json.drain(managed);
    }
}

fn skip_space(json: &[u8], at: usize) -> usize {
    let rest = json.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(rest.len())
}

/// Behind the value that starts at `start`.
pub(super) fn value_end(json: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut at) = (0usize, start);
    loop {
        match json.get(at)? {
            b'"' => at = string_end(json, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b',' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
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
            let text = |place| head.text(place, json.as_bytes());
            let found = (text(Place::Kind), text(Place::ApiVersion), text(Place::Name));
            assert_eq!(found, ("Pod", "v1", "a"), "{json}");
            assert_eq!(text(Place::Namespace), "b", "{json}");
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

    #[test]
    fn a_field_is_cut_out_wherever_it_stands() {
        let check = |json: &str, left: &str| {
            let mut json = json.as_bytes().to_vec();
            if let Some(range) = field(&json, 1, b"m") {
                json.drain(range);
            }
            assert_eq!(std::str::from_utf8(&json).unwrap(), left);
        };
        check(r#"{"m":[{"a":"],}"}]}"#, "{}");
        check(r#"{"m":{"a":{}},"b":1}"#, r#"{"b":1}"#);
        check(r#"{"a":"m","m":3,"b":1}"#, r#"{"a":"m","b":1}"#);
        check(r#"{ "a" : {"m":2} , "m" : "\"" }"#, r#"{ "a" : {"m":2} }"#);
        check(r#"{"a":{"m":1}}"#, r#"{"a":{"m":1}}"#);
        check("{}", "{}");
    }
}
