//! Quantities of resources.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/quantity.go`;
//! `k8s.io/apimachinery/pkg/api/resource` for what is a quantity.

use std::any::Any;
use std::cmp::Ordering;

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Functions, Overload};
use crate::types::Type;
use crate::value::{Opaque, Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

const NANO: i128 = 1_000_000_000;
/// More digits do not fit upstream's fast form.
const DIGITS_MAX: usize = 18;

/// An amount, exact to a billionth; what is beyond 1.7·10²⁹ is taken for that.
///
/// Differs: upstream compares amounts beyond that bound exactly.
#[derive(Clone, Copy, Debug)]
struct Quantity {
    nanos: i128,
    /// The number and its power of ten in which upstream keeps an amount that it need not
    /// compute with big numbers. It is what can be an integer.
    fast: Option<(i64, i32)>,
}

fn quantity_type() -> Type {
    Type::object("kubernetes.Quantity")
}

impl Opaque for Quantity {
    fn type_of(&self) -> Type {
        quantity_type()
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.nanos == other.nanos)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A power of ten, or the largest number.
fn ten(power: u32) -> i128 {
    10_i128.checked_pow(power).unwrap_or(i128::MAX)
}

impl Quantity {
    fn of_fast(value: i64, scale: i32) -> Self {
        let power = scale + 9;
        let nanos = match u32::try_from(power) {
            Ok(power) => i128::from(value).saturating_mul(ten(power)),
            // Finer amounts are rounded away from zero.
            Err(_) => rounded(i128::from(value), ten(power.unsigned_abs())),
        };
        Self { nanos, fast: Some((value, scale)) }
    }

    fn as_integer(self) -> Option<i64> {
        let (value, scale) = self.fast?;
        let factor = ten(u32::try_from(scale).ok()?);
        i64::try_from(i128::from(value).checked_mul(factor)?).ok()
    }

    fn plus(self, other: Self) -> Self {
        let nanos = self.nanos.saturating_add(other.nanos);
        Self { nanos, fast: self.fast.zip(other.fast).and_then(|(a, b)| added(a, b)) }
    }

    fn negated(self) -> Self {
        let fast = self.fast.and_then(|(value, scale)| Some((value.checked_neg()?, scale)));
        Self { nanos: self.nanos.saturating_neg(), fast }
    }
}

/// The sum of two numbers with their powers of ten, at the smaller of the powers.
fn added((a, a_scale): (i64, i32), (b, b_scale): (i64, i32)) -> Option<(i64, i32)> {
    if b == 0 {
        return Some((a, a_scale));
    }
    if a == 0 {
        return Some((b, b_scale));
    }
    let scale = a_scale.min(b_scale);
    let at_scale = |value: i64, from: i32| {
        value.checked_mul(i64::try_from(ten((from - scale).unsigned_abs())).ok()?)
    };
    Some((at_scale(a, a_scale)?.checked_add(at_scale(b, b_scale)?)?, scale))
}

fn rounded(value: i128, divisor: i128) -> i128 {
    let rest = i128::from(value % divisor != 0);
    value / divisor + rest * value.signum()
}

/// A suffix: how many times, as a power of ten or of two.
enum Suffix {
    Ten(i32),
    Two(u32),
}

fn suffix(text: &str) -> Option<Suffix> {
    Some(match text {
        "n" => Suffix::Ten(-9),
        "u" => Suffix::Ten(-6),
        "m" => Suffix::Ten(-3),
        "" => Suffix::Ten(0),
        "k" => Suffix::Ten(3),
        "M" => Suffix::Ten(6),
        "G" => Suffix::Ten(9),
        "T" => Suffix::Ten(12),
        "P" => Suffix::Ten(15),
        "E" => Suffix::Ten(18),
        "Ki" => Suffix::Two(10),
        "Mi" => Suffix::Two(20),
        "Gi" => Suffix::Two(30),
        "Ti" => Suffix::Two(40),
        "Pi" => Suffix::Two(50),
        "Ei" => Suffix::Two(60),
        _ => {
            let exponent = text.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let plain = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
            Suffix::Ten(exponent.parse().ok().filter(|_| plain)?)
        }
    })
}

fn parse(text: &str) -> Result<Quantity, &'static str> {
    const FORMAT: &str = "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    const SUFFIX: &str = "unable to parse quantity's suffix";
    if text.is_empty() {
        return Err(FORMAT);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (whole, rest) = rest.split_at(end);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(FORMAT);
    }
    let letters = rest.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let digits = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(FORMAT);
    }
    let suffix = suffix(rest).ok_or(SUFFIX)?;
    let whole = whole.trim_start_matches('0');
    let quantity = fast(whole, fraction, &suffix).unwrap_or_else(|| slow(whole, fraction, &suffix));
    Ok(if negative { quantity.negated() } else { quantity })
}

/// What upstream keeps as a number and a power of ten.
fn fast(whole: &str, fraction: &str, suffix: &Suffix) -> Option<Quantity> {
    let digits = format!("0{whole}{fraction}");
    let places = fraction.len() as i32;
    match suffix {
        Suffix::Ten(power) => {
            let scale = power - places;
            let fits = whole.len() + fraction.len() <= DIGITS_MAX && scale >= -9;
            fits.then(|| Some(Quantity::of_fast(digits.parse().ok()?, scale))).flatten()
        }
        Suffix::Two(power) => {
            let digits_left = 14 - whole.len() as i32 - (*power as f32 * 3.0 / 10.0) as i32;
            let value: i64 = digits.parse().ok().filter(|_| fraction.is_empty())?;
            let value = value.checked_mul(1 << power).filter(|_| digits_left >= 0)?;
            Some(Quantity::of_fast(value, 0))
        }
    }
}

