//! Custom resources, through `kube::Client` in the server's own process.

mod custom {
    mod definitions;
    mod expressions;
    mod objects;
    mod schemas;
    mod support;
}
