//! Runs the cases: each on a runtime of its own, under its module and name.

use std::{collections::BTreeSet, fs, future::Future, path::Path, pin::Pin};

use libtest_mimic::{Arguments, Trial};
use orch_core::testing::require::{Requirement, missing};

use super::behaviours::{BEHAVIOURS, name_of};

type Start = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// One behaviour's test.
pub(crate) struct Case {
    pub(super) module: &'static str,
    pub(super) name: &'static str,
    pub(super) needs: &'static [Requirement],
    pub(super) start: Start,
}

/// Cases from functions, under the names of the functions.
macro_rules! cases {
    ($needs:expr, $module:ident: $($test:ident),+ $(,)?) => {
        vec![$(crate::conformance::harness::Case {
            module: stringify!($module),
            name: stringify!($test),
            needs: $needs,
            start: Box::new(|| Box::pin(super::$module::$test())),
        }),+]
    };
}
pub(super) use cases;

/// Runs what the command line asks for and ends the program.
pub(crate) fn run(cases: Vec<Case>) -> ! {
    let named: BTreeSet<(&str, &str)> = cases.iter().map(|c| (c.module, c.name)).collect();
    let named: BTreeSet<(String, String)> =
        named.into_iter().map(|(m, n)| (m.to_owned(), n.to_owned())).collect();
    let mut trials = vec![Trial::test("every_behaviour_has_its_test", move || {
        every_behaviour_has_its_test(&named);
        Ok(())
    })];
    let list =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/upstream/conformance/groups.tsv");
    let here = list.exists();
    let compare = Trial::test("the_list_is_upstreams", move || {
        the_list_is_upstreams(&fs::read_to_string(&list)?);
        Ok(())
    });
    trials.push(compare.with_ignored_flag(!here));
    trials.extend(cases.into_iter().map(trial));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trial(case: Case) -> Trial {
    let why = missing(case.needs);
    let start = case.start;
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(start());
        Ok(())
    };
    // The reason is part of what is shown, because libtest has no other place for it.
    Trial::test(format!("{}::{}", case.module, case.name), run)
        .with_kind(why.clone().unwrap_or_default())
        .with_ignored_flag(why.is_some())
}

fn every_behaviour_has_its_test(named: &BTreeSet<(String, String)>) {
    let wanted: BTreeSet<(String, String)> = BEHAVIOURS
        .iter()
        .flat_map(|(file, titles)| titles.iter().map(|title| (module_of(file), name_of(title))))
        .collect();
    let without: Vec<_> = wanted.difference(named).collect();
    let strange: Vec<_> = named.difference(&wanted).collect();
    assert!(without.is_empty() && strange.is_empty(), "missing {without:?}, strange {strange:?}");
    assert_eq!(wanted.len(), 108);
}

/// The list of the tests that are upstream's must be that of its conformance data.
fn the_list_is_upstreams(groups: &str) {
    let mut missing = Vec::new();
    let mut count = 0;
    for line in groups.lines().filter(|line| line.starts_with("i_api\t")) {
        let mut fields = line.split('\t').skip(1);
        let (file, title) = (fields.next().unwrap(), fields.next().unwrap());
        if file.ends_with("admissionpolicy.go") {
            continue;
        }
        count += 1;
        let of = BEHAVIOURS.iter().find(|(listed, _)| *listed == file);
        let title = title.trim_end_matches(" [Conformance]").replace(" [NodeConformance]", "");
        if !of.is_some_and(|(_, titles)| titles.iter().any(|t| ends_alike(&title, t))) {
            missing.push(format!("{file}: {title}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert_eq!(count, 108);
}

/// Upstream's titles carry what their suites are called in front, and tags behind.
fn ends_alike(upstreams: &str, ours: &str) -> bool {
    let plain = |text: &str| name_of(text);
    plain(upstreams).ends_with(&plain(ours)) || plain(upstreams).contains(&plain(ours))
}

fn module_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.trim_end_matches(".go").to_owned()
}
