//! Text to a syntax tree.

use serde_json::Value;

/// Nesting of blocks and parentheses at most.
const DEPTH: usize = 100;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    /// A pipeline, and the variable that takes its value instead of the output.
    Action(Option<String>, Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Option<String>, Pipeline, Vec<Node>, Vec<Node>),
    Range(Vec<String>, Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

/// Commands, each given the value of the one before as its last argument.
pub(super) type Pipeline = Vec<Vec<Operand>>;

/// A word of a command.
#[derive(Debug)]
pub(super) enum Operand {
    Literal(Value),
    Dot,
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Group(Pipeline, Vec<String>),
}

enum Piece<'a> {
    Text(String),
    Action(&'a str),
}

/// Splits at the braces and applies the trim markers.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    let (mut rest, mut trim) = (text, false);
    while let Some(at) = rest.find("{{") {
        let mut before = &rest[..at];
        if trim {
            before = before.trim_start();
        }
        let after = &rest[at + 2..];
        let end = close(after).ok_or("unclosed action")?;
        let mut action = &after[..end];
        if action.starts_with("- ") || action == "-" {
            action = &action[1..];
            before = before.trim_end();
        }
        trim = action.ends_with(" -");
        if trim {
            action = &action[..action.len() - 1];
        }
        out.push(Piece::Text(before.to_owned()));
        out.push(Piece::Action(action.trim()));
        rest = &after[end + 2..];
    }
    out.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(out)
}

/// Where an action's `}}` is: not within a string.
fn close(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (None, b'"' | b'`' | b'\'') => quote = Some(bytes[at]),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (Some(b'"' | b'\''), b'\\') => at += 1,
            (Some(q), b) if q == b => quote = None,
            _ => {}
        }
        at += 1;
    }
    None
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let pieces = pieces(text)?;
    let mut blocks = Blocks { pieces: pieces.into_iter(), depth: 0 };
    let (nodes, end) = blocks.block()?;
    match end {
        End::Text => Ok(nodes),
        End::Block | End::Else(_) => Err("unexpected {{end}}".to_owned()),
    }
}

enum End<'a> {
    Text,
    Block,
    Else(&'a str),
}

struct Blocks<'a> {
    pieces: std::vec::IntoIter<Piece<'a>>,
    depth: usize,
}

impl<'a> Blocks<'a> {
    fn block(&mut self) -> Result<(Vec<Node>, End<'a>), String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("too deeply nested".to_owned());
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let action = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
            match word {
                _ if action.starts_with("/*") => {}
                "end" | "else" => {
                    self.depth -= 1;
                    return Ok((nodes, if word == "end" { End::Block } else { End::Else(rest.trim()) }));
                }
                "if" | "with" | "range" => nodes.push(self.control(word, rest)?),
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                _ => {
                    let (names, pipeline) = declared(action)?;
                    nodes.push(Node::Action(names.into_iter().next(), pipeline));
                }
            }
        }
        self.depth -= 1;
        Ok((nodes, End::Text))
    }

    fn control(&mut self, word: &str, head: &str) -> Result<Node, String> {
        let (names, pipeline) = declared(head)?;
        let (body, end) = self.block()?;
        let otherwise = match end {
            End::Block => Vec::new(),
            End::Text => return Err("unexpected EOF".to_owned()),
            End::Else("") => match self.block()? {
                (nodes, End::Block) => nodes,
                _ => return Err("expected end after else".to_owned()),
            },
            End::Else(more) => {
                let (word, head) = more.split_once(char::is_whitespace).unwrap_or((more, ""));
                vec![self.control(word, head)?]
            }
        };
        Ok(match word {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(names.into_iter().next(), pipeline, body, otherwise),
            "range" => Node::Range(names, pipeline, body, otherwise),
            _ => return Err(format!("unexpected {word}")),
        })
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Field(String),
    Text(String),
    Number(Value),
    Pipe,
    Open,
    Close,
    Comma,
    Assign,
    /// White space: a field right after a parenthesis belongs to it, one after a space does not.
    Space,
}

/// `$a, $b := pipeline`.
fn declared(text: &str) -> Result<(Vec<String>, Pipeline), String> {
    let tokens = tokens(text)?;
    let split = tokens.iter().position(|token| *token == Token::Assign);
    let mut names = Vec::new();
    if let Some(at) = split {
        for token in &tokens[..at] {
            match token {
                Token::Word(name) if name.starts_with('$') => names.push(name.clone()),
                Token::Comma | Token::Space => {}
                _ => return Err("unexpected token in declaration".to_owned()),
            }
        }
    }
    let mut rest = tokens.into_iter().skip(split.map_or(0, |at| at + 1)).peekable();
    let pipeline = pipeline(&mut rest, 0)?;
    if rest.next().is_some() {
        return Err("unexpected right paren".to_owned());
    }
    Ok((names, pipeline))
}

