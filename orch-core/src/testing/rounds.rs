//! How long tests that search by chance go on.

/// The variable that makes such tests longer: a factor, 1 unless set.
pub const ROUNDS_VARIABLE: &str = "ORCH_TEST_ROUNDS";

/// How many rounds (seeds, cases, kills) a test makes: `short`, times the factor in
/// `ORCH_TEST_ROUNDS`. So every run of the tests searches a little, and one who asks for it, long.
///
/// # Panics
/// If the variable holds something other than a positive whole number: a long run that was asked
/// for must not pass as a short one.
///
/// ```
/// for seed in 0..orch_core::testing::rounds(8) {
///     // simulate(seed)
/// #   let _ = seed;
/// }
/// ```
pub fn rounds(short: u32) -> u32 {
    let text = std::env::var(ROUNDS_VARIABLE);
    short.saturating_mul(text.map_or(1, |text| factor(&text)))
}

fn factor(text: &str) -> u32 {
    match text.parse() {
        Ok(factor) if factor > 0 => factor,
        _ => panic!("{ROUNDS_VARIABLE}={text:?} is not a positive whole number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_a_positive_number() {
        assert_eq!(factor("50"), 50);
        for wrong in ["", "0", "-1", "many"] {
            assert!(std::panic::catch_unwind(|| factor(wrong)).is_err(), "{wrong:?}");
        }
    }
}
