//! Which types fit which, and what the parameters of overloads stand for.
//!
//! Source: cel-go `checker/types.go`, `checker/mapping.go`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::{OPTIONAL, Type};

/// The steps that one check may take. Types may hold each other twice and again, so that a short
/// expression can have types without end.
const STEPS_MAX: u64 = 5_000_000;

/// What the parameters stand for, so far.
#[derive(Debug)]
pub(super) struct Unifier {
    bound: HashMap<Arc<str>, Type>,
    /// What to restore if the types do not fit after all.
    trail: Vec<(Arc<str>, Option<Type>)>,
    fresh: usize,
    steps: u64,
}

impl Unifier {
    pub(super) fn new() -> Self {
        Self { bound: HashMap::new(), trail: Vec::new(), fresh: 0, steps: STEPS_MAX }
    }

    /// Whether there was more to compare than may be.
    pub(super) fn exhausted(&self) -> bool {
        self.steps == 0
    }

    /// A parameter that stands for nothing yet.
    pub(super) fn fresh(&mut self) -> Type {
        let name = format!("_var{}", self.fresh);
        self.fresh += 1;
        Type::Param(name.into())
    }

    /// Whether a value of one type may be used as the other; if not, nothing is bound.
    pub(super) fn assignable(&mut self, to: &Type, from: &Type) -> bool {
        self.assignable_all(std::slice::from_ref(to), std::slice::from_ref(from))
    }

    /// The same for lists of types, pair by pair.
    pub(super) fn assignable_all(&mut self, to: &[Type], from: &[Type]) -> bool {
        self.trail.clear();
        if self.fits_all(to, from) {
            return true;
        }
        while let Some((name, before)) = self.trail.pop() {
            match before {
                Some(before) => self.bound.insert(name, before),
                None => self.bound.remove(&name),
            };
        }
        false
    }

    fn bind(&mut self, name: &Arc<str>, to: Type) {
        let before = self.bound.insert(name.clone(), to);
        self.trail.push((name.clone(), before));
    }

    fn step(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0
    }

    fn fits_all(&mut self, to: &[Type], from: &[Type]) -> bool {
        to.len() == from.len() && to.iter().zip(from).all(|(to, from)| self.fits(to, from))
    }

    fn fits(&mut self, to: &Type, from: &Type) -> bool {
        if !self.step() {
            return false;
        }
        if let Type::Param(name) = from {
            match self.stands_for(to, name) {
                Substitution::Valid => return true,
                Substitution::Other => return false,
                Substitution::Impossible => {}
            }
        }
        if let Type::Param(name) = to {
            return matches!(self.stands_for(from, name), Substitution::Valid);
        }
        if matches!(to, Type::Dyn | Type::Error) || matches!(from, Type::Dyn | Type::Error) {
            return true;
        }
        match (to, from) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(to), Type::List(from)) => self.fits(to, from),
            (Type::Map(to_keys, to_values), Type::Map(keys, values)) => {
                self.fits(to_keys, keys) && self.fits(to_values, values)
            }
            (Type::Opaque(to, inner), Type::Opaque(from, other)) => {
                to == from && self.fits_all(inner, other)
            }
            (to, from) => to == from,
        }
    }

    /// Whether a parameter may stand for a type, or stands for one that fits.
    fn stands_for(&mut self, of: &Type, name: &Arc<str>) -> Substitution {
        if matches!(of, Type::Param(other) if other == name) {
            return Substitution::Valid;
        }
        let Some(known) = self.bound.get(name).cloned() else {
            if !self.occurs(name, of) {
                self.bind(name, of.clone());
                return Substitution::Valid;
            }
            return Substitution::Impossible;
        };
        if *of == known {
            return Substitution::Valid;
        }
        if !self.fits(of, &known) {
            return Substitution::Other;
        }
        let general = most_general(of, &known).clone();
        if !self.occurs(name, &general) {
            self.bind(name, general);
        }
        Substitution::Valid
    }

    /// Whether a parameter is a part of a type.
    fn occurs(&mut self, name: &Arc<str>, within: &Type) -> bool {
        if !self.step() {
            return true;
        }
        match within {
            Type::Param(other) if other == name => true,
            Type::Param(other) => match self.bound.get(other).cloned() {
                Some(known) => self.occurs(name, &known),
                None => false,
            },
            Type::List(inner) | Type::Type(Some(inner)) => self.occurs(name, inner),
            Type::Map(keys, values) => self.occurs(name, keys) || self.occurs(name, values),
            Type::Opaque(_, inner) => inner.iter().any(|inner| self.occurs(name, inner)),
            _ => false,
        }
    }

    /// The type with all that is known put in. What stands for nothing is left, or is `dyn`.
    pub(super) fn substitute(&mut self, of: &Type, free_is_dyn: bool) -> Type {
        if !self.step() {
            return Type::Dyn;
        }
        match of {
            Type::Param(name) => match self.bound.get(name).cloned() {
                Some(known) => self.substitute(&known, free_is_dyn),
                None if free_is_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(inner) => Type::list(self.substitute(inner, free_is_dyn)),
            Type::Map(keys, values) => {
                let keys = self.substitute(keys, free_is_dyn);
                Type::map(keys, self.substitute(values, free_is_dyn))
            }
            Type::Type(Some(inner)) => Type::type_of(self.substitute(inner, free_is_dyn)),
            Type::Opaque(name, inner) if !inner.is_empty() => {
                let inner = inner.iter().map(|inner| self.substitute(inner, free_is_dyn));
                Type::Opaque(name.clone(), inner.collect())
            }
            other => other.clone(),
        }
    }
}

enum Substitution {
    Valid,
    /// It stands for something else.
    Other,
    /// It would stand for something that it is a part of.
    Impossible,
}

/// A type with its own parameters replaced by others.
pub(super) fn instantiate(of: &Type, by: &HashMap<Arc<str>, Type>) -> Type {
    match of {
        Type::Param(name) => by.get(name).unwrap_or(of).clone(),
        Type::List(inner) => Type::list(instantiate(inner, by)),
        Type::Map(keys, values) => Type::map(instantiate(keys, by), instantiate(values, by)),
        Type::Type(Some(inner)) => Type::type_of(instantiate(inner, by)),
        Type::Opaque(name, inner) => {
            Type::Opaque(name.clone(), inner.iter().map(|inner| instantiate(inner, by)).collect())
        }
        other => other.clone(),
    }
}

/// Of two types that fit, the one that says less.
pub(super) fn most_general<'t>(left: &'t Type, right: &'t Type) -> &'t Type {
    if less_specific(left, right) { left } else { right }
}

fn less_specific(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(left), Type::List(right)) => less_specific(left, right),
        (Type::Map(left_keys, left), Type::Map(right_keys, right)) => {
            less_specific(left_keys, right_keys) && less_specific(left, right)
        }
        (Type::Opaque(left, inner), Type::Opaque(right, other)) => {
            left == right
                && inner.len() == other.len()
                && inner.iter().zip(other.iter()).all(|(left, right)| less_specific(left, right))
        }
        (Type::Type(_), Type::Type(_)) => true,
        (left, right) => left == right,
    }
}

/// What an optional holds, and whether the type was optional.
pub(super) fn unwrapped(of: &Type) -> (&Type, bool) {
    match of {
        Type::Opaque(name, inner) if &**name == OPTIONAL && !inner.is_empty() => (&inner[0], true),
        other => (other, false),
    }
}
