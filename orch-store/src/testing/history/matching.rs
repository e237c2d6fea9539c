//! Which call of unknown outcome made which change.

/// Gives every row a column of its own, from those that it can have; or the first row that goes
/// away empty. (Augmenting paths: each row is placed, moving earlier ones where they have a
/// choice.)
pub(super) fn assign(choices: &[Vec<usize>], columns: usize) -> Result<Vec<usize>, usize> {
    let mut owners = vec![None; columns];
    for row in 0..choices.len() {
        let mut visited = vec![false; columns];
        if !place(row, choices, &mut owners, &mut visited) {
            return Err(row);
        }
    }
    let mut assigned = vec![0; choices.len()];
    for (column, owner) in owners.into_iter().enumerate() {
        if let Some(row) = owner {
            assigned[row] = column;
        }
    }
    Ok(assigned)
}

fn place(
    row: usize,
    choices: &[Vec<usize>],
    owners: &mut [Option<usize>],
    visited: &mut [bool],
) -> bool {
    for &column in &choices[row] {
        if std::mem::replace(&mut visited[column], true) {
            continue;
        }
        if owners[column].is_none_or(|owner| place(owner, choices, owners, visited)) {
            owners[column] = Some(row);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_make_room_for_each_other() {
        let check = |choices: &[&[usize]], expected: Result<&[usize], usize>| {
            let choices: Vec<_> = choices.iter().map(|row| row.to_vec()).collect();
            assert_eq!(assign(&choices, 3).as_deref().map_err(|row| *row), expected);
        };
        check(&[], Ok(&[]));
        check(&[&[0, 1], &[0]], Ok(&[1, 0]));
        check(&[&[0, 1], &[0, 2], &[0]], Ok(&[1, 2, 0]));
        check(&[&[0], &[0]], Err(1));
        check(&[&[1], &[]], Err(1));
    }
}
