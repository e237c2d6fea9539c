//! Tokens to expressions, by recursive descent.
//!
//! Source: the grammar of cel-go `parser/gen/CEL.g4` and what `parser/parser.go` makes of it: the
//! place of an operation is its operator, the place of a call its parenthesis.

use std::sync::Arc;

use super::ast::{Ast, DEPTH_MAX, Element, Entry, Expr, Field, Id, Kind, Literal, Nodes};
use super::macros::{self, Maker};
use super::token::{Lexeme, Token, tokens};
use super::{balance, literal};
use crate::issue::Issues;

/// A longer expression is refused.
///
/// Source: cel-go `parser/parser.go` (`expressionSizeCodePointLimit`).
const LENGTH_MAX: usize = 100_000;

/// What may stand where an expression begins, as ANTLR lists it.
const EXPRESSION: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, \
     NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

const RESERVED: [&str; 17] = [
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
pub(crate) fn parse(source: &str, issues: &mut Issues) -> Option<Ast> {
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
    let mut parser = Parser { text: &text, lexemes, at: 0, nodes, depth: 0, issues };
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

    fn primary(&mut self) -> Parsed<Expr> {
        let first = self.next();
        match first.token {
            Token::Symbol("(") => {
                self.take();
                let inner = self.expr()?;
                self.expect(")", "')'")?;
                Ok(inner)
            }
            Token::Symbol("[") => self.list(),
            Token::Symbol("{") => self.map(),
            Token::Symbol(".") => {
                self.take();
                if self.next().token != Token::Ident {
                    return Err(self.mismatch("IDENTIFIER"));
                }
                self.named(".")
            }
            Token::Ident => self.named(""),
            Token::Symbol("-") => self.literal(),
            Token::Symbol(_) | Token::In | Token::End | Token::Quoted => {
                Err(self.mismatch(EXPRESSION))
            }
            _ => self.literal(),
        }
    }

    /// An identifier, a call, or an object that is built.
    fn named(&mut self, dot: &str) -> Parsed<Expr> {
        let name = self.take();
        let text = self.text_of(name);
        if let Some(end) = self.struct_name() {
            return self.structure(dot, name, end);
        }
        if RESERVED.contains(&text.as_str()) {
            return self.broken(name.start, format!("reserved identifier: {text}"));
        }
        let Some(open) = self.take_symbol("(") else {
            return self.node(name.start, Kind::Ident(format!("{dot}{text}")));
        };
        let mut args = self.arguments()?;
        if text == "has" && dot.is_empty() && args.len() == 1 {
            let mut maker = Maker { nodes: &mut self.nodes, offset: open.start };
            let expanded = macros::has(&mut maker, args.remove(0));
            return self.expanded(expanded);
        }
        self.call(open.start, &format!("{dot}{text}"), args)
    }

    /// Where the brace is, if what follows is the rest of a type's name and a brace.
    fn struct_name(&self) -> Option<usize> {
        let mut at = self.at;
        let token = |at: usize| self.lexemes.get(at).map(|lexeme| lexeme.token);
        while token(at) == Some(Token::Symbol(".")) && token(at + 1) == Some(Token::Ident) {
            at += 2;
        }
        (token(at) == Some(Token::Symbol("{"))).then_some(at)
    }

    fn structure(&mut self, dot: &str, first: Lexeme, brace: usize) -> Parsed<Expr> {
        let mut name = format!("{dot}{}", self.text_of(first));
        while self.at < brace {
            let lexeme = self.take();
            name.push_str(&self.text_of(lexeme));
        }
        let open = self.take();
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.take_symbol("?").is_some();
            let field = self.next();
            if !matches!(field.token, Token::Ident | Token::Quoted) {
                return Err(self.mismatch("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}"));
            }
            self.take();
            if field.token == Token::Quoted {
                self.issues.report(field.start, "unsupported syntax: '`'");
            }
            let colon = self.expect(":", "':'")?;
            let id = self.nodes.place(colon.start);
            let value = self.expr()?;
            fields.push(Field { id, name: self.text_of(field), value, optional });
            if self.take_symbol(",").is_none() {
                break;
            }
        }
        self.expect("}", "{'}', ','}")?;
        self.node(open.start, Kind::Struct { name, fields })
    }

    fn list(&mut self) -> Parsed<Expr> {
        let open = self.take();
        let mut elements = Vec::new();
        if self.take_symbol(",").is_none() {
            while !self.is("]") {
                let optional = self.take_symbol("?").is_some();
                elements.push(Element { value: self.expr()?, optional });
                if self.take_symbol(",").is_none() {
                    break;
                }
            }
        }
        self.expect("]", "{']', ','}")?;
        self.node(open.start, Kind::List(elements))
    }

    fn map(&mut self) -> Parsed<Expr> {
        const FIRST: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', \
             'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
        let open = self.take();
        let mut entries = Vec::new();
        if self.take_symbol(",").is_none() {
            while !self.is("}") {
                if self.next().token == Token::End {
                    return Err(self.mismatch(FIRST));
                }
                let optional = self.take_symbol("?").is_some();
                let key = self.expr()?;
                self.expect(":", "':'")?;
                entries.push(Entry { key, value: self.expr()?, optional });
                if self.take_symbol(",").is_none() {
                    break;
                }
            }
        }
        self.expect("}", "{'}', ','}")?;
        self.node(open.start, Kind::Map(entries))
    }

    fn literal(&mut self) -> Parsed<Expr> {
        let first = self.take();
        let negative = first.token == Token::Symbol("-");
        let lexeme = if negative { self.take() } else { first };
        let text = self.text_of(lexeme);
        let read = match lexeme.token {
            Token::Int => integer(&text, negative).ok_or("invalid int literal"),
            Token::Uint => unsigned(&text).ok_or("invalid uint literal"),
            Token::Double => double(&text, negative).ok_or("invalid double literal"),
            Token::String => literal::string(&text).map(|text| Literal::String(text.into())),
            Token::Bytes => literal::bytes(&text[1..]).map(|b| Literal::Bytes(Arc::from(b))),
            Token::True => Ok(Literal::Bool(true)),
            Token::False => Ok(Literal::Bool(false)),
            _ => Ok(Literal::Null),
        };
        match read {
            Ok(literal) => self.node(first.start, Kind::Literal(literal)),
            Err(message) => self.broken(first.start, message),
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

fn integer(text: &str, negative: bool) -> Option<Literal> {
    let sign = if negative { "-" } else { "" };
    let read = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(&format!("{sign}{digits}"), 16),
        None => format!("{sign}{text}").parse(),
    };
    read.ok().map(Literal::Int)
}

fn unsigned(text: &str) -> Option<Literal> {
    let text = &text[..text.len() - 1];
    let read = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    read.ok().map(Literal::Uint)
}

fn double(text: &str, negative: bool) -> Option<Literal> {
    let value: f64 = text.parse().ok()?;
    // Upstream refuses what is out of range; Rust reads it as infinity.
    let value = value.is_finite().then_some(value)?;
    Some(Literal::Double(if negative { -value } else { value }))
}
