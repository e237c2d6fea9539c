//! Which requests are noted, and how much of them.
//!
//! Source: `k8s.io/apiserver/pkg/audit/policy/checker.go`, `reader.go`, and
//! `pkg/apis/audit/validation/validation.go`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Stage;
use crate::{auth::UserInfo, http::request_info::RequestInfo};

/// How much of a request is noted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what and how it ended.
    Metadata,
    /// Also the object that was sent.
    Request,
    /// Also the object that was answered.
    RequestResponse,
}

/// A policy: the first rule that matches a request decides. Read from upstream's file format.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    metadata: serde_json::Value,
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// Stages of which no rule notes anything.
    pub omit_stages: Vec<Stage>,
    /// Leave `metadata.managedFields` out of objects, where a rule says nothing else.
    pub omit_managed_fields: bool,
}

/// One rule. What is empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    /// What is noted of requests that match.
    pub level: Level,
    /// Names of users.
    pub users: Vec<String>,
    /// Groups, of which the user must have one.
    pub user_groups: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Resources; a rule with these is not about paths that are no resources.
    pub resources: Vec<GroupResources>,
    /// Namespaces; the empty name stands for what lies in none.
    pub namespaces: Vec<String>,
    /// Paths that are no resources; a `*` at the end matches any rest.
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
    /// Stages of which this rule notes nothing.
    pub omit_stages: Vec<Stage>,
    /// Leave `metadata.managedFields` out of objects, or not, whatever the policy says.
    pub omit_managed_fields: Option<bool>,
}

/// Resources of a group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GroupResources {
    /// The API group; empty is the core group.
    pub group: String,
    /// `pods`, `pods/log`, `*`, `pods/*`, `*/scale`; empty is all of the group.
    pub resources: Vec<String>,
    /// Names of objects; needs resources.
    pub resource_names: Vec<String>,
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("the audit policy cannot be read")]
    Read(#[source] std::io::Error),
    /// It is no YAML, or has fields that a policy has not.
    #[error("failed decoding: {0}")]
    Decode(String),
    /// It is of another kind, has no rules, or rules that contradict themselves.
    #[error("audit policy is invalid: {0}")]
    Invalid(String),
}

/// What a policy says of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    omitted: Vec<Stage>,
    pub(crate) omit_managed_fields: bool,
}

impl Verdict {
    pub(crate) fn omits(&self, stage: Stage) -> bool {
        self.omitted.contains(&stage)
    }
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn from_file(path: &Path) -> Result<Self, PolicyError> {
        Self::from_yaml(&std::fs::read_to_string(path).map_err(PolicyError::Read)?)
    }

    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// [`PolicyError::Decode`], [`PolicyError::Invalid`].
    pub fn from_yaml(text: &str) -> Result<Self, PolicyError> {
        let policy: Self =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Decode(error.to_string()))?;
        let wrong = policy.wrong();
        if wrong.is_empty() { Ok(policy) } else { Err(PolicyError::Invalid(wrong.join(", "))) }
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if (&*self.api_version, &*self.kind) != ("audit.k8s.io/v1", "Policy") {
            let (version, kind) = (&self.api_version, &self.kind);
            wrong.push(format!("unknown group version field {version}, Kind={kind} in policy"));
        }
        if self.rules.is_empty() {
            wrong.push("loaded illegal policy with 0 rules".into());
        }
        for (at, rule) in self.rules.iter().enumerate() {
            rule.wrong(&format!("rules[{at}]"), &mut wrong);
        }
        wrong
    }

    pub(crate) fn of(&self, info: &RequestInfo, user: &UserInfo) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(info, user)) else {
            let level = Level::None;
            return Verdict { level, omitted: Vec::new(), omit_managed_fields: false };
        };
        Verdict {
            level: rule.level,
            omitted: [self.omit_stages.as_slice(), &rule.omit_stages].concat(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn wrong(&self, path: &str, wrong: &mut Vec<String>) {
        let about_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if about_resources && !self.non_resource_urls.is_empty() {
            wrong.push(format!(
                "{path}.nonResourceURLs: Invalid value: rules cannot apply to both regular \
                 resources and non-resource URLs"
            ));
        }
        for (at, url) in self.non_resource_urls.iter().enumerate().filter(|(_, u)| *u != "*") {
            let path = format!("{path}.nonResourceURLs[{at}]: Invalid value: {url:?}");
            if !url.starts_with('/') {
                wrong.push(format!(
                    "{path}: non-resource URL rules must begin with a '/' character"
                ));
            }
            if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
                wrong.push(format!(
                    "{path}: non-resource URL wildcards '*' must be the final character of the rule"
                ));
            }
        }
        for (at, of) in self.resources.iter().enumerate() {
            if !of.resource_names.is_empty() && of.resources.is_empty() {
                wrong.push(format!(
                    "{path}.resources[{at}].resourceNames: Invalid value: using resourceNames \
                     requires at least one resource"
                ));
            }
            if of.group.contains('/') {
                wrong.push(format!(
                    "{path}.resources[{at}].group: Invalid value: {:?}: invalid group name",
                    of.group
                ));
            }
        }
    }

    fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        let has = |list: &[String], one: &str| list.iter().any(|item| item == one);
        if !self.users.is_empty() && !has(&self.users, &user.name)
            || !self.user_groups.is_empty()
                && !user.groups.iter().any(|group| has(&self.user_groups, group))
            || !self.verbs.is_empty() && !has(&self.verbs, &info.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let place = self.namespaces.is_empty() || has(&self.namespaces, &info.namespace);
            let resource =
                self.resources.is_empty() || self.resources.iter().any(|of| of.has(info));
            return info.is_resource && place && resource;
        }
        self.non_resource_urls.is_empty()
            || !info.is_resource
                && self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                    Some(prefix) => info.path.starts_with(prefix),
                    None => info.path == *url,
                })
    }
}

