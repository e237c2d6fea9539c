//! Types, bottom up.
//!
//! Source: cel-go `checker/checker.go`; messages of `checker/errors.go`.

use std::collections::HashMap;
use std::sync::Arc;

use super::unify::{Unifier, instantiate, most_general, unwrapped};
use super::{Checked, Reference, Scope};
use crate::function::Function;
use crate::issue::Issues;
use crate::syntax::ast::{Ast, Element, Entry, Expr, Field, Fold, Id, Kind, Literal};
use crate::types::Type;

/// Finds the types of an expression; what does not fit is reported.
pub(crate) fn check(ast: &Ast, scope: &Scope, issues: &mut Issues) -> Checked {
    let unifier = Unifier::new();
    let mut checker =
        Checker { ast, scope, issues, unifier, locals: Vec::new(), checked: Checked::default() };
    checker.expr(&ast.root);
    let ids: Vec<Id> = checker.checked.types.keys().copied().collect();
    for id in ids {
        let found = checker.type_of(id);
        let found = checker.unifier.substitute(&found, true);
        checker.checked.types.insert(id, found);
    }
    if checker.unifier.exhausted() {
        checker.issues.report_whole("the types of the expression are too large to be checked");
    }
    checker.checked
}

struct Checker<'c> {
    ast: &'c Ast,
    scope: &'c Scope,
    issues: &'c mut Issues,
    unifier: Unifier,
    /// The variables of folds, the innermost last.
    locals: Vec<(String, Type)>,
    checked: Checked,
}

