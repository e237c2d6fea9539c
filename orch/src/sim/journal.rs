//! Who wrote what: noted beside the server, so that a step knows whose it is.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orch_api::{ApiServer, auth::UserInfo};
use orch_core::{
    Client, ClientError, Key, ResourceType, Target,
    client::{Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
};
use parking_lot::Mutex;

mod http;

pub(super) use http::noted_over_http;

/// What was written, and what was written for nothing.
#[derive(Debug, Default)]
pub(super) struct Journal {
    by_revision: BTreeMap<u64, Arc<str>>,
    /// Deletions do not tell their revision: who asked for which last.
    deletions: BTreeMap<(String, Key), Arc<str>>,
    idle: BTreeMap<String, u64>,
    forgotten: u64,
    requests: u64,
}

impl Journal {
    /// Who wrote a revision, as far as it is known.
    pub(super) fn writer(&self, revision: u64, kind: &str, key: &Key) -> Option<&str> {
        let deletion = || self.deletions.get(&(kind.to_owned(), key.clone()));
        self.by_revision.get(&revision).or_else(deletion).map(|writer| &**writer)
    }

    /// Forgets whose the revisions up to this one were.
    pub(super) fn forget(&mut self, revision: u64) {
        self.by_revision = self.by_revision.split_off(&(revision + 1));
        self.forgotten = self.forgotten.max(revision);
    }

    /// Writes that changed nothing, by who wrote what, and how often.
    pub(super) fn idle(&self) -> &BTreeMap<String, u64> {
        &self.idle
    }

    /// How many calls there were.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }
}

/// Who writes, and where that is noted.
#[derive(Clone)]
struct Notes {
    writer: Arc<str>,
    journal: Arc<Mutex<Journal>>,
}

impl Notes {
    fn call(&self) {
        self.journal.lock().requests += 1;
    }

    /// A write was answered with something of this revision.
    fn written(&self, write: &WriteSummary, revision: u64) {
        let mut journal = self.journal.lock();
        match write {
            WriteSummary::Delete(kind, key) => {
                journal.deletions.insert((kind.clone(), key.clone()), self.writer.clone());
                journal.by_revision.insert(revision, self.writer.clone());
            }
            WriteSummary::Put(what) => {
                // What was there before is told with the revision that it had.
                if revision <= journal.forgotten || journal.by_revision.contains_key(&revision) {
                    *journal.idle.entry(format!("{}: {what}", self.writer)).or_insert(0) += 1;
                } else {
                    journal.by_revision.insert(revision, self.writer.clone());
                }
            }
        }
    }
}

/// A client of a component, whose writes are noted in its name once the server has carried them
/// out.
pub(super) fn noted(
    api: &ApiServer,
    writer: &str,
    journal: &Arc<Mutex<Journal>>,
) -> Arc<dyn Client> {
    let inner = api.client(UserInfo::master(format!("system:{writer}")));
    let notes = Notes { writer: writer.into(), journal: journal.clone() };
    Arc::new(Noted { inner, notes })
}

#[derive(Clone)]
struct Noted {
    inner: Arc<dyn Client>,
    notes: Notes,
}

enum WriteSummary {
    Put(String),
    Delete(String, Key),
}

fn summary(write: &Write) -> WriteSummary {
    let target = write.target();
    match write {
        Write::Delete(..) | Write::DeleteCollection(..) => {
            let namespace = target.namespace.clone().unwrap_or_default();
            let key = Key::new(namespace, target.name.clone().unwrap_or_default());
            WriteSummary::Delete(target.resource.kind.to_string(), key)
        }
        _ => {
            let part = target.subresource.as_deref().map(|part| format!("/{part}"));
            WriteSummary::Put(format!("{}{}", target.resource, part.unwrap_or_default()))
        }
    }
}

#[async_trait]
impl Client for Noted {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        self.notes.call();
        self.inner.read(read).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        self.notes.call();
        let summary = summary(&write);
        let reply = self.inner.write(write).await?;
        if let Some(revision) = reply.revision() {
            self.notes.written(&summary, revision);
        }
        Ok(reply)
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        self.notes.call();
        self.inner.watch(target, options).await
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.notes.call();
        self.inner.resource_types().await
    }
}
