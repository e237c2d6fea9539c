//! What operators and chains of fields begin with: names, literals, lists, maps and objects.

use std::sync::Arc;

use super::super::ast::{Element, Entry, Expr, Field, Kind, Literal};
use super::super::literal;
use super::super::macros::{self, Maker};
use super::super::token::{Lexeme, Token};
use super::{EXPRESSION, Parsed, Parser, RESERVED};

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Parsed<Expr> {
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
