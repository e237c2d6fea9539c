//! Environments: which variables, types and functions an expression may use; and programs.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::check::{Checked, Reference};
use crate::check::{Scope, check, check_literals};
use crate::cost::{Budget, Range, Sizes, estimate};
use crate::declared::Declared;
use crate::error::Error;
use crate::evaluate::{Bindings, Plan, evaluate, plan};
use crate::function::{Functions, Library};
use crate::issue::Issues;
use crate::library::{Authorize, kubernetes};
use crate::syntax::ast::{Ast, Literal};
use crate::syntax::{ast::Kind, parse};
use crate::types::Type;
use crate::value::Value;

/// What an expression may use.
///
/// It is cheap to clone, and to extend: the functions are shared.
#[derive(Clone, Debug)]
pub struct Environment {
    scope: Arc<Scope>,
}

/// Builds an [`Environment`].
#[derive(Clone, Debug)]
pub struct EnvironmentBuilder {
    scope: Scope,
}

impl Environment {
    /// An environment with the functions of Kubernetes 1.36 and no variables.
    pub fn kubernetes() -> EnvironmentBuilder {
        static FUNCTIONS: OnceLock<Arc<Functions>> = OnceLock::new();
        let functions = FUNCTIONS.get_or_init(|| Arc::new(kubernetes()));
        let scope = Scope { functions: functions.clone(), ..Scope::default() };
        EnvironmentBuilder { scope }
    }

    /// This environment, to be extended. It stays as it is.
    pub fn extend(&self) -> EnvironmentBuilder {
        EnvironmentBuilder { scope: (*self.scope).clone() }
    }

    /// Parses, checks and plans an expression.
    ///
    /// # Errors
    ///
    /// [`CompileError::Issues`] if it is not well formed or does not fit its types,
    /// [`CompileError::Instantiation`] if what is constant in it fails.
    pub fn compile(&self, source: &str) -> Result<Program, CompileError> {
        let mut issues = Issues::new(source);
        let Some(ast) = parse(source, &mut issues) else { return Err(failed(issues)) };
        let checked = check(&ast, &self.scope, &mut issues);
        if issues.is_empty() {
            check_literals(&ast, &checked, &mut issues);
        }
        if !issues.is_empty() {
            return Err(failed(issues));
        }
        let plan = plan(&ast.root, &checked, &self.scope).map_err(CompileError::Instantiation)?;
        Ok(Program { ast: Arc::new(ast), checked: Arc::new(checked), plan: Arc::new(plan) })
    }
}

fn failed(issues: Issues) -> CompileError {
    CompileError::Issues(issues.sorted())
}

impl EnvironmentBuilder {
    /// Adds a variable, by its declaration or its type. A name may have dots in it.
    #[must_use]
    pub fn variable(mut self, name: &str, of: impl Into<VariableType>) -> Self {
        let of = match of.into() {
            VariableType::Type(of) => of,
            VariableType::Declared(declared) => {
                self = self.types_of(&declared);
                declared.type_of()
            }
        };
        self.scope.variables.insert(name.into(), of);
        self
    }

    /// Adds the types of objects in a declaration, for variables whose type uses them.
    #[must_use]
    pub fn types_of(mut self, declared: &Declared) -> Self {
        declared.each_object(&mut |object| {
            if !self.scope.objects.contains_key(object.name()) {
                self.scope.objects.insert(object.name().clone(), Arc::new(object.clone()));
            }
        });
        self
    }

    /// Lets expressions build `Object{...}` with any fields, whose types are named by their path
    /// (`Object.spec`), and `JSONPatch{...}`, as those of mutating policies do; and adds
    /// `jsonpatch.escapeKey`.
    #[must_use]
    pub fn patches(mut self) -> Self {
        self.scope.patches = true;
        self.library(&crate::library::install_patches)
    }

    /// Adds functions.
    #[must_use]
    pub fn library(mut self, library: &dyn Library) -> Self {
        library.install(Arc::make_mut(&mut self.scope.functions));
        self
    }

    /// The environment.
    pub fn build(self) -> Environment {
        Environment { scope: Arc::new(self.scope) }
    }
}

/// What a variable is declared as.
#[derive(Clone, Debug)]
pub enum VariableType {
    /// A type.
    Type(Type),
    /// A declaration; the types of the objects in it become known too.
    Declared(Box<Declared>),
}

impl From<Type> for VariableType {
    fn from(of: Type) -> Self {
        Self::Type(of)
    }
}

impl From<&Declared> for VariableType {
    fn from(declared: &Declared) -> Self {
        Self::Declared(Box::new(declared.clone()))
    }
}

impl From<Declared> for VariableType {
    fn from(declared: Declared) -> Self {
        Self::Declared(Box::new(declared))
    }
}

/// Why an expression does not compile. `Display` is what upstream puts behind `compilation
/// failed: ` or `program instantiation failed: `.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CompileError {
    /// It is not well formed, or does not fit its types.
    Issues(Issues),
    /// What is constant in it fails.
    Instantiation(Error),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issues(issues) => issues.fmt(f),
            Self::Instantiation(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CompileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Issues(issues) => Some(issues),
            Self::Instantiation(error) => Some(error),
        }
    }
}

/// An expression that was checked and can be evaluated. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    ast: Arc<Ast>,
    checked: Arc<Checked>,
    plan: Arc<Plan>,
}

impl Program {
    /// The type of its value.
    pub fn result_type(&self) -> &Type {
        self.checked.type_of(self.ast.root.id)
    }

    /// Whether it names a variable.
    pub fn uses(&self, variable: &str) -> bool {
        let mut references = self.checked.references.values();
        references.any(|r| matches!(r, Reference::Name(name) if name == variable))
    }

    /// The value of the expression if it is a constant string, as most messages are.
    pub fn constant_text(&self) -> Option<&str> {
        match &self.ast.root.kind {
            Kind::Literal(Literal::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Evaluates it, and takes what that cost off the budget.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the expression fails, [`Error::CostLimit`] if it alone costs too much,
    /// [`Error::OutOfBudget`] if it costs more than is left, [`Error::Failed`] too for what needs
    /// the authorizer, of which there is none here.
    pub fn evaluate<'a>(
        &self,
        bindings: &dyn Bindings<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Error> {
        self.evaluate_authorized(bindings, None, budget)
    }

    /// The same with an authorizer.
    ///
    /// # Errors
    ///
    /// As [`evaluate`](Self::evaluate), and [`Error::NeedsAuthorization`] if the authorizer does
    /// not have an answer at hand. Nothing is charged then: get the answer, and evaluate again.
    pub fn evaluate_authorized<'a>(
        &self,
        bindings: &dyn Bindings<'a>,
        authorizer: Option<&dyn Authorize>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Error> {
        let (outcome, cost) = self.measure(bindings, authorizer, budget.per_call());
        if !matches!(outcome, Err(Error::NeedsAuthorization(_))) {
            budget.charge(cost)?;
        }
        outcome
    }

    /// Evaluates it within a limit; gives the value and what it cost.
    pub fn measure<'a>(
        &self,
        bindings: &dyn Bindings<'a>,
        authorizer: Option<&dyn Authorize>,
        limit: u64,
    ) -> (Result<Value<'a>, Error>, u64) {
        evaluate(&self.plan, bindings, authorizer, limit)
    }

    /// The least and the most that it can cost, given how large the values of variables can be.
    pub fn estimate(&self, sizes: &dyn Sizes) -> Range {
        estimate(&self.ast, &self.checked, sizes)
    }
}
