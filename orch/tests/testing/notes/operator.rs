//! An operator as many are: a kind of its own, a finalizer, a status by server-side apply, events,
//! and a count of what went wrong.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client, CustomResource, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        controller::{Action, Controller},
        events::{Event, EventType, Recorder},
        finalizer::{self, finalizer},
        watcher,
    },
};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(crate) const FINALIZER: &str = "notes.example/kept";
pub(crate) const MANAGER: &str = "keeper";
/// When a note is looked at again if nothing is heard of it.
pub(crate) const AGAIN: Duration = Duration::from_secs(300);

/// A note, kept or put away.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[kube(group = "notes.example", version = "v1", kind = "Note", namespaced)]
#[kube(status = "NoteStatus", shortname = "nt", derive = "Default")]
#[serde(rename_all = "camelCase")]
pub(crate) struct NoteSpec {
    pub(crate) text: String,
    pub(crate) archived: bool,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub(crate) struct NoteStatus {
    pub(crate) archived: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("the API refuses")]
    Api(#[from] kube::Error),
    #[error("secrets are not kept")]
    Secret,
}

/// What the operator has besides the notes.
pub(crate) struct Keeper {
    client: Client,
    recorder: Recorder,
    pub(crate) looks: Mutex<usize>,
    /// How often what went wrong with whom.
    pub(crate) failures: Mutex<BTreeMap<(String, String), u64>>,
}

impl Keeper {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        let recorder = Recorder::new(client.clone(), MANAGER.into());
        Arc::new(Self { client, recorder, looks: Mutex::default(), failures: Mutex::default() })
    }

    async fn tell(&self, note: &Note, reason: &str, action: &str) -> Result<(), kube::Error> {
        let event = Event {
            type_: EventType::Normal,
            reason: reason.into(),
            note: Some(format!("{action} {}", note.name_any())),
            action: action.into(),
            secondary: None,
        };
        self.recorder.publish(&event, &note.object_ref(&())).await
    }

    async fn look(&self, note: &Note) -> Result<Action, KeepError> {
        let (before, wanted) = (note.status.clone().unwrap_or_default(), note.spec.archived);
        if wanted && !before.archived {
            self.tell(note, "ArchiveRequested", "Archiving").await?;
        }
        if note.spec.text.contains("secret") {
            return Err(KeepError::Secret);
        }
        let status = json!({
            "apiVersion": Note::api_version(&()), "kind": Note::kind(&()),
            "status": NoteStatus { archived: wanted },
        });
        let apply = PatchParams::apply(MANAGER).force();
        let notes = notes_of(&self.client, note);
        notes.patch_status(&note.name_any(), &apply, &Patch::Apply(status)).await?;
        Ok(Action::requeue(AGAIN))
    }

    async fn let_go(&self, note: &Note) -> Result<Action, KeepError> {
        self.tell(note, "DeleteRequested", "Deleting").await?;
        Ok(Action::await_change())
    }
}

fn notes_of(client: &Client, note: &Note) -> Api<Note> {
    Api::namespaced(client.clone(), &note.namespace().unwrap_or_default())
}

pub(crate) async fn keep(
    note: Arc<Note>,
    keeper: Arc<Keeper>,
) -> Result<Action, finalizer::Error<KeepError>> {
    *keeper.looks.lock() += 1;
    finalizer(&notes_of(&keeper.client, &note), FINALIZER, note, |event| async {
        match event {
            finalizer::Event::Apply(note) => keeper.look(&note).await,
            finalizer::Event::Cleanup(note) => keeper.let_go(&note).await,
        }
    })
    .await
}

#[expect(clippy::needless_pass_by_value, reason = "the controller asks for this signature")]
pub(crate) fn failed(
    note: Arc<Note>,
    error: &finalizer::Error<KeepError>,
    keeper: Arc<Keeper>,
) -> Action {
    let what = (note.name_any(), format!("{error:?}").to_lowercase());
    *keeper.failures.lock().entry(what).or_default() += 1;
    Action::requeue(AGAIN)
}

/// Runs until its future is dropped.
pub(crate) async fn run(keeper: Arc<Keeper>) {
    let notes = Api::<Note>::all(keeper.client.clone());
    let controller = Controller::new(notes, watcher::Config::default().any_semantic());
    controller.run(keep, failed, keeper).for_each(|_| async {}).await;
}
