//! The behaviours that an operator's authors test against a real cluster, in process and in virtual
//! time: its finalizer, its status, its events, its failures, one call at a time and as a whole.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Event,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::controller::Action,
};
use orch::testing::{self, TestCluster};
use serde_json::json;

use operator::{AGAIN, FINALIZER, Keeper, MANAGER, Note, NoteSpec, NoteStatus, failed, keep, run};

pub(crate) mod operator;

/// A cluster that knows notes, the notes in it, and somebody who keeps them.
pub(crate) async fn notes() -> (TestCluster, Api<Note>, Arc<Keeper>) {
    let cluster = testing::cluster().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
    definitions.create(&PostParams::default(), &Note::crd()).await.expect("it is defined");
    let (notes, keeper) =
        (Api::default_namespaced(cluster.client()), Keeper::new(cluster.client()));
    (cluster, notes, keeper)
}

pub(crate) fn note(name: &str, archived: bool) -> Note {
    Note::new(name, NoteSpec { text: "milk".to_owned(), archived })
}

fn kept(mut note: Note) -> Note {
    note.finalizers_mut().push(FINALIZER.to_owned());
    note
}

async fn create(notes: &Api<Note>, note: &Note) -> Arc<Note> {
    Arc::new(notes.create(&PostParams::default(), note).await.expect("it is created"))
}

/// The events about a note, as a client filters them.
async fn told(cluster: &TestCluster, name: &str) -> Vec<Event> {
    let events: Api<Event> = Api::all(cluster.client());
    let about = format!("involvedObject.kind=Note,involvedObject.name={name}");
    events.list(&ListParams::default().fields(&about)).await.expect("a list").items
}

