//! Tokens to expressions, by recursive descent.
//!
//! Source: the grammar of cel-go `parser/gen/CEL.g4` and what `parser/parser.go` makes of it: the
//! place of an operation is its operator, the place of a call its parenthesis.

mod primary;

use super::ast::{Ast, DEPTH_MAX, Expr, Id, Kind, Literal, Nodes};
use super::balance;
use super::macros::{self, Maker};
use super::token::{Lexeme, Token, tokens};
use crate::issue::Issues;

/// A longer expression is refused.
///
/// Source: cel-go `parser/parser.go` (`expressionSizeCodePointLimit`).
const LENGTH_MAX: usize = 100_000;

/// What may stand where an expression begins, as ANTLR lists it.
const EXPRESSION: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, \
     NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Words that name nothing, besides those of literals and `in`.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Nothing more can be read; the issue was reported.
struct Stopped;

type Parsed<T> = Result<T, Stopped>;

/// Parses an expression and expands its macros.
///
/// `bindings` says whether `cel.bind` is one.
pub(crate) fn parse(source: &str, bindings: bool, issues: &mut Issues) -> Option<Ast> {
    let text: Vec<char> = source.chars().collect();
    if text.len() > LENGTH_MAX {
        let size = text.len();
        issues.report_whole(format!(
            "expression code point size exceeds limit: size: {size}, limit {LENGTH_MAX}"
        ));
        return None;
    }
    let lexemes = tokens(&text, issues);
    let nodes = Nodes::default();
    let mut parser = Parser { text: &text, lexemes, at: 0, nodes, depth: 0, bindings, issues };
    let root = parser.whole().ok()?;
    let offsets = parser.nodes.into_offsets();
    issues.is_empty().then_some(Ast { root, offsets })
}

struct Parser<'t> {
    text: &'t [char],
    lexemes: Vec<Lexeme>,
    at: usize,
    nodes: Nodes,
    depth: usize,
    bindings: bool,
    issues: &'t mut Issues,
}

