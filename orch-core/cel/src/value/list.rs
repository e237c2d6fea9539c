//! Lists.
//!
//! Source: cel-go `common/types/list.go`; `k8s.io/apiserver/pkg/cel/common/valuesunstructured.go`
//! for lists that are sets or maps.

use std::sync::Arc;

use serde_json::Value as Json;

use super::Value;
use crate::declared::Declared;
use crate::error::Error;

/// How a list compares and adds, as `x-kubernetes-list-type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ListKind<'a> {
    /// Element by element; `+` appends.
    #[default]
    Atomic,
    /// Without order; `+` appends what is not there yet.
    Set,
    /// By these fields of its elements, without order; `+` replaces what has the same fields.
    Map(&'a [String]),
}

/// A list.
#[derive(Clone, Debug)]
pub struct List<'a> {
    elements: Elements<'a>,
    kind: ListKind<'a>,
}

#[derive(Clone, Debug)]
enum Elements<'a> {
    Json(&'a [Json], Option<&'a Declared>),
    Owned(Arc<Vec<Value<'a>>>),
    Joined(Arc<Joined<'a>>),
}

/// Two lists one after the other. Lists are not copied to be added, so that adding takes
/// constant time and space, as its cost says.
#[derive(Debug)]
struct Joined<'a> {
    left: List<'a>,
    right: List<'a>,
    length: usize,
    depth: usize,
}

/// Deeper joins are copied into one list.
const JOINS_MAX: usize = 32;
/// A list with more elements is not made.
const LENGTH_MAX: usize = 1 << 24;

impl<'a> List<'a> {
    /// A list of these values.
    pub fn of(values: Vec<Value<'a>>) -> Self {
        Self { elements: Elements::Owned(Arc::new(values)), kind: ListKind::Atomic }
    }

    /// A view of JSON.
    pub(crate) fn of_json(
        items: &'a [Json],
        declared: Option<&'a Declared>,
        kind: ListKind<'a>,
    ) -> Self {
        Self { elements: Elements::Json(items, declared), kind }
    }

    pub(crate) fn with_kind(mut self, kind: ListKind<'a>) -> Self {
        self.kind = kind;
        self
    }

    /// How it compares and adds.
    pub fn kind(&self) -> ListKind<'a> {
        self.kind
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::Json(items, _) => items.len(),
            Elements::Owned(values) => values.len(),
            Elements::Joined(joined) => joined.length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if there is none at the index, or if it is not what was declared.
    pub fn get(&self, index: usize) -> Result<Value<'a>, Error> {
        let missing = || Error::failed(format!("index out of bounds: {index}"));
        let mut list = self;
        let mut at = index;
        loop {
            match &list.elements {
                Elements::Json(items, declared) => {
                    return super::read_json(items.get(at).ok_or_else(missing)?, *declared);
                }
                Elements::Owned(values) => return values.get(at).cloned().ok_or_else(missing),
                Elements::Joined(joined) => match at.checked_sub(joined.left.len()) {
                    Some(behind) => (list, at) = (&joined.right, behind),
                    None => list = &joined.left,
                },
            }
        }
    }

    /// The elements, one after the other.
    pub fn iter(&self) -> Iter<'_, 'a> {
        Iter { pending: vec![self], at: 0 }
    }

    /// This list and behind it another. `None` if it would be longer than may be.
    pub(crate) fn joined(&self, other: &Self) -> Option<Self> {
        let length = self.len() + other.len();
        if length > LENGTH_MAX {
            return None;
        }
        if other.is_empty() {
            return Some(self.clone());
        }
        if self.is_empty() && self.kind == other.kind {
            return Some(other.clone());
        }
        let depth = 1 + self.depth().max(other.depth());
        let joined = Joined { left: self.clone(), right: other.clone(), length, depth };
        let joined = Self { elements: Elements::Joined(Arc::new(joined)), kind: self.kind };
        if depth <= JOINS_MAX {
            return Some(joined);
        }
        // What does not read as declared stays in the view.
        match joined.iter().collect::<Result<Vec<_>, _>>() {
            Ok(values) => Some(Self::of(values).with_kind(self.kind)),
            Err(_) => Some(joined),
        }
    }

    /// Puts a value at the end, in constant time on average if nobody else has the list.
    pub(crate) fn push(&mut self, value: Value<'a>) -> Option<()> {
        if self.len() >= LENGTH_MAX {
            return None;
        }
        if let Elements::Owned(values) = &mut self.elements {
            Arc::make_mut(values).push(value);
            return Some(());
        }
        *self = self.joined(&Self::of(vec![value]))?;
        Some(())
    }

    fn depth(&self) -> usize {
        match &self.elements {
            Elements::Joined(joined) => joined.depth,
            _ => 0,
        }
    }
}

/// The elements of a list, one after the other.
#[derive(Debug)]
pub struct Iter<'l, 'a> {
    /// The lists that are still to come, the next one last.
    pending: Vec<&'l List<'a>>,
    at: usize,
}

impl<'a> Iterator for Iter<'_, 'a> {
    type Item = Result<Value<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let list = *self.pending.last()?;
            let found = match &list.elements {
                Elements::Json(items, declared) => {
                    items.get(self.at).map(|item| super::read_json(item, *declared))
                }
                Elements::Owned(values) => values.get(self.at).cloned().map(Ok),
                Elements::Joined(joined) => {
                    self.pending.pop();
                    self.pending.extend([&joined.right, &joined.left]);
                    continue;
                }
            };
            if found.is_some() {
                self.at += 1;
                return found;
            }
            self.pending.pop();
            self.at = 0;
        }
    }
}
