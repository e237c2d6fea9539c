//! The answers of the authorizer, got when an expression asks for them.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/authorizer`, `k8s.io/apiserver/pkg/cel/library`.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use orch_cel::library::{Authorize, Decision, Query, ServiceAccount, Target};

use crate::{
    auth::{Attributes, Decision as Verdict, GROUP_MASTERS, UserInfo},
    server::Inner,
};

/// What the authorizer said about a request so far.
#[derive(Debug, Default)]
pub(crate) struct Answers(HashMap<Query, Decision>);

impl Authorize for Answers {
    fn decide(&self, query: &Query) -> Option<Decision> {
        self.0.get(query).cloned()
    }
}

/// Does the work again and again until it asks nothing more.
///
/// Boxed, because the compiler cannot prove the bare future `Send` for every lifetime.
pub(crate) fn settled<'a, T: Send + 'a>(
    server: &'a Inner,
    user: &'a Arc<UserInfo>,
    mut work: impl FnMut(&Answers) -> Result<T, Box<Query>> + Send + 'a,
) -> BoxFuture<'a, T> {
    async move {
        let mut answers = Answers::default();
        loop {
            match work(&answers) {
                Ok(done) => return done,
                Err(query) => {
                    let decision = decide(server, user, &query).await;
                    answers.0.insert(*query, decision);
                }
            }
        }
    }
    .boxed()
}

fn account(of: &ServiceAccount) -> UserInfo {
    let name = format!("system:serviceaccount:{}:{}", of.namespace, of.name);
    let own = format!("system:serviceaccounts:{}", of.namespace);
    UserInfo::authenticated(name, &["system:serviceaccounts", &own])
}

async fn decide(server: &Inner, user: &Arc<UserInfo>, query: &Query) -> Decision {
    let user = match &query.service_account {
        Some(of) => Arc::new(account(of)),
        None => user.clone(),
    };
    let verb = query.verb.clone();
    let what = match &query.target {
        Target::Path(path) => {
            Attributes { user, verb, path: path.clone(), ..Attributes::default() }
        }
        Target::Resource(check) => Attributes {
            user,
            verb,
            group: check.group.clone(),
            version: "*".into(),
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            namespace: check.namespace.clone(),
            name: check.name.clone(),
            ..Attributes::default()
        },
    };
    if server.authorizers.is_empty() || what.user.in_group(GROUP_MASTERS) {
        return Decision { allowed: true, ..Decision::default() };
    }
    let mut reasons = Vec::new();
    for authorizer in &server.authorizers {
        match authorizer.authorize(&what).await {
            Ok(Verdict::Allow { reason }) => {
                return Decision { allowed: true, reason, error: None };
            }
            Ok(Verdict::Deny { reason }) => {
                return Decision { allowed: false, reason, error: None };
            }
            Ok(Verdict::NoOpinion { reason }) => reasons.push(reason),
            Err(error) => {
                return Decision { error: Some(error.to_string()), ..Decision::default() };
            }
        }
    }
    reasons.retain(|reason| !reason.is_empty());
    Decision { allowed: false, reason: reasons.join(", "), error: None }
}
