//! The functions that expressions can call, and what they work on.
//!
//! [`Environment::kubernetes`](crate::Environment::kubernetes) has them all: the standard ones of
//! the language, its extensions for strings, lists, sets, optional values and comprehensions with
//! two variables, and Kubernetes' own.
//!
//! Source: `k8s.io/apiserver/pkg/cel/environment/base.go`.

mod addresses;
mod authorizer;
mod conversions;
mod formats;
mod formatting;
mod lists;
mod operators;
mod optional;
mod patches;
mod pattern;
mod quantity;
mod regex;
mod semver;
mod sets;
mod standard;
mod strings;
mod time;
mod urls;

pub use authorizer::{
    Authorize, Authorizer, Decision, Query, ResourceCheck, ServiceAccount, Target, authorizer_type,
    resource_check_type,
};
pub(crate) use formats::{FORMAT_SIZE_MAX, Format, PATTERN_SIZE_MAX};
pub(crate) use formatting::check as check_format;
pub(crate) use pattern::compile as compile_pattern;

use crate::function::Functions;

/// The functions of Kubernetes 1.36.
pub(crate) fn kubernetes() -> Functions {
    let mut functions = Functions::default();
    let libraries = [
        operators::install,
        conversions::install,
        standard::install,
        time::install,
        optional::install,
        regex::install,
        authorizer::install,
        formats::install,
        urls::install,
        strings::install,
        lists::install,
        sets::install,
        addresses::install,
        quantity::install,
        semver::install,
    ];
    libraries.iter().for_each(|install| install(&mut functions));
    functions
}

/// What expressions that build patches may call besides.
pub(crate) fn install_patches(functions: &mut Functions) {
    patches::install(functions);
}
