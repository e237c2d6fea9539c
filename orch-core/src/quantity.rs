//! Resource quantities with exact arithmetic: `500m`, `1.5Gi`, `12e6`.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    iter::Sum,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// The text is not a quantity. The messages are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// The text as a whole does not have the form of a quantity.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// What follows the number is no known suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes that a quantity was written with, and prints with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `m`, nothing, `k`, `M`: powers of 1000.
    #[default]
    DecimalSI,
    /// `Ki`, `Mi`, `Gi`: powers of 1024.
    BinarySI,
    /// `e3`, `e6`.
    DecimalExponent,
}

/// An amount of a resource, exact to a billionth.
///
/// Parsing rounds what is finer than a billionth away from zero, as upstream does. Equality and
/// order look at the amount alone: `1000m` equals `1`. Display is the canonical form, which is what
/// the API serves.
///
/// Arithmetic saturates at about ±1.7·10²⁹, far beyond what [`Amount::value`] can tell.
///
/// Differs: upstream computes decimal amounts beyond that bound with big integers.
///
/// ```
/// use orch_core::quantity::Amount;
/// let memory: Amount = "1.5Gi".parse()?;
/// assert_eq!(memory.value(), 1_610_612_736);
/// assert_eq!((memory + "512Mi".parse()?).to_string(), "2Gi");
/// # Ok::<(), orch_core::quantity::QuantityError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    nano: i128,
    format: Format,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSI };

    /// A whole amount.
    pub const fn from_value(value: i64, format: Format) -> Self {
        Self { nano: value as i128 * NANO, format }
    }

    /// An amount in thousandths, as CPU is counted.
    pub const fn from_milli(milli: i64) -> Self {
        Self { nano: milli as i128 * (NANO / 1000), format: Format::DecimalSI }
    }

    /// The amount in whole units, rounded away from zero, saturating.
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded away from zero, saturating.
    pub fn milli_value(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(self, unit: i128) -> i64 {
        saturate(div_away(self.nano, unit))
    }

    /// The amount rounded away from zero to thousandths, as the API rounds a pod's resources.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let unit = NANO / 1000;
        Self { nano: div_away(self.nano, unit).saturating_mul(unit), format: self.format }
    }

    /// The amount rounded away from zero to whole units.
    #[must_use]
    pub fn rounded_to_whole(self) -> Self {
        Self { nano: div_away(self.nano, NANO).saturating_mul(NANO), format: self.format }
    }

    /// The amount as a floating point number: for ratios, never for sums.
    pub fn as_f64(self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// The suffix family.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether this is nothing.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Whether this is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// The amount as the object model has it.
    pub fn to_quantity(self) -> Quantity {
        Quantity(self.to_string())
    }
}

fn div_away(value: i128, unit: i128) -> i128 {
    let (quotient, rest) = (value / unit, value % unit);
    quotient + rest.signum()
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Amount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let parts = Parts::split(text)?;
        let (base, exponent, mut format) = interpret_suffix(parts.suffix)?;
        let fraction = parts.fraction.trim_end_matches('0');
        // 2^63 has 19 digits; what lies beyond 30 fractional digits can only matter by rounding up.
        let kept = &fraction[..fraction.len().min(30)];
        let sticky = kept.len() < fraction.len();
        let digits = parts.whole.bytes().chain(kept.bytes());
        let mantissa = digits.fold(0i128, |sum, digit| {
            sum.saturating_mul(10).saturating_add(i128::from(digit - b'0'))
        });
        let mantissa = if base == 2 { mantissa.saturating_mul(1 << exponent) } else { mantissa };
        let decimal = if base == 10 { exponent } else { 0 } - kept.len() as i64 + 9;
        let mut nano = scale_by_ten(mantissa, decimal);
        if sticky && mantissa.saturating_mul(10) != i128::MAX {
            let exact_so_far = decimal < 0 && scale_by_ten(nano, -decimal) == mantissa;
            nano = nano.saturating_add(i128::from(exact_so_far || decimal >= 0));
        }
        if format == Format::BinarySI {
            nano = nano.min(i128::from(i64::MAX) * NANO);
            if nano > 0 && nano < NANO {
                format = Format::DecimalSI;
            }
        }
        Ok(Self { nano: if parts.negative { -nano } else { nano }, format })
    }
}

/// `value * 10^power`, rounded up.
fn scale_by_ten(value: i128, power: i64) -> i128 {
    if value == 0 {
        return 0;
    }
    let factor = u32::try_from(power.unsigned_abs()).ok().and_then(|p| 10i128.checked_pow(p));
    match (factor, power >= 0) {
        (Some(factor), true) => value.saturating_mul(factor),
        (None, true) => i128::MAX,
        (Some(factor), false) => div_away(value, factor),
        (None, false) => 1,
    }
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    /// Splits as upstream does, which takes a missing number for zero.
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        let negative = text.starts_with('-');
        let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = take_digits(rest);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => take_digits(rest),
            None => ("", rest),
        };
        let tail = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
        let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
        if !take_digits(tail).1.is_empty() {
            return Err(QuantityError::Format);
        }
        Ok(Self { negative, whole: whole.trim_start_matches('0'), fraction, suffix })
    }
}

