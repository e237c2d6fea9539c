//! The functions of the library.

use orch_cel::library::{Authorizer, Decision, Query, Target, authorizer_type};
use orch_cel::{Budget, Environment, Error, Variables};

use super::{check_failing, check_true, environment};

#[test]
fn strings() {
    check_true(&[
        "'tacocat'.charAt(3) == 'o' && 'a'.charAt(1) == ''",
        "'héllo'.indexOf('l') == 2 && 'héllo'.indexOf('l', 3) == 3 && 'a'.indexOf('b') == -1",
        "'a'.indexOf('') == 0 && 'abc'.indexOf('', 2) == 2 && 'abc'.indexOf('c', 9) == -1",
        "'hello hello'.lastIndexOf('hello') == 6 && 'hello hello'.lastIndexOf('hello', 5) == 0",
        "'ééa'.lastIndexOf('é') == 1 && 'abc'.lastIndexOf('') == 3 && 'a'.lastIndexOf('ab') == -1",
        "'éA'.lowerAscii() == 'éa' && 'Éa'.upperAscii() == 'ÉA'",
        "'hello'.replace('l', 'L') == 'heLLo' && 'hello'.replace('l', 'L', 1) == 'heLlo'",
        "'ab'.replace('', '_') == '_a_b_' && 'ab'.replace('a', 'b', 0) == 'ab'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'aé'.split('') == ['a', 'é'] && 'abc'.split('', 2) == ['a', 'bc'] && ''.split('') == []",
        "'a,b'.split(',', 0) == [] && 'a,b'.split(',', -1) == ['a', 'b'] && ''.split(',') == ['']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "' \\t a \\n'.trim() == 'a' && ['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b'",
        r#"strings.quote('a"\n\\') == '"a\\"\\n\\\\"'"#,
        "'a1b22'.find('[0-9]+') == '1' && 'a'.find('b') == ''",
        "'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']",
        "x.s.substring(1, 3) == 'ex' && x.s.matches('^te.t$')",
    ]);
    check_failing(&[
        ("'a'.charAt(2)", "index out of range: 2"),
        ("'a'.substring(2)", "index out of range: 2"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("'abc'.indexOf('a', -1)", "index out of range: -1"),
        ("x.s.find(x.s + '(')", {
            "Illegal regex: error parsing regexp: missing closing ): `text(`"
        }),
    ]);
}

#[test]
fn formatted_text() {
    check_true(&[
        "'%s %d %%'.format(['a', 1]) == 'a 1 %'",
        "'%.2f %f'.format([1.005, 1234.5]) == '1.00 1,234.500000'",
        "'%b %o %x %X'.format([5, 8, 255, 'hi']) == '101 10 ff 6869'",
        "'%s'.format([[1, 2]]) == '[1, 2]' && '%s'.format([{'a': ['b']}]) == '{\"a\":[\"b\"]}'",
        "'%s %s'.format([true, null]) == 'true null' && '%s'.format([[1.5]]) == '[1.500000]'",
        "'%s'.format([timestamp('2026-01-01T00:00:00Z')]) == '2026-01-01T00:00:00Z'",
        "'%e'.format([2.71828]) == '2.718280×10⁰⁰'",
    ]);
    check_failing(&[
        (
            "'%d'.format(['a'])",
            "ERROR: <input>:1:14: error during formatting: decimal clause can only be used on \
             integers, was given string\n | '%d'.format(['a'])\n | .............^",
        ),
        (
            "'%s'.format(['a', 'b'])",
            "ERROR: <input>:1:12: too many arguments supplied to string.format (expected 1, got \
             2)\n | '%s'.format(['a', 'b'])\n | ...........^",
        ),
        ("'%d'.format([x.s])", {
            "error during formatting: decimal clause can only be used on integers, was given string"
        }),
        ("'%d'.format(x.list.filter(i, false))", "index 0 out of range"),
    ]);
}

#[test]
fn lists_and_sets() {
    check_true(&[
        "[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [1, 2].sum() == 3",
        "[1.5, 2.0].sum() == 3.5 && [duration('1s')].sum() == duration('1s')",
        "[3, 1, 2].min() == 1 && ['a', 'c', 'b'].max() == 'c'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(3) == -1",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3] && [[1], [2, 3]].flatten() == [1, 2, 3]",
        "[[[1], [2]], [[3]]].flatten(2) == [1, 2, 3] && [[1]].flatten(0) == [[1]]",
        "lists.range(3) == [0, 1, 2] && [1, 2].reverse() == [2, 1]",
        "[1, 2, 1].distinct() == [1, 2] && [3, 1, 2].sort() == [1, 2, 3]",
        "['bb', 'a'].sortBy(s, s.size()) == ['a', 'bb']",
        "[1, 2].first() == optional.of(1) && [1, 2].last().value() == 2",
        "optional.unwrap([optional.of(1), optional.none()]) == [1]",
        "sets.contains([1, 2, 3], [2, 1]) && sets.equivalent([1, 2], [2, 1, 1])",
        "sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], [2]) && sets.contains([], [])",
    ]);
    check_failing(&[
        ("dyn(['a', 'b']).sum()", "no such overload: sum(list)"),
        ("[1].filter(i, false).max()", "max called on empty list"),
        ("[1].slice(0, 2)", "cannot slice(0, 2), list is length 1"),
    ]);
}

#[test]
fn addresses() {
    check_true(&[
        "isIP('1.2.3.4') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && isIP('::1')",
        "ip('::1').isLoopback() && ip('10.0.0.1').isGlobalUnicast() && ip('::1').family() == 6",
        "ip('224.0.0.9').isLinkLocalMulticast() && ip('169.254.0.1').isLinkLocalUnicast()",
        "ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1')",
        "ip('0.0.0.0').isUnspecified() && string(ip('1.2.3.4')) == '1.2.3.4'",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "!cidr('10.1.0.0/16').containsCIDR('10.0.0.0/8') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "cidr('::/0').prefixLength() == 0 && cidr('10.0.0.1/8').ip() == ip('10.0.0.1')",
        "!isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0/08') && isCIDR('::/0')",
        "type(ip('::1')) == net.IP && string(cidr('10.0.0.0/8')) == '10.0.0.0/8'",
    ]);
    check_failing(&[("ip(x.s)", {
        "IP Address \"text\" parse error during conversion from string: ParseAddr(\"text\"): \
         unable to parse IP"
    })]);
}

#[test]
fn quantities_and_versions() {
    check_true(&[
        "quantity('200M') == quantity('0.2G') && quantity('1Ki') == quantity('1024')",
        "quantity('50M').isLessThan(quantity('50Mi')) && quantity('1').isGreaterThan(quantity('1m'))",
        "quantity('50k').add(20) == quantity('50020') && quantity('1').sub(quantity('500m')) == quantity('0.5')",
        "quantity('50k').isInteger() && !quantity('1500m').isInteger() && quantity('50k').asInteger() == 50000",
        "sign(quantity('-1')) == -1 && quantity('1.5').asApproximateFloat() == 1.5",
        "isQuantity('1e3') && !isQuantity('1x') && !isQuantity('') && !isQuantity('1.1.1')",
        "quantity('9999999999999999999999999999999999999G').isInteger() == false",
        "semver('1.2.3').major() == 1 && semver('1.2.3').patch() == 3",
        "semver('1.0.0-alpha.1').isLessThan(semver('1.0.0-alpha.beta'))",
        "semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1 && semver('v1', true) == semver('1.0.0')",
        "isSemver('1.0.0+build') && !isSemver('01.0.0') && !isSemver('1.0') && isSemver('01.0', true)",
    ]);
    check_failing(&[
        ("quantity(x.s)", {
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        }),
        ("quantity('1500m').asInteger()", "cannot convert value to integer"),
        ("semver('1')", "No Major.Minor.Patch elements found"),
    ]);
}

#[test]
fn urls_and_formats() {
    check_true(&[
        "isURL('https://a.b:80/c?d=e') && !isURL('a') && url('https://a.b:80/').getPort() == '80'",
        "url('https://u@a.b:80/c%20d?x=1&x=2#f').getHost() == 'a.b:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('HTTP://a').getScheme() == 'http'",
        "url('https://a/c d').getEscapedPath() == '/c%20d' && url('/p').getHost() == ''",
        "url('https://a/?x=1&x=2&y=a%20b').getQuery() == {'x': ['1', '2'], 'y': ['a b']}",
        "!format.dns1123Label().validate('a-b').hasValue()",
        "format.dns1123Label().validate('a.b').value() == ['must not contain dots']",
        "format.named('uuid').value().validate('x').value() == ['does not match the UUID format']",
        "!format.named('nothing').hasValue() && !format.date().validate('2026-01-01').hasValue()",
        "format.datetime().validate('2026-01-01').hasValue() && !format.byte().validate('aGk=').hasValue()",
        "!format.qualifiedName().validate('a.b/C').hasValue() && format.labelValue().validate('-').hasValue()",
        "!format.dns1123LabelPrefix().validate('a-').hasValue() && format.uri().validate('x').hasValue()",
    ]);
}

#[test]
fn what_the_authorizer_has_no_answer_to_is_asked_again() {
    let environment = Environment::kubernetes().variable("authorizer", authorizer_type()).build();
    let source = "authorizer.group('apps').resource('deployments').namespace('a').name('b')\
                  .check('get').allowed() && !authorizer.serviceAccount('a', 'c').path('/x')\
                  .check('get').allowed()";
    let program = environment.compile(source).expect("it compiles");
    let variables =
        Variables::new().with("authorizer", orch_cel::Value::opaque(Authorizer::default()));
    let mut known: Vec<(Query, Decision)> = Vec::new();
    let mut budget = Budget::default();
    let value = loop {
        let answers = |query: &Query| {
            let found = known.iter().find(|(asked, _)| asked == query);
            found.map(|(_, decision)| decision.clone())
        };
        match program.evaluate_authorized(&variables, Some(&answers), &mut budget) {
            Err(Error::NeedsAuthorization(query)) => {
                let allowed = matches!(query.target, Target::Resource(_));
                known.push((*query, Decision { allowed, ..Decision::default() }));
            }
            other => break other,
        }
    };
    assert_eq!(value.expect("all was answered").as_bool(), Some(true));
    assert_eq!(known.len(), 2);
    let spent = Budget::default().remaining() - budget.remaining();
    assert!((700_000..701_000).contains(&spent), "{spent}");
    assert!(environment.compile("authorizer.path(' ').check('get').allowed()").is_ok());
}

#[test]
fn patches_are_built_with_any_fields() {
    let environment = environment().extend().patches().build();
    let value = |source: &str| {
        let program = environment.compile(source).map_err(|error| error.to_string())?;
        let value = program.evaluate(&Variables::new(), &mut Budget::default());
        value.and_then(|value| value.to_json()).map_err(|error| error.to_string())
    };
    let source = "Object{spec: Object.spec{replicas: 1, ?paused: optional.none(), \
                  template: Object.spec.template{labels: {'a': 'b'}}}}";
    let expected = serde_json::json!({
        "spec": {"replicas": 1, "template": {"labels": {"a": "b"}}},
    });
    assert_eq!(value(source), Ok(expected));
    let source = "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/y~'), value: [1]}]";
    let expected = serde_json::json!([{"op": "add", "path": "/a/x~1y~0", "value": [1]}]);
    assert_eq!(value(source), Ok(expected));
    assert_eq!(value("type(Object{}) == Object && Object{a: 1}.a == 1"), Ok(true.into()));
    assert_eq!(
        value("JSONPatch{op: 1}"),
        Err("ERROR: <input>:1:13: expected type of field 'op' is 'string' but provided type is \
             'int'\n | JSONPatch{op: 1}\n | ............^"
            .to_owned())
    );
}
