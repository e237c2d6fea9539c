//! What is wrong with expressions, in the words and at the places of upstream.

use orch_cel::Declared;
use serde_json::json;

use super::environment;

fn check(source: &str, expected: &str) {
    let found = environment().compile(source).expect_err(source).to_string();
    assert_eq!(found, expected, "{source}");
}

#[test]
fn syntax() {
    const EXPRESSION: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, \
         NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    check(
        "1 +",
        &format!(
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {EXPRESSION}\n \
             | 1 +\n | ...^"
        ),
    );
    check(
        "1 + $",
        &format!(
            "ERROR: <input>:1:5: Syntax error: token recognition error at: '$'\n | 1 + $\n | \
             ....^\nERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting \
             {EXPRESSION}\n | 1 + $\n | .....^"
        ),
    );
    check(
        "a | b",
        "ERROR: <input>:1:3: Syntax error: token recognition error at: '| '\n | a | b\n | ..^\n\
         ERROR: <input>:1:5: Syntax error: extraneous input 'b' expecting <EOF>\n | a | b\n | ....^",
    );
    check(
        "1 + 2\n3 +",
        "ERROR: <input>:2:1: Syntax error: mismatched input '3' expecting <EOF>\n | 3 +\n | ^",
    );
    check("while", "ERROR: <input>:1:1: reserved identifier: while\n | while\n | ^");
    check(
        "0xFFFFFFFFFFFFFFFFF",
        "ERROR: <input>:1:1: invalid int literal\n | 0xFFFFFFFFFFFFFFFFF\n | ^",
    );
    check("has(x)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(x)\n | ....^");
    check(
        "[].map(__result__, 1)",
        "ERROR: <input>:1:8: iteration variable overwrites accumulator variable\n | \
         [].map(__result__, 1)\n | .......^",
    );
    check(
        "1.all(2, 3)",
        "ERROR: <input>:1:7: argument must be a simple name\n | 1.all(2, 3)\n | ......^",
    );
}

#[test]
fn names_and_overloads() {
    check("y", "ERROR: <input>:1:1: undeclared reference to 'y' (in container '')\n | y\n | ^");
    check(
        "1 + 'a'",
        "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | \
         1 + 'a'\n | ..^",
    );
    check(
        "'a'.startsWith(1)",
        "ERROR: <input>:1:15: found no matching overload for 'startsWith' applied to \
         'string.(int)'\n | 'a'.startsWith(1)\n | ..............^",
    );
    check(
        "nothing(1)",
        "ERROR: <input>:1:8: undeclared reference to 'nothing' (in container '')\n | nothing(1)\n \
         | .......^",
    );
    check(
        "1 && true",
        "ERROR: <input>:1:1: expected type 'bool' but found 'int'\n | 1 && true\n | ^",
    );
    check(
        "[1, 'a']",
        "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^",
    );
    check(
        "'é' + y + z",
        "ERROR: <input>:1:7: undeclared reference to 'y' (in container '')\n | 'é' + y + z\n | \
         .\u{ff0e}....^\nERROR: <input>:1:11: undeclared reference to 'z' (in container '')\n | \
         'é' + y + z\n | .\u{ff0e}........^",
    );
    check(
        "1.all(i, true)",
        "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be \
         list, map, or dynamic)\n | 1.all(i, true)\n | ^",
    );
    check(
        "true.a",
        "ERROR: <input>:1:5: type 'bool' does not support field selection\n | true.a\n | ....^",
    );
    check(
        "duration('x') == duration('1s')",
        "ERROR: <input>:1:10: invalid duration argument\n | duration('x') == duration('1s')\n | \
         .........^",
    );
    check(
        "'a'.matches('(')",
        "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^",
    );
}

#[test]
fn fields_of_declared_objects() {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "integer"}, "x-y": {"type": "string"}, "namespace": {"type": "string"},
        "items": {"type": "array", "items": {"type": "object", "properties": {
            "name": {"type": "string"}}}},
        "unknown": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "either": {"x-kubernetes-int-or-string": true},
    }});
    let declared = Declared::of_schema(&schema, false).expect("visible").named("self0");
    let environment = orch_cel::Environment::kubernetes().variable("self", &declared).build();
    let fine = [
        "self.a + 1 > 0 && self.x__dash__y == '' && self.__namespace__ == ''",
        "self.namespace == ''",
        "self.items.all(i, i.name == '')",
        "type(self.either) == int || self.either == 'x'",
        "self == self && has(self.a)",
    ];
    for source in fine {
        assert!(environment.compile(source).is_ok(), "{source}");
    }
    let wrong = [
        ("self.b == 1", "ERROR: <input>:1:5: undefined field 'b'\n | self.b == 1\n | ....^"),
        (
            "self.items[0] == 1",
            "ERROR: <input>:1:15: found no matching overload for '_==_' applied to \
             '(self0.items.@idx, int)'\n | self.items[0] == 1\n | ..............^",
        ),
        (
            "self.a.c",
            "ERROR: <input>:1:7: type 'int' does not support field selection\n | self.a.c\n | \
             ......^",
        ),
    ];
    for (source, expected) in wrong {
        assert_eq!(environment.compile(source).expect_err(source).to_string(), expected);
    }
}

#[test]
fn deep_and_large_expressions_are_refused() {
    let too_deep = |source: String| {
        let found = environment().compile(&source).expect_err("too deep").to_string();
        assert!(found.contains("limit"), "{found}");
    };
    too_deep(format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000)));
    too_deep(format!("1{}", " + 1".repeat(10_000)));
    too_deep(format!("x{}", ".a".repeat(10_000)));
    too_deep(format!("{}1", "[".repeat(10_000)));
    too_deep("1".repeat(100_001));
    assert!(environment().compile(&format!("true{}", " && true".repeat(5_000))).is_ok());
    // A macro that copies its receiver, of which that is a copy, and so on.
    let copies = format!("optional.of(1){}", ".optMap(v, v)".repeat(60));
    assert!(environment().compile(&copies).is_err());
    // A type that holds itself twice, again and again.
    let types = format!("[1]{}", ".map(a, {a: a})".repeat(60));
    assert!(environment().compile(&types).is_err());
}
