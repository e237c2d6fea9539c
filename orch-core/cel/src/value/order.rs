//! Which of two values comes first.
//!
//! Source: cel-go `common/types/compare.go` and the `Compare` of each type.

use std::cmp::Ordering;

use super::Value;
use crate::error::Error;

/// Compares two values of one type, or numbers of any.
///
/// # Errors
///
/// [`Error::Failed`] for values without order and for `NaN`.
pub(crate) fn compare(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, Error> {
    Ok(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::String(left), Value::String(right)) => (**left).cmp(&**right),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
        (Value::Duration(left), Value::Duration(right)) => left.cmp(right),
        _ => match numeric(left, right) {
            Some(Some(order)) => order,
            Some(None) => return Err(Error::failed("NaN values cannot be ordered")),
            None => return Err(Error::no_such_overload()),
        },
    })
}

/// Compares two numbers of any types. The outer `None`: one is no number; the inner: `NaN`.
pub(super) fn numeric(left: &Value<'_>, right: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (left, right) {
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Double(left), right) => beside(*left, whole(right)?),
        (left, Value::Double(right)) => beside(*right, whole(left)?).map(Ordering::reverse),
        (left, right) => Some(whole(left)?.cmp(&whole(right)?)),
    })
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}

/// Compares exactly, where a cast of the whole number to a double would round.
fn beside(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond these no whole number of 64 bits is left, and below them the cast is exact.
    if double >= 18_446_744_073_709_551_616.0 {
        return Some(Ordering::Greater);
    }
    if double < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    let order = (double.floor() as i128).cmp(&whole);
    Some(if order == Ordering::Equal && double.fract() != 0.0 { Ordering::Greater } else { order })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_types_are_ordered_exactly() {
        let check = |left: Value<'static>, right: Value<'static>, expected: Ordering| {
            assert_eq!(compare(&left, &right).unwrap(), expected, "{left:?} {right:?}");
            assert_eq!(compare(&right, &left).unwrap(), expected.reverse());
        };
        check(Value::Int(1), Value::Double(1.5), Ordering::Less);
        check(Value::Int(-1), Value::Double(-1.5), Ordering::Greater);
        check(Value::Uint(u64::MAX), Value::Int(-1), Ordering::Greater);
        check(Value::Int(9_007_199_254_740_993), Value::Double(9.007199254740992e15), {
            Ordering::Greater
        });
        check(Value::Uint(u64::MAX), Value::Double(1.8446744073709552e19), Ordering::Less);
        check(Value::Double(1e300), Value::Int(i64::MAX), Ordering::Greater);
        check(Value::Double(2.0), Value::Uint(2), Ordering::Equal);
        assert!(compare(&Value::Double(f64::NAN), &Value::Int(1)).is_err());
    }
}
