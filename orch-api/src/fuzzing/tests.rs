//! The targets under seeded mutations, and bombs.

use orch_core::{
    random::{Random, SeededRandom},
    testing::rounds,
};
use serde_json::{Value, json};

use super::{TARGETS, patches::SEPARATOR, run, seeds, seeds::objects};

mod bombs;
mod mutate;

use mutate::Mutator;

/// Inputs per target in the short form.
const INPUTS: u32 = 300;
/// Inputs of the targets that bring up a server each.
const WHOLE: u32 = 40;

/// Runs one input; a panic names it.
fn attempt(target: &str, seed: u64, input: &[u8]) {
    let ran = std::panic::catch_unwind(|| run(target, input));
    if ran.is_err() {
        panic!("seed {seed} breaks {target}: {:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn no_parser_is_broken_by_mutated_bytes() {
    for (target, _) in TARGETS {
        let corpus = seeds(target);
        assert!(!corpus.is_empty(), "{target} has nothing to begin with");
        corpus.iter().for_each(|input| attempt(target, 0, input));
        let whole = matches!(target, "schemas" | "requests");
        for seed in 1..=u64::from(rounds(if whole { WHOLE } else { INPUTS })) {
            attempt(target, seed, &Mutator::new(seed).bytes(&corpus));
        }
    }
}

#[test]
fn no_object_that_is_nearly_right_breaks_the_server() {
    let objects = objects();
    for seed in 1..=u64::from(rounds(4 * WHOLE)) {
        let mut mutator = Mutator::new(seed);
        let at = mutator.random.below(objects.len() as u64) as usize;
        let (path, text) = &objects[at];
        let original: Value = serde_json::from_str(text).unwrap();
        let mut first = original.clone();
        let mut second = original;
        mutator.json(&mut first);
        mutator.json(&mut second);
        attempt("requests", seed, &seeds::script(path, &first.to_string(), &second.to_string()));
    }
}

#[test]
fn no_definition_that_is_nearly_right_breaks_the_server() {
    let seed_input = &seeds("schemas")[0];
    let at = seed_input.iter().position(|byte| *byte == SEPARATOR).unwrap();
    let definition: Value = serde_json::from_slice(&seed_input[..at]).unwrap();
    let object: Value = serde_json::from_slice(&seed_input[at + 1..]).unwrap();
    for seed in 1..=u64::from(rounds(2 * WHOLE)) {
        let mut mutator = Mutator::new(seed);
        let (mut definition, mut object) = (definition.clone(), object.clone());
        let version = &mut definition["spec"]["versions"][0];
        mutator.json(if seed % 2 == 0 { &mut version["schema"] } else { version });
        mutator.json(&mut object["spec"]);
        let input = format!("{definition}{}{object}", char::from(SEPARATOR));
        attempt("schemas", seed, input.as_bytes());
    }
}

#[test]
fn a_patch_of_random_objects_says_the_same_twice() {
    for seed in 1..=u64::from(rounds(INPUTS)) {
        let mut mutator = Mutator::new(seed);
        let objects = objects();
        let random = SeededRandom::new(seed);
        let (_, text) = &objects[random.below(objects.len() as u64) as usize];
        let mut object: Value = serde_json::from_str(text).unwrap();
        let mut patch = object.clone();
        mutator.json(&mut object);
        mutator.json(&mut patch);
        let mut input = vec![(seed % 4) as u8];
        input.extend(object.to_string().into_bytes());
        input.push(SEPARATOR);
        let patch = if seed % 4 == 0 { json!([patch]) } else { patch };
        input.extend(patch.to_string().into_bytes());
        attempt("patches", seed, &input);
    }
}

#[test]
fn the_corpus_is_what_a_server_takes() {
    for (path, text) in objects() {
        let code = super::requests::first_answer(&format!("POST {path}\n{text}"));
        assert_eq!(code, Some(201), "{path}");
    }
    let definition = &seeds("schemas")[0];
    let at = definition.iter().position(|byte| *byte == SEPARATOR).unwrap();
    let text = String::from_utf8_lossy(&definition[..at]);
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(super::requests::first_answer(&format!("POST {path}\n{text}")), Some(201));
}