fn reasons(events: &[Event]) -> Vec<&str> {
    events.iter().filter_map(|event| event.reason.as_deref()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_note_gets_the_finalizer_before_anything_else() {
    let (cluster, notes, keeper) = notes().await;
    let made = create(&notes, &note("shopping", true)).await;
    keep(made, keeper).await.expect("it is kept");
    let now = notes.get("shopping").await.expect("it is there");
    assert_eq!(now.finalizers(), [FINALIZER]);
    assert_eq!(now.status, None, "that is for the next look");
    assert!(told(&cluster, "shopping").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_note_with_the_finalizer_gets_its_status() {
    let (cluster, notes, keeper) = notes().await;
    let made = create(&notes, &kept(note("shopping", false))).await;
    let action = keep(made, keeper).await.expect("it is kept");
    assert_eq!(action, Action::requeue(AGAIN));
    let now = notes.get_status("shopping").await.expect("it is there");
    assert_eq!(now.status, Some(NoteStatus { archived: false }));
    let managers = now.managed_fields();
    let mine = managers.iter().find(|one| one.manager.as_deref() == Some(MANAGER));
    let mine = mine.expect("who applies is known");
    assert_eq!(mine.operation.as_deref(), Some("Apply"));
    assert_eq!(mine.subresource.as_deref(), Some("status"));
    assert!(told(&cluster, "shopping").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn archiving_is_told_once_and_stands_in_the_status() {
    let (cluster, notes, keeper) = notes().await;
    let made = create(&notes, &kept(note("shopping", true))).await;
    keep(made, keeper.clone()).await.expect("it is kept");
    let now = Arc::new(notes.get_status("shopping").await.expect("it is there"));
    assert_eq!(now.status, Some(NoteStatus { archived: true }));
    keep(now, keeper).await.expect("it is kept");
    let told = told(&cluster, "shopping").await;
    assert_eq!(reasons(&told), ["ArchiveRequested"]);
    assert_eq!(told[0].action.as_deref(), Some("Archiving"));
    assert_eq!(told[0].message.as_deref(), Some("Archiving shopping"));
    assert_eq!(told[0].reporting_component.as_deref(), Some(MANAGER));
}

#[tokio::test(start_paused = true)]
async fn a_note_that_is_deleted_is_told_and_let_go() {
    let (cluster, notes, keeper) = notes().await;
    create(&notes, &kept(note("shopping", false))).await;
    notes.delete("shopping", &DeleteParams::default()).await.expect("it is deleted");
    let going = Arc::new(notes.get("shopping").await.expect("its finalizer holds it"));
    assert!(going.metadata.deletion_timestamp.is_some());
    assert_eq!(keep(going, keeper).await.expect("it is let go"), Action::await_change());
    cluster.expect(&notes, "shopping").to_be_gone().await;
    assert_eq!(reasons(&told(&cluster, "shopping").await), ["DeleteRequested"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_counted_and_nothing_is_written() {
    let (cluster, notes, keeper) = notes().await;
    let mut illegal = kept(note("diary", false));
    illegal.spec.text = "a secret".to_owned();
    let made = create(&notes, &illegal).await;
    let before = cluster.revision();
    let error = keep(made.clone(), keeper.clone()).await.expect_err("it is not kept");
    assert_eq!(cluster.revision(), before);
    assert_eq!(failed(made, &error, keeper.clone()), Action::requeue(AGAIN));
    let counted = keeper.failures.lock().clone();
    let what = ("diary".to_owned(), "applyfailed(secret)".to_owned());
    assert_eq!(counted.into_iter().collect::<Vec<_>>(), [(what, 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_whole_operator_keeps_notes_from_their_making_to_their_end() {
    let (cluster, notes, keeper) = notes().await;
    let running = tokio::spawn(run(keeper.clone()));
    let author = PatchParams::apply("author");
    let shopping = note("shopping", true);
    notes.patch("shopping", &author, &Patch::Apply(&shopping)).await.expect("it is applied");
    let is_archived = |note: Option<&Note>| note.is_some_and(|n| n.status.is_some());
    let now = cluster.expect(&notes, "shopping").to("be archived", is_archived).await;
    assert_eq!(now.status, Some(NoteStatus { archived: true }));
    // The author owns what the author applied, and can apply it again.
    let milk = json!({"apiVersion": "notes.example/v1", "kind": "Note",
        "spec": {"text": "milk, eggs", "archived": false}});
    notes.patch("shopping", &author, &Patch::Apply(milk)).await.expect("it is applied");
    let is_back =
        |note: Option<&Note>| note.is_some_and(|n| n.status == Some(NoteStatus::default()));
    cluster.expect(&notes, "shopping").to("be back", is_back).await;
    notes.delete("shopping", &DeleteParams::default()).await.expect("it is deleted");
    cluster.expect(&notes, "shopping").to_be_gone().await;
    assert_eq!(reasons(&told(&cluster, "shopping").await), ["ArchiveRequested", "DeleteRequested"]);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_note_is_looked_at_again_when_nothing_is_heard_of_it() {
    let (cluster, notes, keeper) = notes().await;
    let running = tokio::spawn(run(keeper.clone()));
    create(&notes, &note("shopping", false)).await;
    cluster.settle().await;
    let looks = *keeper.looks.lock();
    let before = cluster.revision();
    cluster.advance(AGAIN * 3).await;
    assert_eq!(*keeper.looks.lock(), looks + 3);
    let changes = cluster.diff(before, cluster.revision()).await.expect("it is remembered");
    assert!(!changes.to_string().contains("Note"), "{changes}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_the_definition_forbids_is_refused() {
    let (_cluster, notes, _) = notes().await;
    let wrong = json!({"apiVersion": "notes.example/v1", "kind": "Note",
        "metadata": {"name": "shopping"}, "spec": {"text": 5}});
    let author = PatchParams::apply("author");
    let error = notes.patch("shopping", &author, &Patch::Apply(wrong)).await.expect_err("refused");
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    for part in ["spec.archived: Required value", "spec.text: Invalid value: \"integer\""] {
        assert!(status.message.contains(part), "{part:?} is not in {}", status.message);
    }
}