fn take_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

const DECIMAL: &[(&str, i64)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

fn interpret_suffix(suffix: &str) -> Result<(u8, i64, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
        return Ok((10, *exponent, Format::DecimalSI));
    }
    if let Some(power) = BINARY.iter().position(|text| *text == suffix) {
        return Ok((2, power as i64 * 10, Format::BinarySI));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i64 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    // Past these bounds every amount is saturated or the smallest one anyway.
    Ok((10, exponent.clamp(-1000, 1000), Format::DecimalExponent))
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let whole = self.nano % NANO == 0;
        if self.format == Format::BinarySI && whole && (self.nano / NANO).abs() >= 1024 {
            let (mut number, mut power) = (self.nano / NANO, 0);
            while number % 1024 == 0 && power + 1 < BINARY.len() {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", BINARY[power]);
        }
        let (mut number, mut exponent) = (self.nano, -9);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{number}"),
            Format::DecimalExponent => write!(f, "{number}e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s);
                write!(f, "{number}{suffix}")
            }
        }
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Amount {}

impl Hash for Amount {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nano.hash(state);
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Amount {
    type Output = Self;

    /// The sum, in the format of the left side, or of the right one if the left is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: self.nano.saturating_neg(), format: self.format }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl TryFrom<&Quantity> for Amount {
    type Error = QuantityError;

    fn try_from(quantity: &Quantity) -> Result<Self, QuantityError> {
        quantity.0.parse()
    }
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        amount.to_quantity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str, value: i64, milli: i64) {
        let amount: Amount = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(
            (amount.to_string().as_str(), amount.value(), amount.milli_value()),
            (canonical, value, milli),
            "{text:?}"
        );
    }

    #[test]
    fn quantities_parse_and_print_as_upstreams() {
        check("0", "0", 0, 0);
        check("100m", "100m", 1, 100);
        check("0.5", "500m", 1, 500);
        check(".5", "500m", 1, 500);
        check("1.", "1", 1, 1000);
        check("1000m", "1", 1, 1000);
        check("-1.5", "-1500m", -2, -1500);
        check("1.5Gi", "1536Mi", 1_610_612_736, 1_610_612_736_000);
        check("1024Mi", "1Gi", 1 << 30, (1 << 30) * 1000);
        check("1000Ki", "1000Ki", 1_024_000, 1_024_000_000);
        check("512", "512", 512, 512_000);
        check("0.5Ki", "512", 512, 512_000);
        check("0.0001Ki", "102400u", 1, 103);
        check("12e6", "12e6", 12_000_000, 12_000_000_000);
        check("12E6", "12e6", 12_000_000, 12_000_000_000);
        check("1e-3", "1e-3", 1, 1);
        check("1E", "1E", 1_000_000_000_000_000_000, i64::MAX);
        check("100Ei", "9223372036854775807", i64::MAX, i64::MAX);
        check("0.1n", "1n", 1, 1);
        check("-0.1n", "-1n", -1, -1);
        check("1.0000000001", "1000000001n", 2, 1001);
        check("1000000000000000000000k", "1000000E", i64::MAX, i64::MAX);
        check("0.0000000000000000000000000000000000000000001", "1n", 1, 1);
        check("00012k", "12k", 12_000, 12_000_000);
        check("+3M", "3M", 3_000_000, 3_000_000_000);
        check(
            "1e9999999999",
            &Amount { nano: i128::MAX, format: Format::DecimalExponent }.to_string(),
            i64::MAX,
            i64::MAX,
        );
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("1.1.M", QuantityError::Format),
            ("1 ", QuantityError::Format),
            (" 1", QuantityError::Format),
            ("1Gb", QuantityError::Format),
            ("0x1", QuantityError::Format),
            ("1é", QuantityError::Format),
            ("1i", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("0.1mi", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1e-", QuantityError::Suffix),
            ("3e1.", QuantityError::Format),
        ] {
            assert_eq!(text.parse::<Amount>(), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn canonical_forms_are_fixed_points(mantissa in -1_000_000_000_000i64..1_000_000_000_000,
                                            suffix in "(|n|u|m|k|M|G|Ki|Mi|Gi|e3|e-3)") {
            let amount: Amount = format!("{mantissa}{suffix}").parse().unwrap();
            let again: Amount = amount.to_string().parse().unwrap();
            prop_assert_eq!(amount, again);
            prop_assert_eq!(amount.to_string(), again.to_string());
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,12}") {
            let _taken_or_refused = text.parse::<Amount>();
        }

        #[test]
        fn sums_are_exact(a in any::<i32>(), b in any::<i32>()) {
            let sum = Amount::from_milli(a.into()) + Amount::from_milli(b.into());
            prop_assert_eq!(sum.milli_value(), i64::from(a) + i64::from(b));
            prop_assert_eq!(sum - Amount::from_milli(b.into()), Amount::from_milli(a.into()));
        }
    }
}
