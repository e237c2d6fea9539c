//! Selectors of devices: what they see, what they cost, and what is said of those that are none.
//!
//! Source: the cases of `k8s.io/dynamic-resource-allocation/cel/compile_test.go`, with the most
//! that each can cost.

use orch_cel::device::{Attribute, Device, Selector};

const DRIVER: &str = "dra.example.com";

fn device(multiple: bool) -> Device<'static> {
    let mut device = Device::new(DRIVER, multiple);
    let attributes = [
        ("bool", Attribute::Bool(true)),
        ("int", Attribute::Int(1)),
        ("string", Attribute::String("fish")),
        ("version", Attribute::Version("1.0.0")),
        ("services", Attribute::String("some_example_value")),
        ("other.example.com/name", Attribute::Bool(true)),
    ];
    for (name, value) in attributes {
        device.attribute(name, value).expect("a value");
    }
    device.capacity("quantity", "1Mi").expect("a quantity");
    device
}

/// An expression on the device: its value, and the most that it can cost.
fn check(expression: &str, expected: Result<bool, &str>, cost: u64) {
    let selector = Selector::compile(expression).expect(expression);
    let device = device(false).finish().expect("a device");
    let outcome = selector.matches(&device).map_err(|error| error.to_string());
    assert_eq!(outcome, expected.map_err(str::to_owned), "{expression}");
    assert_eq!(selector.cost_max(), cost, "{expression}");
}

#[test]
fn selectors_see_a_device_and_cost_what_they_cost_upstream() {
    let missing = Err("no such key: noSuchAttr");
    check("true", Ok(true), 0);
    check(r#"device.attributes["none"].noSuchAttr.isGreaterThan(quantity("0"))"#, missing, 6);
    check(r#"device.attributes["none"]["noSuchAttr"].isGreaterThan(quantity("0"))"#, missing, 6);
    check(r#""no-such-domain" in device.attributes"#, Ok(false), 3);
    check(r#""dra.example.com" in device.attributes"#, Ok(true), 3);
    check(r#"device.driver == """#, Ok(false), 2);
    check(r#"device.driver == "dra.example.com""#, Ok(true), 4);
    check(r#"device.attributes["dra.example.com"].bool"#, Ok(true), 4);
    check(r#"device.attributes["dra.example.com"]["bool"]"#, Ok(true), 4);
    check(r#"cel.bind(dra, device.attributes["dra.example.com"], dra.bool)"#, Ok(true), 15);
    check(r#"device.attributes["other.example.com"].name"#, Ok(true), 4);
    check(r#"device.attributes["dra.example.com"].int > 0"#, Ok(true), 5);
    check(r#"device.attributes["dra.example.com"].string == "fish""#, Ok(true), 5);
    let version = r#"device.attributes["dra.example.com"].version.isGreaterThan(semver("0.0.1"))"#;
    check(version, Ok(true), 6);
    let enough = r#"device.capacity["dra.example.com"].quantity.isGreaterThan(quantity("1Ki"))"#;
    check(enough, Ok(true), 6);
    let has = r#""quantity" in device.capacity["dra.example.com"]"#;
    check(&format!("{has} && {enough}"), Ok(true), 10);
    check(&format!("!({has}) || {enough}"), Ok(true), 11);
    check(r#"device.attributes.exists_one(x, x == "dra.example.com")"#, Ok(true), 164);
    check(r#"device.attributes["dra.example.com"].exists_one(x, x == "int")"#, Ok(true), 133);
    let parts = r#"device.attributes["dra.example.com"].services.split("example").size() >= 2"#;
    check(parts, Ok(true), 19);
    let pattern = r#"device.attributes["dra.example.com"].services.matches("[^a]?ome")"#;
    check(pattern, Ok(true), 18);
    check(r#"device.capacity.exists_one(x, x == "dra.example.com")"#, Ok(true), 164);
    check(r#"device.capacity["dra.example.com"].exists_one(x, x == "quantity")"#, Ok(true), 133);
}

#[test]
fn what_is_no_truth_value_fails_when_it_is_looked_at() {
    let words = "CEL result of type int could not be converted to bool: unsupported type \
                 conversion from 'int' to bool";
    check(r#"device.attributes["dra.example.com"].int"#, Err(words), 4);
}

#[test]
fn devices_tell_whether_they_may_be_allocated_more_than_once() {
    let selector = Selector::compile("device.allowMultipleAllocations == true").expect("one");
    assert_eq!(selector.cost_max(), 3);
    for multiple in [false, true] {
        let device = device(multiple).finish().expect("a device");
        assert_eq!(selector.matches(&device), Ok(multiple));
    }
}

#[test]
fn what_is_no_selector_is_told() {
    let check = |expression: &str, words: &str| {
        let error = Selector::compile(expression).expect_err(expression).to_string();
        assert!(error.contains(words), "{expression}: {error}");
    };
    check("?!", "compilation failed: ERROR: <input>:1:1: Syntax error");
    check("1", "must evaluate to bool or the unknown type, not int");
    check("device.noSuchField == 1", "undefined field 'noSuchField'");
    let undeclared = r#"device.attributes["d"].name.includes("fish")"#;
    check(undeclared, "undeclared reference to 'includes'");
    let mut device = Device::new(DRIVER, false);
    let error = device.attribute("v", Attribute::Version("1")).expect_err("no version");
    let words = "attribute v: parse semantic version: No Major.Minor.Patch elements found";
    assert_eq!(error.to_string(), words);
}
