//! What holds for every expression.

use orch_cel::Error;
use orch_cel::testing::exercise;
use proptest::prelude::*;

/// Longer with `ORCH_TEST_ROUNDS`.
fn rounds(cases: u32) -> ProptestConfig {
    let times = std::env::var("ORCH_TEST_ROUNDS").ok().and_then(|times| times.parse().ok());
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases * times.unwrap_or(1))
    }
}

type Forms = (&'static [&'static str], &'static [&'static str]);

/// Expressions of this type, and how to make more of them.
const BOOL: Forms = (
    &["true", "false", "self.flag", "has(self.name)", "'app' in self.labels"],
    &[
        "($b && $b)",
        "($b || $b)",
        "!$b",
        "($i < $i)",
        "($d >= $i)",
        "($s == $s)",
        "($i in $l)",
        "$l.all(v, v > $i)",
        "$t.exists(v, v == $s)",
        "$s.matches('^a+')",
        "($b ? $b : $b)",
        "$s.startsWith($s)",
        "sets.contains($l, $l)",
        "$l.exists_one(v, v == $i)",
        "($l == $l)",
        "$l.isSorted()",
        "isIP($s)",
        "isQuantity($s)",
        "(type($i) == int)",
        "$l.all(i, v, i < v)",
        "optional.of($i).hasValue()",
        "$l[?$i].hasValue()",
    ],
);

/// Expressions of this type, and how to make more of them.
const INT: Forms = (
    &["0", "1", "-7", "9223372036854775807", "self.count", "size(self.list)"],
    &[
        "($i + $i)",
        "($i - $i)",
        "($i * $i)",
        "($i / $i)",
        "($i % $i)",
        "-($i)",
        "size($s)",
        "$l.size()",
        "$l.sum()",
        "$l.max()",
        "$l[$i]",
        "int($d)",
        "int($s)",
        "($b ? $i : $i)",
        "$s.indexOf($s)",
        "$l.indexOf($i)",
        "$l[?$i].orValue($i)",
        "optional.of($i).optMap(v, v + $i).value()",
        "dyn($i)",
    ],
);

/// Expressions of this type, and how to make more of them.
const DOUBLE: Forms = (
    &["0.5", "1e300", "self.ratio"],
    &["($d + $d)", "($d * $d)", "($d / $d)", "double($i)", "($b ? $d : $d)"],
);

/// Expressions of this type, and how to make more of them.
const TEXT: Forms = (
    &["''", "'a'", "'é'", "self.name", "self.labels.app", "'a.b-c'"],
    &[
        "($s + $s)",
        "$s.upperAscii()",
        "$s.replace($s, $s)",
        "$s.substring($i)",
        "string($i)",
        "string($d)",
        "$t.join($s)",
        "$s.trim()",
        "$s.charAt($i)",
        "($b ? $s : $s)",
        "'%s-%d'.format([$s, $i])",
        "$s.find('[a-z]+')",
        "self.labels[$s]",
        "strings.quote($s)",
        "string($b)",
    ],
);

/// Expressions of this type, and how to make more of them.
const INTS: Forms = (
    &["[]", "[1, 2, 3]", "self.list", "lists.range(4)"],
    &[
        "($l + $l)",
        "[$i, $i]",
        "$l.map(v, v + $i)",
        "$l.filter(v, $b)",
        "$l.map(v, v > $i, v * 2)",
        "($b ? $l : $l)",
        "$l.reverse()",
        "$l.distinct()",
        "$l.sort()",
        "$l.slice($i, $i)",
        "[$l, $l].flatten()",
        "$l.sortBy(v, -v)",
        "$l.transformList(i, v, i + v)",
        "[?optional.of($i)]",
    ],
);

/// Expressions of this type, and how to make more of them.
const STRINGS: Forms = (
    &["['a', 'b']", "self.set", "['x']"],
    &[
        "($t + $t)",
        "[$s, $s]",
        "$s.split($s)",
        "$t.map(v, v + $s)",
        "$t.filter(v, v != $s)",
        "self.labels.map(k, k)",
        "$s.findAll('a')",
    ],
);

/// Writes expressions of a wanted type, by chance.
struct Writer {
    state: u64,
}

#[derive(Clone, Copy)]
enum Wanted {
    Bool,
    Int,
    Double,
    String,
    Ints,
    Strings,
}

use Wanted::{Bool, Double, Int, Ints, String as Text, Strings};

impl Writer {
    fn below(&mut self, bound: usize) -> usize {
        // Knuth's constants; the high bits are the good ones.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % bound
    }

    /// One of the forms; `$b`, `$i` and so on are replaced by expressions of these types.
    fn write(&mut self, wanted: Wanted, depth: usize) -> String {
        let (leaves, forms) = match wanted {
            Bool => BOOL,
            Int => INT,
            Double => DOUBLE,
            Text => TEXT,
            Ints => INTS,
            Strings => STRINGS,
        };
        if depth == 0 || self.below(5) == 0 {
            return leaves[self.below(leaves.len())].to_owned();
        }
        let form = forms[self.below(forms.len())];
        let mut written = String::new();
        let mut rest = form;
        while let Some(at) = rest.find('$') {
            written.push_str(&rest[..at]);
            let part = match rest.as_bytes()[at + 1] {
                b'b' => Bool,
                b'i' => Int,
                b'd' => Double,
                b's' => Text,
                b'l' => Ints,
                _ => Strings,
            };
            written.push_str(&self.write(part, depth - 1));
            rest = &rest[at + 2..];
        }
        written + rest
    }
}