impl Checker<'_> {
    fn report(&mut self, id: Id, message: impl Into<String>) {
        self.issues.report(self.ast.offsets[id], message);
    }

    fn type_of(&self, id: Id) -> Type {
        self.checked.types.get(&id).cloned().unwrap_or(Type::Error)
    }

    fn set(&mut self, id: Id, found: Type) {
        self.checked.types.insert(id, found);
    }

    /// Finds the type of an expression and all below it.
    fn expr(&mut self, expr: &Expr) -> Type {
        let found = match &expr.kind {
            Kind::Literal(literal) => of_literal(literal),
            Kind::Ident(name) => self.ident(expr.id, name),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { target, function, args } => {
                self.call(expr, target.as_deref(), function, args)
            }
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(expr.id, name, fields),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.set(expr.id, found.clone());
        found
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.report(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn named(&self, name: &str) -> Option<Type> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name);
        local.map(|(_, of)| of.clone()).or_else(|| self.scope.ident(name))
    }

    fn refer(&mut self, id: Id, name: &str) {
        let name = name.strip_prefix('.').unwrap_or(name).to_owned();
        self.checked.references.insert(id, Reference::Name(name));
    }

    fn ident(&mut self, id: Id, name: &str) -> Type {
        match self.named(name) {
            Some(found) => {
                self.refer(id, name);
                found
            }
            None => self.undeclared(id, name),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Type {
        // `a.b` may be one name.
        if let Some(name) = expr.qualified_name()
            && let Some(found) = self.named(&name)
        {
            self.refer(expr.id, &name);
            return found;
        }
        let found = self.field(expr.id, operand, field, false);
        if test { Type::Bool } else { self.unifier.substitute(&found, false) }
    }

    /// The type of a field of what an expression gives.
    fn field(&mut self, id: Id, operand: &Expr, field: &str, optional: bool) -> Type {
        let of = self.expr(operand);
        let of = self.unifier.substitute(&of, false);
        let (target, was_optional) = unwrapped(&of);
        let found = match target {
            Type::Map(_, values) => (**values).clone(),
            Type::Object(name) => self.object_field(id, name, field),
            Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.report(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(found) } else { found }
    }

    fn object_field(&mut self, id: Id, object: &str, field: &str) -> Type {
        match self.scope.field_type(object, field) {
            Some(Some(found)) => found,
            Some(None) => {
                self.report(id, format!("undefined field '{field}'"));
                Type::Error
            }
            None => {
                self.report(id, format!("unexpected failed resolution of '{object}'"));
                Type::Error
            }
        }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, name: &str, args: &[Expr]) -> Type {
        if name == "_?._"
            && let [operand, field] = args
            && let Kind::Literal(Literal::String(text)) = &field.kind
        {
            let found = self.field(expr.id, operand, text, true);
            self.set(field.id, Type::String);
            self.checked.references.insert(expr.id, Reference::OptionalField);
            return self.unifier.substitute(&found, false);
        }
        for arg in args {
            self.expr(arg);
        }
        let plain = |name: &str| name.strip_prefix('.').unwrap_or(name).to_owned();
        let Some(target) = target else {
            return match self.scope.functions.clone().function(&plain(name)) {
                Some(function) => self.overload(expr.id, &plain(name), function, None, args),
                None => self.undeclared(expr.id, name),
            };
        };
        // `a.b(x)` may be the function `a.b`.
        if let Some(prefix) = target.qualified_name() {
            let full = plain(&format!("{prefix}.{name}"));
            if let Some(function) = self.scope.functions.clone().function(&full) {
                return self.overload(expr.id, &full, function, None, args);
            }
        }
        self.expr(target);
        match self.scope.functions.clone().function(name) {
            Some(function) => self.overload(expr.id, name, function, Some(target), args),
            None => self.undeclared(expr.id, name),
        }
    }

    /// Finds the forms of a function that the arguments fit, and the type of the result.
    fn overload(
        &mut self,
        id: Id,
        name: &str,
        function: &Function,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Type {
        let args: Vec<Id> = target.into_iter().chain(args).map(|arg| arg.id).collect();
        if matches!(name, "_&&_" | "_||_") {
            return self.logical(id, function, &args);
        }
        let given: Vec<Type> = args.iter().map(|arg| self.type_of(*arg)).collect();
        let mut found: Option<Type> = None;
        let mut forms = Vec::new();
        for form in &function.overloads {
            if form.is_member() != target.is_some() {
                continue;
            }
            let by: HashMap<Arc<str>, Type> = form
                .parameters()
                .iter()
                .map(|parameter| (parameter.clone(), self.unifier.fresh()))
                .collect();
            let expected: Vec<Type> = form.args().iter().map(|arg| instantiate(arg, &by)).collect();
            if !self.unifier.assignable_all(&given, &expected) {
                continue;
            }
            let result = instantiate(form.result(), &by);
            let result = self.unifier.substitute(&result, false);
            forms.push(form.clone());
            found = Some(match found {
                None => result,
                Some(before) if before.is_dyn() || before == result => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(found) = found else {
            let given: Vec<Type> =
                given.iter().map(|arg| self.unifier.substitute(arg, true)).collect();
            self.no_overload(id, name, &given, target.is_some());
            return Type::Error;
        };
        self.checked.references.insert(id, Reference::Overloads(forms));
        found
    }

    fn no_overload(&mut self, id: Id, name: &str, given: &[Type], member: bool) {
        let (target, args) = if member { given.split_at(1) } else { (&given[..0], given) };
        let target = target.first().map(|target| format!("{target}.")).unwrap_or_default();
        let args: Vec<String> = args.iter().map(Type::to_string).collect();
        let signature = format!("{target}({})", args.join(", "));
        let message = format!("found no matching overload for '{name}' applied to '{signature}'");
        self.report(id, message);
    }

    /// The operands of `&&` and `||` are reported one by one.
    fn logical(&mut self, id: Id, function: &Function, args: &[Id]) -> Type {
        let mut fits = true;
        for arg in args {
            let given = self.type_of(*arg);
            if !self.unifier.assignable(&given, &Type::Bool) {
                self.mismatch(*arg, &Type::Bool, &given);
                fits = false;
            }
        }
        self.checked.references.insert(id, Reference::Overloads(function.overloads.clone()));
        if fits { Type::Bool } else { Type::Error }
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    /// What an optional element holds; another type is reported.
    fn optional_element(&mut self, id: Id, given: Type, optional: bool) -> Type {
        if !optional {
            return given;
        }
        let (inner, is_optional) = unwrapped(&given);
        if !is_optional && !inner.is_dyn() {
            self.mismatch(id, &Type::optional(inner.clone()), inner);
        }
        inner.clone()
    }

    /// The type of two elements of a list. Mixed lists are for the checks of literals to refuse.
    fn joined(&mut self, before: Option<Type>, found: Type) -> Type {
        match before {
            None => found,
            Some(before) if self.unifier.assignable(&before, &found) => {
                most_general(&before, &found).clone()
            }
            Some(_) => Type::Dyn,
        }
    }

    fn list(&mut self, elements: &[Element]) -> Type {
        let mut of = None;
        for element in elements {
            let found = self.expr(&element.value);
            let found = self.optional_element(element.value.id, found, element.optional);
            of = Some(self.joined(of, found));
        }
        Type::list(of.unwrap_or_else(|| self.unifier.fresh()))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.expr(&entry.key);
            keys = Some(self.joined(keys, key));
            let value = self.expr(&entry.value);
            let value = self.optional_element(entry.value.id, value, entry.optional);
            values = Some(self.joined(values, value));
        }
        let keys = keys.unwrap_or_else(|| self.unifier.fresh());
        Type::map(keys, values.unwrap_or_else(|| self.unifier.fresh()))
    }

    fn structure(&mut self, id: Id, name: &str, fields: &[Field]) -> Type {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let Some(of) = self.named(plain) else {
            return self.undeclared(id, name);
        };
        self.refer(id, plain);
        let built = match &of {
            Type::Error => Type::Error,
            Type::Type(Some(inner)) => match &**inner {
                Type::Object(_) => (**inner).clone(),
                other => {
                    let name = other.name();
                    self.report(id, format!("'{name}' is not a message type"));
                    Type::Error
                }
            },
            other => {
                let name = other.name();
                self.report(id, format!("'{name}' is not a type"));
                Type::Error
            }
        };
        for field in fields {
            let given = self.expr(&field.value);
            let expected = match &built {
                Type::Object(name) => self.object_field(field.id, name, &field.name),
                _ => Type::Error,
            };
            let given = self.optional_element(field.value.id, given, field.optional);
            if !self.unifier.assignable(&expected, &given) {
                let name = &field.name;
                self.report(
                    field.id,
                    format!(
                        "expected type of field '{name}' is '{expected}' but provided type is \
                         '{given}'"
                    ),
                );
            }
        }
        built
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let range = self.expr(&fold.range);
        let start = self.expr(&fold.start);
        let range = self.unifier.substitute(&range, false);
        self.locals.push((fold.accumulator.clone(), start.clone()));
        let (first, second) = match &range {
            Type::List(of) if fold.second.is_some() => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Error),
            Type::Map(keys, values) => ((**keys).clone(), (**values).clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be \
                     list, map, or dynamic)"
                );
                self.report(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        self.locals.push((fold.variable.clone(), first));
        if let Some(name) = &fold.second {
            self.locals.push((name.clone(), second));
        }
        let condition = self.expr(&fold.condition);
        self.expect(&fold.condition, &Type::Bool, &condition);
        let step = self.expr(&fold.step);
        self.expect(&fold.step, &start, &step);
        self.locals.truncate(self.locals.len() - 1 - usize::from(fold.second.is_some()));
        let result = self.expr(&fold.result);
        self.locals.pop();
        self.unifier.substitute(&result, false)
    }

    fn expect(&mut self, expr: &Expr, expected: &Type, found: &Type) {
        if !self.unifier.assignable(expected, found) {
            self.mismatch(expr.id, expected, found);
        }
    }
}

fn of_literal(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