impl GroupResources {
    fn has(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&info.name) {
            return false;
        }
        self.resources.iter().any(|wanted| {
            if wanted == "*" {
                return true;
            }
            match wanted.split_once('/') {
                None => info.subresource.is_empty() && *wanted == info.resource,
                Some(("*", sub)) => sub == info.subresource,
                Some((resource, "*")) => resource == info.resource,
                Some((resource, sub)) => resource == info.resource && sub == info.subresource,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<Policy, String> {
        let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: {rules}}}");
        Policy::from_yaml(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let info = |verb: &'static str, resource: &str, sub: &str| RequestInfo {
            verb: verb.into(),
            is_resource: true,
            resource: resource.into(),
            subresource: sub.into(),
            namespace: "a".into(),
            name: "x".into(),
            ..RequestInfo::default()
        };
        let path = |path: &str| RequestInfo { path: path.into(), ..RequestInfo::default() };
        let user = UserInfo::authenticated("ann", &["dev"]);
        let check = |rule: &str, info: &RequestInfo, matches: bool| {
            let found = policy(&format!("[{rule}]")).unwrap().of(info, &user).level;
            assert_eq!(found == Level::Request, matches, "{rule} {info:?}");
        };
        let pods = info("get", "pods", "");
        check("{level: Request}", &pods, true);
        check("{level: Request, users: [bob]}", &pods, false);
        check("{level: Request, users: [ann], userGroups: [dev, x], verbs: [get]}", &pods, true);
        check("{level: Request, userGroups: [ops]}", &pods, false);
        check("{level: Request, verbs: [list]}", &pods, false);
        check("{level: Request, resources: [{group: ''}]}", &pods, true);
        check("{level: Request, resources: [{group: apps}]}", &pods, false);
        check("{level: Request, namespaces: [a]}", &pods, true);
        check("{level: Request, namespaces: ['']}", &pods, false);
        check("{level: Request, nonResourceURLs: ['*']}", &pods, false);
        let log = info("get", "pods", "log");
        for (wanted, matches) in [
            ("pods", false),
            ("pods/log", true),
            ("'*'", true),
            ("pods/*", true),
            ("'*/log'", true),
        ] {
            check(
                &format!("{{level: Request, resources: [{{resources: [{wanted}]}}]}}"),
                &log,
                matches,
            );
        }
        check(
            "{level: Request, resources: [{resources: [pods], resourceNames: [y]}]}",
            &pods,
            false,
        );
        check("{level: Request, nonResourceURLs: ['/health*']}", &path("/healthz"), true);
        check("{level: Request, nonResourceURLs: [/version]}", &path("/version/"), false);
        check("{level: Request, namespaces: ['']}", &path("/version"), false);
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        let check = |rules: &str, why: &str| {
            let error = policy(rules).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        check("[]", "0 rules");
        check("[{level: Some}]", "failed decoding");
        check("[{level: None, wrong: 1}]", "failed decoding");
        check("[{level: None, nonResourceURLs: [x]}]", "must begin with a '/'");
        check("[{level: None, nonResourceURLs: [/x], namespaces: [a]}]", "cannot apply to both");
        check(
            "[{level: None, resources: [{resourceNames: [a]}]}]",
            "requires at least one resource",
        );
        assert!(Policy::from_yaml("{kind: Policy, rules: [{level: None}]}").is_err());
    }
}