proptest! {
    #![proptest_config(rounds(2_000))]

    /// What the checker accepts does not fail for its types; limits hold to the unit.
    #[test]
    fn accepted_expressions_have_the_types_that_were_found(seed: u64) {
        let mut writer = Writer { state: seed };
        let wanted = [Bool, Int, Double, Text, Ints, Strings][writer.below(6)];
        let source = writer.write(wanted, 4);
        let Some((_, value)) = exercise(&source) else {
            // Constants may fail at once: a string that is no number, a division by zero.
            return Ok(());
        };
        if let Err(error) = value {
            let message = error.to_string();
            prop_assert!(!message.contains("no such overload"), "{source}: {message}");
        }
    }

    /// Whether the type of a field is known or not, an expression has the same value. Only the
    /// kind of a list has to be known.
    #[test]
    fn declared_values_are_as_the_others(seed: u64) {
        let mut writer = Writer { state: seed };
        let wanted = [Bool, Int, Double, Text, Ints][writer.below(5)];
        let source = writer.write(wanted, 3);
        let dynamic = source.replace("self.", "any.");
        if source.contains("self.set") || source == dynamic {
            return Ok(());
        }
        if let (Some((_, declared)), Some((_, dynamic))) = (exercise(&source), exercise(&dynamic)) {
            // The checker takes what it knows nothing of for the first type that suits it, as
            // upstream's does, and may be wrong there.
            let mistaken = |error: &Error| error.to_string().contains("no such overload");
            let mistaken = dynamic.as_ref().is_err_and(mistaken);
            prop_assert!(mistaken || declared == dynamic, "{source}: {declared:?} {dynamic:?}");
        }
    }

    /// Nothing panics, whatever is written.
    #[test]
    fn any_text_is_refused_or_evaluated(source in ".{0,60}") {
        exercise(&source);
    }

    /// Nor does what looks like an expression.
    #[test]
    fn any_tokens_are_refused_or_evaluated(tokens in prop::collection::vec(token(), 0..24)) {
        exercise(&tokens.join(" "));
        exercise(&tokens.concat());
    }
}

fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(TOKENS)
}

const TOKENS: &[&str] = &[
    "self",
    "any",
    "any.list",
    "any.name",
    "1",
    "-1",
    "2u",
    "0.5",
    "'a'",
    "b'a'",
    "null",
    "true",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ".",
    ",",
    ":",
    "?",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "in",
    "has",
    "size",
    "map",
    "all",
    "filter",
    "i",
    "optional.of",
    ".?",
    "[?",
    "dyn",
    "type",
    "int",
    "string",
    ".map(i, i)",
    ".all(i, true)",
    ".format([",
    "duration('1s')",
    "timestamp(",
    "'\\",
    "\"\"\"",
    "r'",
    "`",
    "@",
    "0x",
    "1e",
    "//",
    "\n",
    "Object{",
    "__result__",
    ".sortBy(i, i)",
    ".optMap(v, v)",
    "cidr('::/0')",
];

/// Expressions that would take time or memory without end.
#[test]
fn hostile_expressions_end_soon() {
    let nested = |inner: &str, times: usize, around: &str| {
        (0..times).fold(inner.to_owned(), |inner, _| around.replace('$', &inner))
    };
    let sources = [
        // Lists that hold themselves twice, compared, written out and joined.
        format!("[1]{} == [1]", ".map(a, [a, a])".repeat(40)),
        format!("[[1]]{0} == [[1]]{0}", ".map(a, a + a)".repeat(30)),
        format!("'%s'.format([[1]{}])", ".map(a, [a, a])".repeat(30)),
        format!("[[[1]]]{}.flatten(60)", ".map(a, [a, a])".repeat(30)),
        format!("[['a']]{}.map(l, l.join('a'))", ".map(a, a + a)".repeat(24)),
        // Strings that double.
        format!("['aaaaaaaa']{}.size() > 0", ".map(a, a + a)".repeat(60)),
        format!("['a']{}.size() > 0", ".map(a, a.replace('', a + a))".repeat(20)),
        // Loops within loops.
        nested("lists.range(1000)", 8, "lists.range(1000).map(v, $)"),
        "lists.range(1000000000).size() > 0".to_owned(),
        "lists.range(900000).map(i, [i, i]).size() > 0".to_owned(),
        "lists.range(2000).map(i, string(i)).all(p, 'a'.matches(p + '(a{100}){9}'))".to_owned(),
        format!("'{}'.matches('(a*)*b')", "a".repeat(50_000)),
        "lists.range(3000).map(i, 'abc'.split('')).size() > 0".to_owned(),
        format!("[{}]", "1,".repeat(40_000)),
        format!("any{}", ".?name.orValue(any)".repeat(80)),
        nested("true", 60, "(any.flag ? $ : false)"),
        nested("[1].all(i, i > 0)", 60, "[1].all(i, $)"),
    ];
    for source in sources {
        let start = std::time::Duration::from_nanos(cpu_time());
        exercise(&source);
        let spent = std::time::Duration::from_nanos(cpu_time()) - start;
        // A debug build on a busy machine; in release this is milliseconds.
        assert!(spent.as_secs() < 20, "{spent:?} for {}", &source[..source.len().min(80)]);
    }
}

/// The time that this thread has been running.
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or_default()
}
