//! Values and operators.

use super::{check_failing, check_true};

#[test]
fn literals() {
    check_true(&[
        "1 == 0x1 && 1u == 0x1u && -0x10 == -16",
        "1.5e3 == 1500.0 && .5 == 0.5",
        r#"'a\'b' == "a'b" && r'\n' == '\\n'"#,
        r#"'''a
b''' == 'a\nb'"#,
        r"'\u00e9' == 'é' && '\x41' == 'A' && '\101' == 'A'",
        r"b'\xff' == b'\377' && b'é' == bytes('é')",
        "size('é') == 1 && size(b'é') == 2 && size('😁') == 1",
        "true && !false && null == null",
        "// a comment\n true // another",
        "-9223372036854775808 < 0",
    ]);
}

#[test]
fn arithmetic() {
    check_true(&[
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9",
        "7 / 2 == 3 && -7 / 2 == -3 && 7 % 3 == 1 && -7 % 3 == -1",
        "1.0 / 0.0 > 1e300 && 5u - 3u == 2u",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]",
        "- - 1 == 1 && -(1) == -1 && !!true",
        "1 - 1 - 1 == -1",
        "true ? 1 == 1 : 1 / 0 == 1",
    ]);
    check_failing(&[
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808 - 1", "integer overflow"),
        ("9223372036854775807 * 2", "integer overflow"),
        ("-(-9223372036854775808)", "integer overflow"),
        ("-9223372036854775808 / -1", "integer overflow"),
        ("1u - 2u", "unsigned integer overflow"),
        ("1 / 0", "division by zero"),
        ("1u % 0u", "modulus by zero"),
    ]);
}

#[test]
fn comparisons_across_types() {
    check_true(&[
        "1 < 1.5 && 1u < 2 && 1.5 > 1u && -1 < 0u",
        "dyn(1) == dyn(1.0) && dyn(1) == dyn(1u) && dyn(1) != dyn('1')",
        "dyn([1, 2]) == dyn([1.0, 2.0]) && {'a': dyn(1)} == {'a': dyn(1u)}",
        "'a' < 'b' && b'a' < b'b' && false < true",
        "x.a == 1 && x.d == 1.5 && x.a < x.d",
        "dyn(1) in [1.0, 2.0] && !(dyn('1') in [1])",
        "{1: 'a'}[dyn(1.0)] == 'a' && dyn(1u) in {1: 'a'}",
        "double('NaN') != double('NaN')",
        "dyn(9007199254740993) != 9007199254740992.0",
    ]);
    check_failing(&[
        ("dyn(1) < dyn('a')", "no such overload"),
        ("dyn(1) + dyn('a')", "no such overload"),
        ("double('NaN') < 1.0", "NaN values cannot be ordered"),
    ]);
}

#[test]
fn what_decides_makes_up_for_failures() {
    check_true(&[
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "[1, 0].exists(i, 1 / i == 1)",
        "[0, 1].exists(i, 1 / i == 1)",
        "![0, 2].all(i, 2 / i == 2)",
    ]);
    check_failing(&[
        ("1 / 0 == 1 || false", "division by zero"),
        ("true && 1 / 0 == 1", "division by zero"),
        ("[0, 1].all(i, 1 / i == 1)", "division by zero"),
        ("dyn(1) || false", "no such overload"),
        ("[1, 0].exists_one(i, 1 / i == 1)", "division by zero"),
    ]);
}

#[test]
fn fields_and_indexes() {
    check_true(&[
        "x.map.k == 'v' && x['map']['k'] == 'v' && x.list[0] == 1 && x.list[dyn(1.0)] == 2",
        "has(x.a) && !has(x.b) && has(x.none) && !has(x.map.z)",
        "x.nested.deep.er[0].name == 'n'",
        "'k' in x.map && !('z' in x.map) && 2 in x.list",
        "{'a': {'b': 1}}.a.b == 1 && [[1, 2], [3]][1][0] == 3",
        "x.?a.hasValue() && !x.?b.hasValue() && x.?b.orValue(7) == 7",
        "x.list[?5].orValue(0) == 0 && x.list[?0].value() == 1",
        "x.?map.?z == optional.none() && x.?map.k == optional.of('v')",
        "x.?map.k.orValue('other') == 'v'",
        "[?x.?b, ?x.?a] == [1] && {?'a': x.?b, ?'c': x.?a} == {'c': 1}",
        "size(x.list) == 3 && x.map.size() == 1",
    ]);
    check_failing(&[
        ("x.b", "no such key: b"),
        ("has(x.b.c)", "no such key: b"),
        ("x.list[3]", "index out of bounds: 3"),
        ("x.list[-1]", "index out of bounds: -1"),
        ("{'a': 1}['b']", "no such key: b"),
        ("x.list['a']", "unsupported index type 'string' in list"),
        ("x.a.b", "no such key: b"),
        ("optional.none().value()", "optional.none() dereference"),
        ("[?dyn(1)]", "cannot initialize optional list element from non-optional value 1"),
    ]);
}

#[test]
fn comprehensions() {
    check_true(&[
        "[1, 2, 3].all(i, i > 0) && [1, 2, 3].exists(i, i == 2)",
        "[1, 2, 3].exists_one(i, i > 2) && [1, 2, 3].existsOne(i, i > 2)",
        "[1, 2, 3].map(i, i * 2) == [2, 4, 6]",
        "[1, 2, 3].map(i, i > 1, i * 2) == [4, 6]",
        "[1, 2, 3].filter(i, i % 2 == 1) == [1, 3]",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])",
        "{'a': 1}.map(k, k) == ['a'] && {'a': 1, 'b': 2}.filter(k, k == 'a') == ['a']",
        "[[1], [2, 3]].map(l, l.map(i, i + 1)) == [[2], [3, 4]]",
        "[1, 2].map(i, [3, 4].map(j, i * j)) == [[3, 4], [6, 8]]",
        "[1, 2].map(i, [i].map(i, i * 10)) == [[10], [20]]",
        "[].all(i, false) && ![].exists(i, true)",
        "[1, 2, 3].all(i, v, i < v) && [5].exists(i, v, i == 0 && v == 5)",
        "['a', 'b'].transformList(i, v, v + string(i)) == ['a0', 'b1']",
        "['a', 'b'].transformList(i, v, i > 0, v) == ['b']",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10) == {'b': 20}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "x.list.map(i, i + x.a) == [2, 3, 4]",
        "optional.of(1).optMap(v, v + 1) == optional.of(2)",
        "optional.none().optMap(v, v + 1) == optional.none()",
        "x.?list.optMap(l, l.all(i, i in l)).orValue(false)",
        "x.?map.optFlatMap(m, m.?k) == optional.of('v')",
        "[x].map(y, y.list.map(i, i)[?0].optMap(v, [v, v].all(w, w == v)))[0].value()",
    ]);
    check_failing(&[
        ("{'a': 1, 'b': 1}.transformMapEntry(k, v, {v: k})", "insert failed: key 1 already exists"),
        ("[1, 2].map(i, 1 / (i - 1))", "division by zero"),
    ]);
}

#[test]
fn conversions() {
    check_true(&[
        "int('5') == 5 && int(5.9) == 5 && int(-5.9) == -5 && int(5u) == 5",
        "uint(5) == 5u && uint('5') == 5u && double('1.5') == 1.5 && double(1) == 1.0",
        "string(1) == '1' && string(1.5) == '1.5' && string(true) == 'true' && string(b'a') == 'a'",
        "string(1e6) == '1e+06' && string(-1.23e4) == '-12300' && string(1e-5) == '1e-05'",
        "bool('true') && !bool('F')",
        "bytes('a') == b'a' && type(1) == int && type('a') == string && type([1]) == list",
        "type(null) == null_type && type(int) == type && type(x.map) == map",
        "string(timestamp('2026-01-02T03:04:05Z')) == '2026-01-02T03:04:05Z'",
        "int(timestamp('1970-01-01T00:00:10Z')) == 10 && timestamp(10) > timestamp(9)",
        "string(duration('1h1m1.5s')) == '3661.5s' && int(duration('1s')) == 1000000000",
    ]);
    check_failing(&[
        ("int(dyn('a'))", "type conversion error from 'string' to 'int'"),
        ("int(1e30)", "integer overflow"),
        ("uint(-1)", "unsigned integer overflow"),
        ("string(dyn(b'\\xff'))", "invalid UTF-8 in bytes, cannot convert to string"),
        ("timestamp(x.a + 253402300800)", "timestamp overflow"),
    ]);
}

#[test]
fn times() {
    check_true(&[
        "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
        "timestamp('2026-01-01T00:00:00Z') + duration('1h') == timestamp('2026-01-01T01:00:00Z')",
        "duration('1h') + duration('1m') == duration('61m') && duration('1h') > duration('1m')",
        "timestamp('2026-07-14T10:30:45.123Z').getFullYear() == 2026",
        "timestamp('2026-07-14T10:30:45.123Z').getMonth() == 6",
        "timestamp('2026-07-14T10:30:45.123Z').getDate() == 14",
        "timestamp('2026-07-14T10:30:45.123Z').getDayOfMonth() == 13",
        "timestamp('2026-07-14T10:30:45.123Z').getDayOfWeek() == 2",
        "timestamp('2026-01-02T00:00:00Z').getDayOfYear() == 1",
        "timestamp('2026-07-14T10:30:45.123Z').getMilliseconds() == 123",
        "timestamp('2026-01-01T05:30:00Z').getFullYear('-08:00') == 2025",
        "timestamp('2026-01-01T05:30:00Z').getHours('+02:30') == 8",
        "timestamp('2026-01-01T05:30:00+01:00').getHours() == 4",
        "duration('3723.456s').getHours() == 1 && duration('3723.456s').getMinutes() == 62",
        "duration('3723.456s').getSeconds() == 3723",
    ]);
    check_failing(&[
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
        ("timestamp('2026-01-01T00:00:00Z').getHours('Nowhere/Land')", {
            "unknown time zone Nowhere/Land"
        }),
    ]);
}
