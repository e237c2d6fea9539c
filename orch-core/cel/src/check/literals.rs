//! Literals that are wrong whatever the values: times that cannot be read, patterns that are none,
//! lists of mixed types.
//!
//! Source: cel-go `cel/validator.go`, `ext/strings.go` (the format strings).

use super::Checked;
use crate::issue::Issues;
use crate::library::{check_format, compile_pattern};
use crate::syntax::ast::{Ast, Expr, Kind, Literal};
use crate::types::Type;
use crate::value::{Moment, parse_duration, parse_moment};

/// Reports the literals of a checked expression that are wrong.
pub(crate) fn check_literals(ast: &Ast, checked: &Checked, issues: &mut Issues) {
    let mut walk = Walk { ast, checked, issues };
    walk.expr(&ast.root, false);
}

struct Walk<'c> {
    ast: &'c Ast,
    checked: &'c Checked,
    issues: &'c mut Issues,
}

impl Walk<'_> {
    fn report(&mut self, expr: &Expr, message: impl Into<String>) {
        self.issues.report(self.ast.offsets[expr.id], message);
    }

    /// Within the arguments of `format`, lists may be mixed.
    fn expr(&mut self, expr: &Expr, in_format: bool) {
        match &expr.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => self.expr(operand, in_format),
            Kind::Call { target, function, args } => {
                self.call(function, args);
                let inside = in_format || function == "format";
                for part in target.iter().map(|target| &**target).chain(args) {
                    self.expr(part, inside);
                }
                if function == "format"
                    && let Some(target) = target
                {
                    self.format(expr, target, args);
                }
            }
            Kind::List(elements) => {
                let parts = elements.iter().map(|e| (&e.value, e.optional));
                self.alike(parts, in_format, true);
                elements.iter().for_each(|e| self.expr(&e.value, in_format));
            }
            Kind::Map(entries) => {
                self.alike(entries.iter().map(|e| (&e.key, false)), in_format, false);
                let values = entries.iter().map(|e| (&e.value, e.optional));
                self.alike(values, in_format, false);
                for entry in entries {
                    self.expr(&entry.key, in_format);
                    self.expr(&entry.value, in_format);
                }
            }
            Kind::Struct { fields, .. } => {
                fields.iter().for_each(|field| self.expr(&field.value, in_format));
            }
            Kind::Fold(fold) => {
                let parts = [&fold.range, &fold.start, &fold.condition, &fold.step, &fold.result];
                parts.into_iter().for_each(|part| self.expr(part, in_format));
            }
        }
    }

    fn call(&mut self, function: &str, args: &[Expr]) {
        let Some(first) = args.first() else { return };
        let Kind::Literal(literal) = &first.kind else { return };
        let valid = match (function, literal) {
            ("duration", Literal::String(text)) => parse_duration(text).is_some(),
            ("duration", Literal::Int(_)) => false,
            ("timestamp", Literal::String(text)) => parse_moment(text).is_some(),
            ("timestamp", Literal::Int(seconds)) => Moment::of_seconds(*seconds).is_ok(),
            ("matches", Literal::String(text)) => compile_pattern(text).is_ok(),
            _ => true,
        };
        if !valid {
            self.report(first, format!("invalid {function} argument"));
        }
    }

    /// The arguments of `format` are a list, and the format is known: both have to agree.
    fn format(&mut self, call: &Expr, target: &Expr, args: &[Expr]) {
        let Kind::Literal(Literal::String(format)) = &target.kind else { return };
        let [Expr { kind: Kind::List(elements), .. }] = args else { return };
        let types: Vec<&Type> = elements.iter().map(|e| self.checked.type_of(e.value.id)).collect();
        if let Err((at, message)) = check_format(format, &types) {
            let place = at.and_then(|at| elements.get(at)).map_or(call, |e| &e.value);
            self.report(place, message);
        }
    }

    /// Of a list the first element that differs is reported, of a map every one.
    fn alike<'e>(
        &mut self,
        parts: impl Iterator<Item = (&'e Expr, bool)>,
        in_format: bool,
        once: bool,
    ) {
        if in_format {
            return;
        }
        let mut first: Option<Type> = None;
        for (part, optional) in parts {
            let found = self.checked.type_of(part.id);
            let inner = found.optional_of().filter(|_| optional);
            let found = inner.unwrap_or(found).clone();
            match &first {
                None => first = Some(found),
                Some(expected) if *expected != found => {
                    let message = format!("expected type '{expected}' but found '{found}'");
                    self.report(part, message);
                    if once {
                        return;
                    }
                }
                Some(_) => {}
            }
        }
    }
}
