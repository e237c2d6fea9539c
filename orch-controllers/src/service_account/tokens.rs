//! Tokens that lie in secrets: made for whoever asks by such a secret, gone with their account.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/serviceaccount/tokens_controller.go`.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use orch_core::{
    ClientError, Key,
    client::DeleteOptions,
    informer::{Change, Informer, Informers},
};

use crate::{
    Action, Controller,
    context::Context,
    reconciler::{ReconcileError, Reconciled},
};

const SECRET_TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
const TOKEN: &str = "token";
/// Secrets with tokens, by the key of their account.
const BY_ACCOUNT: &str = "service-account";

/// A token could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub String);

/// Makes tokens that are good for as long as their secret holds them. Object-safe; a call is quick
/// and does no I/O.
pub trait TokenGenerator: Send + Sync + 'static {
    /// A token of this account, to lie in this secret.
    ///
    /// # Errors
    /// [`TokenError`]; tried again with back-off.
    fn token(&self, account: &ServiceAccount, secret: &Secret) -> Result<String, TokenError>;
}

impl fmt::Debug for dyn TokenGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenGenerator")
    }
}

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(SECRET_TYPE)
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let annotations = secret.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// The key of the account that a secret's token is for.
fn account_key(secret: &Secret) -> Option<Key> {
    let name = annotation(secret, NAME).filter(|_| is_token(secret))?;
    Some(Key::new(secret.metadata.namespace.clone().unwrap_or_default(), name))
}

fn is_for(secret: &Secret, account: &ServiceAccount) -> bool {
    annotation(secret, UID).is_none_or(|uid| account.metadata.uid.as_deref() == Some(uid))
}

/// The controller that puts a token into every secret of type
/// `kubernetes.io/service-account-token`, with the certificates (PEM) by which clients know the API
/// server, and removes such secrets of accounts that are gone.
pub fn service_account_token(
    informers: &Informers,
    generator: Arc<dyn TokenGenerator>,
    root_ca_pem: Option<&str>,
) -> Controller {
    let context = Context::new(informers, "serviceaccount-token-controller");
    let (secrets, accounts) = (context.informer::<Secret>(), context.informer());
    secrets.add_index(BY_ACCOUNT, |secret| {
        account_key(secret).map(|key| key.to_string()).into_iter().collect()
    });
    let of_account = secrets.clone();
    let tokens = Arc::new(Tokens {
        secrets,
        accounts,
        context: context.clone(),
        generator,
        root_ca: root_ca_pem.map(|pem| pem.as_bytes().to_vec()).unwrap_or_default(),
    });
    context
        .builder()
        .watches_own_if::<Secret>(|change| is_token(change.object()))
        .watches::<ServiceAccount>(move |change| {
            if matches!(change, Change::Updated { .. }) {
                return Vec::new();
            }
            let key = Key::of(&change.object().metadata).to_string();
            let secrets = of_account.by_index(BY_ACCOUNT, &key);
            secrets.iter().map(|secret| Key::of(&secret.metadata)).collect()
        })
        .build(move |key: Key| {
            let tokens = tokens.clone();
            async move { tokens.reconcile(&key).await }
        })
}

struct Tokens {
    context: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    generator: Arc<dyn TokenGenerator>,
    root_ca: Vec<u8>,
}

impl Tokens {
    async fn reconcile(&self, key: &Key) -> Reconciled {
        let Some(secret) = self.secrets.get(key) else {
            self.forget(key).await?;
            return Ok(Action::Done);
        };
        let Some(account_key) = account_key(&secret) else { return Ok(Action::Done) };
        match self.account(&account_key, &secret).await? {
            Some(account) => self.fill(&secret, &account).await,
            None => {
                let uid = secret.metadata.uid.clone();
                let options = DeleteOptions { uid, ..DeleteOptions::default() };
                let secrets = self.context.resources::<Secret>(&key.namespace);
                match secrets.delete(&key.name, options).await {
                    Err(error) if !error.is_not_found() && !error.is_conflict() => {
                        Err(error.into())
                    }
                    _ => Ok(Action::Done),
                }
            }
        }
    }

    /// The account of a secret. Before it counts as gone the cluster is asked.
    async fn account(
        &self,
        key: &Key,
        secret: &Secret,
    ) -> Result<Option<Arc<ServiceAccount>>, ClientError> {
        if let Some(account) = self.accounts.get(key).filter(|account| is_for(secret, account)) {
            return Ok(Some(account));
        }
        let accounts = self.context.resources::<ServiceAccount>(&key.namespace);
        let live = accounts.get_opt(&key.name).await?;
        Ok(live.filter(|account| is_for(secret, account)))
    }

    async fn fill(&self, secret: &Secret, account: &ServiceAccount) -> Reconciled {
        let mut filled = secret.clone();
        let data = filled.data.get_or_insert_default();
        let is_empty = |value: Option<&ByteString>| value.is_none_or(|value| value.0.is_empty());
        let wants_ca =
            !self.root_ca.is_empty() && data.get(CA).is_none_or(|ca| ca.0 != self.root_ca);
        let wants_namespace = is_empty(data.get(NAMESPACE));
        let wants_token = is_empty(data.get(TOKEN));
        if !wants_ca && !wants_namespace && !wants_token {
            return Ok(Action::Done);
        }
        if wants_ca {
            data.insert(CA.to_owned(), ByteString(self.root_ca.clone()));
        }
        if wants_namespace {
            let namespace = secret.metadata.namespace.clone().unwrap_or_default();
            data.insert(NAMESPACE.to_owned(), ByteString(namespace.into_bytes()));
        }
        if wants_token {
            let token = self.generator.token(account, secret).map_err(ReconcileError::message)?;
            data.insert(TOKEN.to_owned(), ByteString(token.into_bytes()));
        }
        let annotations = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(NAME.to_owned(), account.metadata.name.clone().unwrap_or_default());
        annotations.insert(UID.to_owned(), account.metadata.uid.clone().unwrap_or_default());
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        match self.context.resources::<Secret>(namespace).update(&filled).await {
            // Whoever was faster leads to another look.
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::Done),
        }
    }

    /// Takes a secret that is gone out of the lists of its namespace's accounts.
    async fn forget(&self, key: &Key) -> Result<(), ClientError> {
        let is_gone = |name: Option<&String>| name == Some(&key.name);
        for account in self.accounts.list_in(&key.namespace) {
            let listed = account.secrets.as_deref().unwrap_or_default();
            if !listed.iter().any(|one| is_gone(one.name.as_ref())) {
                continue;
            }
            let mut updated = account.as_ref().clone();
            updated.secrets.get_or_insert_default().retain(|one| !is_gone(one.name.as_ref()));
            let accounts = self.context.resources::<ServiceAccount>(&key.namespace);
            match accounts.update(&updated).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
