//! What happens to objects on their way: patches, managed fields, encodings.

mod apply;
mod properties;
mod protobuf;
