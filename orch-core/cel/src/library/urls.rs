//! URLs.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/urls.go`; Go's `net/url` for what is a URL.

use std::any::Any;
use std::collections::BTreeMap;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Map, Opaque, Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

/// A URL in its parts. What is missing is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    scheme: String,
    /// Of a URL like `mailto:x`, what follows the scheme.
    opaque: String,
    user: String,
    host: String,
    /// Escaped as it is written out.
    path: String,
    query: String,
    fragment: String,
}

fn url_type() -> Type {
    Type::object("kubernetes.URL")
}

impl Opaque for Url {
    fn type_of(&self) -> Type {
        url_type()
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(super) fn install(functions: &mut Functions) {
    functions.add_type("kubernetes.URL", url_type());
    let form = Overload::function("string_to_url", [Type::String], url_type(), url);
    functions.add("url", form);
    let form = Overload::function("is_url_string", [Type::String], Type::Bool, is_url);
    functions.add("isURL", form);
    type Body = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;
    let getters: [(&'static str, &'static str, Body); 5] = [
        ("getScheme", "url_get_scheme", scheme),
        ("getHost", "url_get_host", host),
        ("getHostname", "url_get_hostname", hostname),
        ("getPort", "url_get_port", port),
        ("getEscapedPath", "url_get_escaped_path", escaped_path),
    ];
    for (name, id, body) in getters {
        functions.add(name, Overload::method(id, [url_type()], Type::String, body));
    }
    let result = Type::map(Type::String, Type::list(Type::String));
    let form = Overload::method("url_get_query", [url_type()], result, query);
    functions.add("getQuery", form);
}

fn url<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return no_such_overload() };
    let refused = |what: String| {
        Error::failed(format!("URL parse error during conversion from string: {what}"))
    };
    parse(text).map_err(refused)?;
    // Read again with its fragment, which no request has.
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let mut url = read(rest, false).map_err(|what| refused(described(text, &what)))?;
    let fragment = unescape(fragment, Part::Path);
    url.fragment = fragment.map_err(|what| refused(described(text, &what)))?;
    Ok(Value::opaque(url))
}

fn is_url<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return no_such_overload() };
    Ok(Value::Bool(parse(text).is_ok()))
}

fn given<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, Error> {
    args.first().and_then(Value::downcast).ok_or_else(Error::no_such_overload)
}

fn scheme<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::string(given(args)?.scheme.as_str()))
}

fn host<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::string(given(args)?.host.as_str()))
}

fn hostname<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::string(split_port(&given(args)?.host).0))
}

fn port<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::string(split_port(&given(args)?.host).1))
}

fn escaped_path<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::string(given(args)?.path.as_str()))
}

fn query<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut found: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in given(args)?.query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = |text: &str| unescape(text, Part::Query);
        // What is no pair is left out, as upstream leaves it out.
        if let (Ok(key), Ok(value), false) = (read(key), read(value), pair.contains(';')) {
            found.entry(key).or_default().push(Value::from(value));
        }
    }
    let entries = found.into_iter().map(|(key, values)| (Value::from(key), Value::list(values)));
    Map::of(entries).map(Value::Map)
}

/// The name and the port of a host, without brackets.
fn split_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rfind(':') {
        Some(at) if host[at + 1..].bytes().all(|c| c.is_ascii_digit()) => {
            (&host[..at], &host[at + 1..])
        }
        _ => (host, ""),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    (bare.unwrap_or(name), port)
}

/// Reads a URL as it may stand in a request: absolute, or a path.
pub(super) fn parse(text: &str) -> Result<(), String> {
    read(text, true).map(|_| ()).map_err(|what| described(text, &what))
}

fn described(text: &str, what: &str) -> String {
    format!("parse {text:?}: {what}")
}

fn read(text: &str, request: bool) -> Result<Url, String> {
    if text.bytes().any(|c| c < b' ' || c == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text.is_empty() && request {
        return Err("empty url".to_owned());
    }
    let mut url = Url::default();
    if text == "*" {
        text.clone_into(&mut url.path);
        return Ok(url);
    }
    let (scheme, rest) = split_scheme(text)?;
    url.scheme = scheme.to_ascii_lowercase();
    let (mut rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    query.clone_into(&mut url.query);
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            rest.clone_into(&mut url.opaque);
            return Ok(url);
        }
        if request {
            return Err("invalid URI for request".to_owned());
        }
        if rest.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    if (!scheme.is_empty() || !request && !rest.starts_with("///"))
        && let Some(behind) = rest.strip_prefix("//")
    {
        let end = behind.find('/').unwrap_or(behind.len());
        let authority = &behind[..end];
        rest = &behind[end..];
        (url.user, url.host) = read_authority(authority)?;
    }
    url.path = escaped(rest)?;
    Ok(url)
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, c) in text.bytes().enumerate() {
        match c {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn read_authority(authority: &str) -> Result<(String, String), String> {
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let valid = |c: u8| c.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&c);
    if !user.bytes().all(valid) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    let port = match host.strip_prefix('[') {
        Some(inner) => match inner.rfind(']') {
            Some(end) => &inner[end + 1..],
            None => return Err("missing ']' in host".to_owned()),
        },
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let digits = port.strip_prefix(':').unwrap_or_default();
    let valid = port.is_empty() || port.starts_with(':');
    if !valid || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let user = unescape(user, Part::User)?;
    Ok((user, unescape(host, Part::Host)?))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    User,
    Host,
    Path,
    Query,
}

fn unescape(text: &str, part: Part) -> Result<String, String> {
    let mut found = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&c) = bytes.get(at) {
        at += 1;
        match c {
            b'%' => {
                let digits = bytes.get(at..at + 2).and_then(|d| std::str::from_utf8(d).ok());
                let value = digits
                    .filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                // In hosts, only what is not ASCII is escaped, and the sign itself.
                let allowed = value.filter(|v| part != Part::Host || *v >= 0x80 || *v == b'%');
                let Some(value) = allowed else {
                    let bad: String = text[at - 1..].chars().take(3).collect();
                    return Err(format!("invalid URL escape {bad:?}"));
                };
                found.push(value);
                at += 2;
            }
            b'+' if part == Part::Query => found.push(b' '),
            c if part == Part::Host && c < 0x80 && !host_allows(c) => {
                let bad = (c as char).to_string();
                return Err(format!("invalid character {bad:?} in host name"));
            }
            c => found.push(c),
        }
    }
    Ok(String::from_utf8_lossy(&found).into_owned())
}

fn host_allows(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&c)
}

/// A path as it is written out: as it is, if all its characters may stand there.
fn escaped(path: &str) -> Result<String, String> {
    let plain = unescape(path, Part::Path)?;
    let stands = |c: u8| c.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]%/".contains(&c);
    if path.bytes().all(stands) {
        return Ok(path.to_owned());
    }
    let mut found = String::with_capacity(path.len() + 8);
    for c in plain.bytes() {
        if c.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&c) {
            found.push(c as char);
        } else {
            found.push_str(&format!("%{c:02X}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_what_go_takes_for_them() {
        let check = |text: &str, valid: bool| assert_eq!(parse(text).is_ok(), valid, "{text}");
        check("https://user:pass@example.com:8080/a/b?x=1", true);
        check("/absolute/path", true);
        check("relative", false);
        check("", false);
        check("https://a:port/", false);
        check("https://[::1]:80/", true);
        check("https://a b/", false);
        check("https://a/%zz", false);
        check(":missing", false);
        check("mailto:x", true);
        assert_eq!(parse("x").unwrap_err(), "parse \"x\": invalid URI for request");
    }
}
