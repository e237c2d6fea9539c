//! The grammar of label queries.

use std::collections::BTreeSet;

use super::{Operator, Requirement, SelectorError, check_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Identifier,
    OpenPar,
    ClosedPar,
    Comma,
    Bang,
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        "(" => Token::OpenPar,
        ")" => Token::ClosedPar,
        "," => Token::Comma,
        "!" => Token::Bang,
        "in" => Token::In,
        "notin" => Token::NotIn,
        "=" => Token::Equals,
        "==" => Token::DoubleEquals,
        "!=" => Token::NotEquals,
        ">" => Token::Greater,
        "<" => Token::Less,
        _ => return None,
    })
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The tokens of a query. The last one is always [`Token::End`] or [`Token::Error`].
fn tokens(text: &str) -> Vec<(Token, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let length = if is_special(first) {
            let run = rest.find(|c| !is_special(c)).unwrap_or(rest.len());
            // The longest keyword that the run of symbols begins with: two bytes at most.
            (1..=run.min(2)).rev().find(|end| keyword(&rest[..*end]).is_some())
        } else {
            Some(rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len()))
        };
        let Some(length) = length else {
            found.push((Token::Error, format!("error expected: keyword found '{rest}'")));
            return found;
        };
        let (literal, tail) = rest.split_at(length);
        found.push((keyword(literal).unwrap_or(Token::Identifier), literal.to_owned()));
        rest = tail.trim_start_matches(is_space);
    }
    found.push((Token::End, String::new()));
    found
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

/// Where a value or a key may stand, `in` and `notin` are ordinary words.
fn as_value((token, literal): &(Token, String)) -> (Token, &str) {
    match token {
        Token::In | Token::NotIn => (Token::Identifier, literal),
        other => (*other, literal),
    }
}

fn fail<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError(message))
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::Identifier | Token::Bang, _) => {
                let requirement = parser.requirement();
                requirements.push(
                    requirement
                        .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?,
                );
                match parser.next() {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => match parser.peek() {
                        (Token::Identifier | Token::Bang, _) => {}
                        (_, literal) => {
                            return fail(format!(
                                "found '{literal}', expected: identifier after ','"
                            ));
                        }
                    },
                    (_, literal) => {
                        return fail(format!(
                            "found '{literal}', expected: ',' or 'end of string'"
                        ));
                    }
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, literal) => {
                return fail(format!(
                    "found '{literal}', expected: !, identifier, or 'end of string'"
                ));
            }
        }
    }
}

impl Parser {
    fn raw(&self) -> &(Token, String) {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> (Token, &str) {
        as_value(self.raw())
    }

    fn next(&mut self) -> (Token, &str) {
        self.at += 1;
        as_value(&self.tokens[(self.at - 1).min(self.tokens.len() - 1)])
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut literal) = self.next();
        let absent = token == Token::Bang;
        if absent {
            (token, literal) = self.next();
        }
        if token != Token::Identifier {
            return fail(format!("found '{literal}', expected: identifier"));
        }
        let key = literal.to_owned();
        check_key(&key)?;
        if matches!(self.peek().0, Token::End | Token::Comma) {
            let operator = if absent { Operator::DoesNotExist } else { Operator::Exists };
            return Requirement::new(key, operator, []);
        }
        if absent {
            // What follows is left for the caller to complain about.
            return Requirement::new(key, Operator::DoesNotExist, []);
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let (token, literal) = self.raw().clone();
        self.at += 1;
        Ok(match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::Gt,
            Token::Less => Operator::Lt,
            _ => {
                return fail(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        })
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            (Token::Identifier, literal) => Ok(BTreeSet::from([literal.to_owned()])),
            (_, literal) => fail(format!("found '{literal}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if let (token, literal) = self.next()
            && token != Token::OpenPar
        {
            return fail(format!("found '{literal}' expected: '('"));
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, _) => {
                let values = self.identifiers()?;
                match self.next() {
                    (Token::ClosedPar, _) => Ok(values),
                    (_, literal) => fail(format!("found '{literal}', expected: ')'")),
                }
            }
            (Token::ClosedPar, _) => {
                self.at += 1;
                Ok(BTreeSet::new())
            }
            (_, literal) => fail(format!("found '{literal}', expected: ',', ')' or identifier")),
        }
    }

    /// Names between commas; nothing before, after or between commas is the empty value.
    fn identifiers(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier, literal) => {
                    values.insert(literal.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::ClosedPar, _) => return Ok(values),
                        (_, literal) => {
                            return fail(format!("found '{literal}', expected: ',' or ')'"));
                        }
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::ClosedPar => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, literal) => {
                    return fail(format!("found '{literal}', expected: ',', or identifier"));
                }
            }
        }
    }
}
