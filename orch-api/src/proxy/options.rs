//! The query parameters of connections.

use orch_core::{ApiError, status::FieldError};
use serde_json::Value;

/// Query parameters in order; a name may come several times.
#[derive(Debug, Default)]
pub(super) struct Options(Vec<(String, String)>);

impl Options {
    pub(super) fn parse(uri: &http::Uri) -> Self {
        let query = uri.query().unwrap_or_default().as_bytes();
        Self(form_urlencoded::parse(query).into_owned().collect())
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What upstream's conversion takes for true: everything but these.
    pub(super) fn flag(&self, name: &str) -> bool {
        let present = self.0.iter().find(|(key, _)| key == name);
        present.is_some_and(|(_, value)| !matches!(value.to_lowercase().as_str(), "false" | "0"))
    }

    fn number(&self, name: &str, least: i64, errors: &mut Vec<FieldError>) -> Option<i64> {
        let text = self.one(name)?;
        match text.parse::<i64>() {
            Ok(number) if number >= least => Some(number),
            Ok(number) => {
                let detail = if least == 0 {
                    "must be greater than or equal to 0"
                } else {
                    "must be greater than 0"
                };
                errors.push(FieldError::invalid(name, number, detail));
                None
            }
            Err(_) => {
                errors.push(FieldError::invalid(name, text, "must be an integer"));
                None
            }
        }
    }

    /// The parameters of a log request as the kubelet takes them.
    ///
    /// Source: `k8s.io/kubernetes/pkg/apis/core/validation`, `ValidatePodLogOptions`.
    pub(super) fn log_query(&self, pod: &str) -> Result<String, ApiError> {
        let mut errors = Vec::new();
        let mut query = form_urlencoded::Serializer::new(String::new());
        for name in ["follow", "previous", "timestamps"] {
            if self.flag(name) {
                query.append_pair(name, "true");
            }
        }
        for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
            if let Some(number) = self.number(name, least, &mut errors) {
                query.append_pair(name, &number.to_string());
            }
        }
        if let Some(time) = self.one("sinceTime") {
            if time.parse::<jiff::Timestamp>().is_err() {
                errors.push(FieldError::invalid("sinceTime", time, "must be an RFC 3339 time"));
            }
            query.append_pair("sinceTime", time);
        }
        if self.one("sinceTime").is_some() && self.one("sinceSeconds").is_some() {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", detail));
        }
        if let Some(stream) = self.one("stream") {
            let streams = ["All", "Stderr", "Stdout"];
            if !streams.contains(&stream) {
                let value = Value::from(stream);
                errors.push(FieldError::not_supported("stream", value, &streams));
            }
            query.append_pair("stream", stream);
        }
        if errors.is_empty() {
            Ok(query.finish())
        } else {
            Err(ApiError::invalid("", "PodLogOptions", pod, &errors))
        }
    }

    /// The parameters of `exec` and `attach` as the kubelet takes them.
    pub(super) fn command_query(&self) -> Result<String, ApiError> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let mut streams = 0;
        for (name, kubelets) in
            [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
        {
            if self.flag(name) {
                query.append_pair(kubelets, "1");
                streams += usize::from(name != "tty");
            }
        }
        if streams == 0 {
            let why = "you must specify at least 1 of stdin, stdout, stderr";
            return Err(ApiError::bad_request(why));
        }
        for part in self.all("command") {
            query.append_pair("command", part);
        }
        Ok(query.finish())
    }

    /// The parameters of a port-forward over WebSocket as the kubelet takes them.
    pub(super) fn port_query(&self) -> Result<String, ApiError> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for port in self.all("ports").flat_map(|list| list.split(',')) {
            if port.parse::<u16>().is_ok_and(|port| port > 0) {
                query.append_pair("port", port);
            } else {
                return Err(ApiError::bad_request(format!("{port:?} is not a port")));
            }
        }
        Ok(query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Options {
        Options::parse(&format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn log_options_are_checked() {
        let check = |query: &str, expected: &str| {
            let found = options(query).log_query("web");
            assert_eq!(found.unwrap_or_else(|error| error.to_string()), expected, "{query}");
        };
        check("", "");
        check("follow=true&tailLines=10&container=c", "follow=true&tailLines=10");
        check(
            "tailLines=-1",
            "PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            "sinceSeconds=0",
            "PodLogOptions \"web\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0",
        );
        assert!(options("sinceTime=yesterday").log_query("web").is_err());
    }

    #[test]
    fn commands_keep_their_order() {
        let query = options("command=sh&command=-c&command=a%20b&stdin=true&stdout=1&stderr=false");
        let expected = "input=1&output=1&command=sh&command=-c&command=a+b";
        assert_eq!(query.command_query().unwrap(), expected);
        assert!(options("command=ls").command_query().is_err());
        assert_eq!(options("ports=80,443").port_query().unwrap(), "port=80&port=443");
        assert!(options("ports=http").port_query().is_err());
    }
}