/// The others, up to the largest integer of 64 bits.
fn slow(whole: &str, fraction: &str, suffix: &Suffix) -> Quantity {
    let most = i128::from(i64::MAX) * NANO;
    // Digits beyond these are far below a billionth, or above the bound.
    let fraction = &fraction[..fraction.len().min(27)];
    let whole: i128 =
        if whole.len() > 30 { most } else { format!("0{whole}").parse().unwrap_or(most) };
    let part: i128 = format!("0{fraction}").parse().unwrap_or_default();
    let places = fraction.len() as i32;
    let nanos = match suffix {
        Suffix::Ten(power) => {
            let of = |value: i128, power: i32| match u32::try_from(power) {
                Ok(power) => value.saturating_mul(ten(power)),
                Err(_) => rounded(value, ten(power.unsigned_abs())),
            };
            of(whole, power.saturating_add(9))
                .saturating_add(of(part, power.saturating_add(9 - places)))
        }
        Suffix::Two(power) => {
            let times = 1_i128 << power;
            let whole = whole.saturating_mul(times).saturating_mul(NANO);
            let part = part.saturating_mul(times);
            let part = if places <= 9 {
                part.saturating_mul(ten((9 - places).unsigned_abs()))
            } else {
                rounded(part, ten((places - 9).unsigned_abs()))
            };
            whole.saturating_add(part)
        }
    };
    Quantity { nanos: nanos.min(most), fast: None }
}

pub(super) fn install(functions: &mut Functions) {
    type Body = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;
    functions.add_type("kubernetes.Quantity", quantity_type());
    let quantity = quantity_type;
    let mut add = |name: &'static str, form| functions.add(name, form);
    let text = || [Type::String];
    add("quantity", Overload::function("string_to_quantity", text(), quantity(), of_text));
    add("isQuantity", Overload::function("is_quantity_string", text(), Type::Bool, is_quantity));
    add("sign", Overload::function("quantity_sign", [quantity()], Type::Int, sign));
    let methods: [(&'static str, &'static str, Vec<Type>, Type, Body); 10] = [
        ("isGreaterThan", "quantity_is_greater_than", vec![quantity()], Type::Bool, greater),
        ("isLessThan", "quantity_is_less_than", vec![quantity()], Type::Bool, less),
        ("compareTo", "quantity_compare_to", vec![quantity()], Type::Int, compare_to),
        ("asApproximateFloat", "quantity_get_float", vec![], Type::Double, as_float),
        ("asInteger", "quantity_get_int", vec![], Type::Int, as_integer),
        ("isInteger", "quantity_is_integer", vec![], Type::Bool, is_integer),
        ("add", "quantity_add", vec![quantity()], quantity(), plus),
        ("add", "quantity_add_int", vec![Type::Int], quantity(), plus),
        ("sub", "quantity_sub", vec![quantity()], quantity(), minus),
        ("sub", "quantity_sub_int", vec![Type::Int], quantity(), minus),
    ];
    for (name, id, others, result, body) in methods {
        let args: Vec<Type> = [quantity()].into_iter().chain(others).collect();
        add(name, Overload::method(id, args, result, body));
    }
}

fn text_of<'v>(args: &'v [Value<'_>]) -> Result<&'v str, Error> {
    args.first().and_then(Value::as_str).ok_or_else(Error::no_such_overload)
}

/// A quantity, or an integer in its place.
fn given(args: &[Value<'_>], at: usize) -> Result<Quantity, Error> {
    match args.get(at) {
        Some(Value::Int(value)) if at == 1 => Ok(Quantity::of_fast(*value, 0)),
        Some(value) => value.downcast().copied().ok_or_else(Error::no_such_overload),
        None => Err(Error::no_such_overload()),
    }
}

fn of_text<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    parse(text_of(args)?).map(Value::opaque).map_err(Error::failed)
}

fn is_quantity<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(parse(text_of(args)?).is_ok()))
}

fn sign<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(given(args, 0)?.nanos.signum() as i64))
}

fn ordered(args: &[Value<'_>]) -> Result<Ordering, Error> {
    Ok(given(args, 0)?.nanos.cmp(&given(args, 1)?.nanos))
}

fn greater<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(ordered(args)?.is_gt()))
}

fn less<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(ordered(args)?.is_lt()))
}

fn compare_to<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(ordered(args)? as i64))
}

fn as_float<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let quantity = given(args, 0)?;
    Ok(Value::Double(match quantity.fast {
        Some((value, 0)) => value as f64,
        Some((value, scale)) => value as f64 * 10_f64.powi(scale),
        None => quantity.nanos as f64 / NANO as f64,
    }))
}

fn as_integer<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match given(args, 0)?.as_integer() {
        Some(value) => Ok(Value::Int(value)),
        None => Err(Error::failed("cannot convert value to integer")),
    }
}

fn is_integer<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(given(args, 0)?.as_integer().is_some()))
}

fn plus<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::opaque(given(args, 0)?.plus(given(args, 1)?)))
}

fn minus<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [_, _] = args else { return no_such_overload() };
    Ok(Value::opaque(given(args, 0)?.plus(given(args, 1)?.negated())))
}