impl Parser<'_> {
    fn whole(&mut self) -> Parsed<Expr> {
        let root = self.expr()?;
        let next = self.next();
        if next.token != Token::End {
            // One token too many is called extraneous, more are a mismatch.
            let last = self.lexemes.get(self.at + 1).is_none_or(|l| l.token == Token::End);
            let what = if last { "extraneous" } else { "mismatched" };
            let text = self.text_of(next);
            self.syntax(next, format!("{what} input '{text}' expecting <EOF>"));
            return Err(Stopped);
        }
        Ok(root)
    }

    fn next(&self) -> Lexeme {
        self.lexemes[self.at.min(self.lexemes.len() - 1)]
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.next().token, Token::Symbol(next) if next == symbol)
    }

    fn take(&mut self) -> Lexeme {
        let lexeme = self.next();
        self.at += 1;
        lexeme
    }

    fn take_symbol(&mut self, symbol: &str) -> Option<Lexeme> {
        self.is(symbol).then(|| self.take())
    }

    fn expect(&mut self, symbol: &str, expected: &str) -> Parsed<Lexeme> {
        match self.take_symbol(symbol) {
            Some(lexeme) => Ok(lexeme),
            None => Err(self.mismatch(expected)),
        }
    }

    fn text_of(&self, lexeme: Lexeme) -> String {
        match lexeme.token {
            Token::End => "<EOF>".to_owned(),
            _ => self.text[lexeme.start..lexeme.end].iter().collect(),
        }
    }

    fn syntax(&mut self, lexeme: Lexeme, message: impl std::fmt::Display) {
        self.issues.report(lexeme.start, format!("Syntax error: {message}"));
    }

    fn mismatch(&mut self, expected: &str) -> Stopped {
        let next = self.next();
        let text = self.text_of(next);
        self.syntax(next, format!("mismatched input '{text}' expecting {expected}"));
        Stopped
    }

    /// Makes a node, unless the expression gets too deep or too large.
    fn node(&mut self, offset: usize, kind: Kind) -> Parsed<Expr> {
        let node = self.nodes.add(offset, kind);
        self.bounded()?;
        Ok(node)
    }

    fn bounded(&mut self) -> Parsed<()> {
        if self.nodes.too_deep() || self.depth > DEPTH_MAX {
            let message = format!("expression recursion limit exceeded: {DEPTH_MAX}");
            self.issues.report_whole(message);
            return Err(Stopped);
        }
        if self.nodes.exhausted() {
            self.issues.report_whole("expression has too many nodes once its macros are expanded");
            return Err(Stopped);
        }
        Ok(())
    }

    /// A node in the place of one that could not be made; the issue was reported.
    fn broken(&mut self, offset: usize, message: impl Into<String>) -> Parsed<Expr> {
        self.issues.report(offset, message);
        self.node(offset, Kind::Literal(Literal::Null))
    }

    fn call(&mut self, offset: usize, function: &str, args: Vec<Expr>) -> Parsed<Expr> {
        self.node(offset, Kind::Call { target: None, function: function.to_owned(), args })
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.depth += 1;
        self.bounded()?;
        let condition = self.logical(0)?;
        let found = match self.take_symbol("?") {
            Some(operator) => self.conditional(operator.start, condition)?,
            None => condition,
        };
        self.depth -= 1;
        Ok(found)
    }

    fn conditional(&mut self, offset: usize, condition: Expr) -> Parsed<Expr> {
        let yes = self.logical(0)?;
        self.expect(":", "':'")?;
        let no = self.expr()?;
        self.call(offset, "_?_:_", vec![condition, yes, no])
    }

    /// A chain of `||` of chains of `&&`. The tree of a long one is balanced.
    fn logical(&mut self, level: usize) -> Parsed<Expr> {
        let Some((symbol, _)) = LOGICAL.get(level) else { return self.binary(0) };
        let first = self.logical(level + 1)?;
        if self.is(symbol) { self.chain(level, first) } else { Ok(first) }
    }

    fn chain(&mut self, level: usize, first: Expr) -> Parsed<Expr> {
        let (symbol, function) = LOGICAL[level];
        let mut terms = vec![first];
        let mut operators = Vec::new();
        while let Some(operator) = self.take_symbol(symbol) {
            operators.push(operator.start);
            terms.push(self.logical(level + 1)?);
        }
        let tree = balance::tree(terms, &operators, &mut |offset, left, right| {
            let (target, function) = (None, function.to_owned());
            self.nodes.add(offset, Kind::Call { target, function, args: vec![left, right] })
        });
        self.bounded()?;
        Ok(tree)
    }

    /// Operators that bind at least so tightly, from the left to the right.
    fn binary(&mut self, least: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        while let Some((function, tightness)) = operator(self.next().token) {
            if tightness < least {
                break;
            }
            let operator = self.take();
            let right = self.binary(tightness + 1)?;
            left = self.call(operator.start, function, vec![left, right])?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let first = self.next();
        let (symbol, function) = match first.token {
            Token::Symbol("!") => ("!", "!_"),
            Token::Symbol("-") => {
                let number = self.lexemes.get(self.at + 1).map(|next| next.token);
                if matches!(number, Some(Token::Int | Token::Double)) {
                    return self.member();
                }
                ("-", "-_")
            }
            _ => return self.member(),
        };
        let mut count = 0;
        while self.take_symbol(symbol).is_some() {
            count += 1;
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        self.call(first.start, function, vec![operand])
    }

    fn member(&mut self) -> Parsed<Expr> {
        let mut operand = self.primary()?;
        loop {
            if let Some(dot) = self.take_symbol(".") {
                operand = self.select(operand, dot)?;
            } else if let Some(bracket) = self.take_symbol("[") {
                let optional = self.take_symbol("?").is_some();
                let index = self.expr()?;
                self.expect("]", "']'")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                operand = self.call(bracket.start, function, vec![operand, index])?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn select(&mut self, operand: Expr, dot: Lexeme) -> Parsed<Expr> {
        let optional = self.take_symbol("?").is_some();
        let name = self.next();
        if !matches!(name.token, Token::Ident | Token::Quoted) {
            let text = self.text_of(name);
            let message = match name.token {
                Token::True | Token::False | Token::Null | Token::In => {
                    format!("mismatched input '{text}' expecting IDENTIFIER")
                }
                Token::End => "no viable alternative at input '.'".to_owned(),
                _ => format!("no viable alternative at input '.{text}'"),
            };
            self.syntax(name, message);
            return Err(Stopped);
        }
        self.take();
        let field = self.text_of(name);
        if name.token == Token::Quoted {
            self.issues.report(name.start, "unsupported syntax: '`'");
        }
        if optional {
            let literal = Kind::Literal(Literal::String(field.into()));
            let literal = self.node(name.start, literal)?;
            return self.call(dot.start, "_?._", vec![operand, literal]);
        }
        match self.take_symbol("(") {
            Some(open) => {
                let args = self.arguments()?;
                self.receiver_call(open.start, &field, operand, args)
            }
            None => {
                let operand = Box::new(operand);
                self.node(dot.start, Kind::Select { operand, field, test: false })
            }
        }
    }

    fn receiver_call(
        &mut self,
        offset: usize,
        function: &str,
        target: Expr,
        args: Vec<Expr>,
    ) -> Parsed<Expr> {
        let is_cel = matches!(&target.kind, Kind::Ident(name) if name == "cel");
        if self.bindings && is_cel && function == "bind" && args.len() == 3 {
            let mut maker = Maker { nodes: &mut self.nodes, offset };
            let expanded = macros::bind(&mut maker, args);
            return self.expanded(expanded);
        }
        let Some(expand) = macros::of_receiver(function, args.len()) else {
            let (target, function) = (Some(Box::new(target)), function.to_owned());
            return self.node(offset, Kind::Call { target, function, args });
        };
        let mut maker = Maker { nodes: &mut self.nodes, offset };
        let expanded = expand(&mut maker, function, target, args);
        self.expanded(expanded)
    }

    fn expanded(&mut self, expanded: Result<Expr, (Id, String)>) -> Parsed<Expr> {
        self.bounded()?;
        match expanded {
            Ok(node) => Ok(node),
            Err((id, message)) => {
                let offset = self.nodes.offset(id);
                self.broken(offset, message)
            }
        }
    }

    /// Arguments and the closing parenthesis.
    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.take_symbol(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.take_symbol(",").is_none() {
                self.expect(")", "{')', ','}")?;
                return Ok(args);
            }
        }
    }
}

/// The operators that bind least, and their functions.
const LOGICAL: [(&str, &str); 2] = [("||", "_||_"), ("&&", "_&&_")];

/// The function of an operator, and how tightly it binds.
fn operator(token: Token) -> Option<(&'static str, u8)> {
    Some(match token {
        Token::Symbol("<") => ("_<_", 0),
        Token::Symbol("<=") => ("_<=_", 0),
        Token::Symbol(">=") => ("_>=_", 0),
        Token::Symbol(">") => ("_>_", 0),
        Token::Symbol("==") => ("_==_", 0),
        Token::Symbol("!=") => ("_!=_", 0),
        Token::In => ("@in", 0),
        Token::Symbol("+") => ("_+_", 1),
        Token::Symbol("-") => ("_-_", 1),
        Token::Symbol("*") => ("_*_", 2),
        Token::Symbol("/") => ("_/_", 2),
        Token::Symbol("%") => ("_%_", 2),
        _ => return None,
    })
}
