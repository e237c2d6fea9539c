//! Long chains of `&&` and `||` as trees of logarithmic depth.
//!
//! Source: cel-go `parser/helper.go` (`balancer`).

use super::ast::Expr;

/// Makes the tree of the terms, in their order. `join` makes a node of its operator's offset and
/// its sides.
pub(super) fn tree(
    terms: Vec<Expr>,
    operators: &[usize],
    join: &mut impl FnMut(usize, Expr, Expr) -> Expr,
) -> Expr {
    let count = operators.len();
    let mut terms = terms.into_iter();
    build(&mut terms, operators, 0, count, join)
}

/// The tree of the terms from the next one on, as many as there are operators in the range and
/// one more. The operator in the middle is its root, as upstream chooses it.
fn build(
    terms: &mut std::vec::IntoIter<Expr>,
    operators: &[usize],
    from: usize,
    to: usize,
    join: &mut impl FnMut(usize, Expr, Expr) -> Expr,
) -> Expr {
    if from == to {
        return terms.next().expect("there is one term more than operators");
    }
    let middle = (from + to) / 2;
    let left = build(terms, operators, from, middle, join);
    let right = build(terms, operators, middle + 1, to, join);
    join(operators[middle], left, right)
}
