//! Text to tokens.
//!
//! Source: the lexer rules of cel-go `parser/gen/CEL.g4`; messages as ANTLR words them.

use crate::issue::Issues;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Ident,
    /// A name in back quotes, which a field only may have.
    Quoted,
    True,
    False,
    Null,
    In,
    /// One or two characters of punctuation.
    Symbol(&'static str),
    End,
}

/// A token and where it is, in code points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Longest first, so that `<=` is not `<`.
const SYMBOLS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!",
    "?", ":", "+", "*",
];
const LATE_SYMBOLS: [&str; 2] = ["/", "%"];

/// Splits an expression into tokens; what is none is reported.
pub(super) fn tokens(text: &[char], issues: &mut Issues) -> Vec<Lexeme> {
    let mut scanner = Scanner { text, at: 0 };
    let mut found = Vec::new();
    loop {
        scanner.skip_blanks();
        let start = scanner.at;
        if start >= text.len() {
            found.push(Lexeme { token: Token::End, start, end: start });
            return found;
        }
        match scanner.next() {
            Some(token) => found.push(Lexeme { token, start, end: scanner.at }),
            None => {
                // What was read and the character that did not fit are dropped.
                scanner.at = (scanner.at + 1).min(text.len());
                let bad: String = text[start..scanner.at].iter().collect();
                let bad = bad.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
                issues.report(start, format!("Syntax error: token recognition error at: '{bad}'"));
            }
        }
    }
}

struct Scanner<'t> {
    text: &'t [char],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c))
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&fits) {
            self.at += 1;
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, '\t' | ' ' | '\r' | '\n' | '\u{c}'));
            if !self.starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// Reads one token. `None` leaves the position at the character that fits nothing.
    fn next(&mut self) -> Option<Token> {
        let first = self.peek(0)?;
        if let Some(token) = self.string() {
            return Some(token);
        }
        if matches!(first, '"' | '\'') {
            // The place where the string broke off was noted by `string`.
            return None;
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Some(self.word());
        }
        if first.is_ascii_digit() || first == '.' && self.peek(1).is_some_and(is_digit) {
            return Some(self.number());
        }
        if first == '`' {
            return self.quoted();
        }
        let symbols = SYMBOLS.iter().chain(&LATE_SYMBOLS);
        if let Some(symbol) = symbols.copied().find(|symbol| self.starts_with(symbol)) {
            self.at += symbol.len();
            return Some(Token::Symbol(symbol));
        }
        // The first half of a symbol of two.
        if matches!(first, '=' | '&' | '|') {
            self.at += 1;
        }
        None
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let word: String = self.text[start..self.at].iter().collect();
        match word.as_str() {
            "true" => Token::True,
            "false" => Token::False,
            "null" => Token::Null,
            "in" => Token::In,
            _ => Token::Ident,
        }
    }

    fn number(&mut self) -> Token {
        if self.starts_with("0x") && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit()) {
            self.at += 2;
            self.take_while(|c| c.is_ascii_hexdigit());
            return self.unsigned(Token::Int);
        }
        self.take_while(is_digit);
        let mut token = Token::Int;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(is_digit) {
            token = Token::Double;
            self.at += 1;
            self.take_while(is_digit);
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.peek(1 + sign).is_some_and(is_digit) {
                token = Token::Double;
                self.at += 1 + sign;
                self.take_while(is_digit);
            }
        }
        self.unsigned(token)
    }

    fn unsigned(&mut self, token: Token) -> Token {
        if token == Token::Int && matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return Token::Uint;
        }
        token
    }

    fn quoted(&mut self) -> Option<Token> {
        self.at += 1;
        let start = self.at;
        self.take_while(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c));
        if self.at == start || self.peek(0) != Some('`') {
            return None;
        }
        self.at += 1;
        Some(Token::Quoted)
    }

    /// Reads a string with its prefix. If it is none, the position is where it broke off, for a
    /// string without a prefix, and unchanged otherwise.
    fn string(&mut self) -> Option<Token> {
        let start = self.at;
        let bytes = usize::from(matches!(self.peek(0), Some('b' | 'B')));
        let raw = usize::from(matches!(self.peek(bytes), Some('r' | 'R')));
        let quote = self.peek(bytes + raw).filter(|c| matches!(c, '"' | '\''))?;
        self.at += bytes + raw;
        let token = if bytes == 1 { Token::Bytes } else { Token::String };
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let begin = self.at;
        if triple {
            self.at += 3;
            if self.body(quote, 3, raw == 1) {
                return Some(token);
            }
            // Three quotes that are never closed are an empty string and one quote.
            self.at = begin;
        }
        self.at += 1;
        if self.body(quote, 1, raw == 1) {
            return Some(token);
        }
        if bytes + raw > 0 {
            self.at = start;
        }
        None
    }

    /// Reads on behind the closing quotes; false if something else comes first.
    fn body(&mut self, quote: char, quotes: usize, raw: bool) -> bool {
        while let Some(next) = self.peek(0) {
            if next == quote && (0..quotes).all(|ahead| self.peek(ahead) == Some(quote)) {
                self.at += quotes;
                return true;
            }
            match next {
                '\\' if !raw => match self.escape() {
                    true => continue,
                    false => return false,
                },
                '\n' | '\r' if quotes == 1 => return false,
                _ => self.at += 1,
            }
        }
        false
    }

    fn escape(&mut self) -> bool {
        self.at += 1;
        let Some(kind) = self.peek(0) else { return false };
        let digits = match kind {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => 0,
            'x' | 'X' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='3' => {
                self.at += 1;
                return self.digits(2, |c| matches!(c, '0'..='7'));
            }
            _ => return false,
        };
        self.at += 1;
        self.digits(digits, |c| c.is_ascii_hexdigit())
    }

    fn digits(&mut self, count: usize, fits: impl Fn(char) -> bool) -> bool {
        for _ in 0..count {
            if !self.peek(0).is_some_and(&fits) {
                return false;
            }
            self.at += 1;
        }
        true
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}
