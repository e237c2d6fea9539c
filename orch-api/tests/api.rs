//! The API server through `kube::Client` and through the in-process client, over a memory store.

mod api {
    mod conformance;
    mod consistency;
    mod discovery;
    mod forms;
    mod objects;
    mod refusals;
    mod support;
    mod watches;
}