type Tokens = std::iter::Peekable<std::iter::Skip<std::vec::IntoIter<Token>>>;

fn pipeline(tokens: &mut Tokens, depth: usize) -> Result<Pipeline, String> {
    if depth > DEPTH {
        return Err("too deeply nested".to_owned());
    }
    let mut commands = vec![Vec::new()];
    loop {
        match tokens.peek() {
            None | Some(Token::Close) => break,
            Some(Token::Space) => {
                tokens.next();
            }
            Some(Token::Pipe) => {
                tokens.next();
                commands.push(Vec::new());
            }
            Some(_) => {
                let operand = operand(tokens, depth)?;
                if let Some(command) = commands.last_mut() {
                    command.push(operand);
                }
            }
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return Err("missing value for command".to_owned());
    }
    Ok(commands)
}

fn operand(tokens: &mut Tokens, depth: usize) -> Result<Operand, String> {
    let Some(token) = tokens.next() else { return Err("missing operand".to_owned()) };
    Ok(match token {
        Token::Text(text) => Operand::Literal(Value::String(text)),
        Token::Number(value) => Operand::Literal(value),
        Token::Field(name) if name.is_empty() => Operand::Dot,
        Token::Field(name) => {
            let mut chain = vec![name];
            chain.extend(fields(tokens));
            Operand::Field(chain)
        }
        Token::Word(word) => match word.as_str() {
            "true" => Operand::Literal(Value::Bool(true)),
            "false" => Operand::Literal(Value::Bool(false)),
            "nil" => Operand::Literal(Value::Null),
            _ if word.starts_with('$') => Operand::Variable(word, fields(tokens)),
            _ => Operand::Function(word),
        },
        Token::Open => {
            let inner = pipeline(tokens, depth + 1)?;
            if tokens.next() != Some(Token::Close) {
                return Err("unclosed left paren".to_owned());
            }
            Operand::Group(inner, fields(tokens))
        }
        Token::Pipe | Token::Close | Token::Comma | Token::Assign | Token::Space => {
            return Err(format!("unexpected token {token:?}"));
        }
    })
}

fn fields(tokens: &mut Tokens) -> Vec<String> {
    let mut chain = Vec::new();
    while let Some(Token::Field(name)) = tokens.next_if(|token| matches!(token, Token::Field(_))) {
        chain.push(name);
    }
    chain
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let used = match c {
            c if c.is_whitespace() => {
                out.push(Token::Space);
                rest.len() - rest.trim_start().len()
            }
            '|' => single(&mut out, Token::Pipe),
            '(' => single(&mut out, Token::Open),
            ')' => single(&mut out, Token::Close),
            ',' => single(&mut out, Token::Comma),
            '=' => single(&mut out, Token::Assign),
            ':' if rest.starts_with(":=") => single(&mut out, Token::Assign) + 1,
            '"' | '`' | '\'' => {
                let (value, used) = quoted(rest, c)?;
                out.push(Token::Text(value));
                used
            }
            '.' => {
                let end = word_end(&rest[1..]) + 1;
                out.push(Token::Field(rest[1..end].to_owned()));
                end
            }
            c if c.is_ascii_digit()
                || ((c == '-' || c == '+') && rest[1..].starts_with(|d: char| d.is_ascii_digit())) =>
            {
                let end = rest[1..]
                    .find(|d: char| !d.is_ascii_alphanumeric() && d != '.')
                    .map_or(rest.len(), |at| at + 1);
                out.push(Token::Number(number(&rest[..end])?));
                end
            }
            c if c.is_alphabetic() || c == '_' || c == '$' => {
                let end = c.len_utf8() + word_end(&rest[c.len_utf8()..]);
                out.push(Token::Word(rest[..end].to_owned()));
                end
            }
            c => return Err(format!("unexpected {c:?} in command")),
        };
        rest = &rest[used..];
    }
    Ok(out)
}

fn single(out: &mut Vec<Token>, token: Token) -> usize {
    out.push(token);
    1
}

fn word_end(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn number(text: &str) -> Result<Value, String> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(Value::from(whole));
    }
    text.parse::<f64>().map(Value::from).map_err(|_| format!("bad number syntax: {text:?}"))
}

fn quoted(text: &str, quote: char) -> Result<(String, usize), String> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((out, at + c.len_utf8()));
        }
        if c == '\\' && quote != '`' {
            match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(escaped @ ('\\' | '"' | '\'')) => out.push(escaped),
                _ => return Err("invalid escape in string".to_owned()),
            }
        } else {
            out.push(c);
        }
    }
    Err("unterminated quoted string".to_owned())
}
