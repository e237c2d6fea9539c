//! Webhooks of admission and conversion, and aggregated API servers, in process: upstream's conformance behaviours, each under
//! the title of its test, and what those leave out.

mod webhooks {
    mod aggregation;
    mod conformance;
    mod conversion;
    mod custom_resources;
    mod https;
    mod reviews;
    mod support;
}
