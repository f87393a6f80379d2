//! Filters: which records a client wants to see.
//!
//! The grammar is containerd's (`pkg/filters/parser.go`):
//!
//! ```text
//! selectors := selector ("," selector)*
//! selector  := fieldpath (operator value)?
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z0-9_-]+
//! operator  := "==" | "!=" | "~="
//! value     := quoted | [^\s,]+
//! quoted    := a Go string in double quotes; after "~=" also in slashes or bars
//! ```
//!
//! All selectors of a filter must hold; of several filters one must. Without an operator a field
//! must be present. `~=` holds when the regular expression matches anywhere in the value.

use regex::bytes::{Regex, RegexBuilder};

use crate::{Error, Result};

/// The most memory of a compiled regular expression, in bytes.
const REGEX_LIMIT: usize = 1 << 20;

/// A record that filters look into.
pub trait Fields {
    /// The value at `path`, such as `["labels", "a.b"]`; `None` when it is absent or empty.
    fn field(&self, path: &[String]) -> Option<&str>;
}

/// Several filters, of which a record must pass one.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Empty when every record passes.
    alternatives: Vec<Vec<Selector>>,
}

#[derive(Clone, Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Parses filters as clients send them. No filters let every record pass, and so does an
    /// empty one.
    ///
    /// # Errors
    /// `InvalidArgument` with the place of the fault.
    pub fn parse(filters: &[impl AsRef<str>]) -> Result<Self> {
        let parse = |text: &str| match text {
            "" => Ok(Vec::new()),
            text => Parser { text, at: 0 }.selectors(),
        };
        let alternatives =
            filters.iter().map(|text| parse(text.as_ref())).collect::<Result<_>>()?;
        Ok(Self { alternatives })
    }

    /// Whether `record` passes.
    pub fn matches(&self, record: &impl Fields) -> bool {
        let passes = |all: &Vec<Selector>| all.iter().all(|selector| selector.holds(record));
        self.alternatives.is_empty() || self.alternatives.iter().any(passes)
    }
}

impl Selector {
    fn holds(&self, record: &impl Fields) -> bool {
        let value = record.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Test::Matches(regex) => regex.is_match(value.unwrap_or_default().as_bytes()),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn selectors(mut self) -> Result<Vec<Selector>> {
        let mut all = vec![self.selector()?];
        while self.peek().is_some() {
            if !self.take(',') {
                return Err(self.fault("unexpected input"));
            }
            all.push(self.selector()?);
        }
        Ok(all)
    }

    fn selector(&mut self) -> Result<Selector> {
        let mut path = vec![self.field()?];
        while self.take('.') {
            path.push(self.field()?);
        }
        let test = match self.peek() {
            None | Some(',') => Test::Present,
            Some(_) => self.test()?,
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String> {
        self.skip_space();
        if self.peek() == Some('"') {
            return self.quoted('"');
        }
        let field = self.run(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if field.is_empty() {
            return Err(self.fault("expected field or quoted"));
        }
        Ok(field.to_owned())
    }

    fn test(&mut self) -> Result<Test> {
        self.skip_space();
        let operator = self.run(|c| matches!(c, '=' | '!' | '~'));
        match operator {
            "==" => Ok(Test::Equal(self.value(&['"'])?)),
            "!=" => Ok(Test::NotEqual(self.value(&['"'])?)),
            "~=" => {
                let value = self.value(&['"', '/', '|'])?;
                Ok(Test::Matches(compile(&value)?))
            }
            _ => Err(self.fault("expected an operator (==, != or ~=)")),
        }
    }

    fn value(&mut self, quotes: &[char]) -> Result<String> {
        self.skip_space();
        match self.peek() {
            Some(quote) if quotes.contains(&quote) => self.quoted(quote),
            Some('/' | '|') => Err(self.fault("invalid quote encountered")),
            _ => {
                let value = self.run(|c| c != ',' && !c.is_whitespace() && !c.is_control());
                if value.is_empty() {
                    return Err(self.fault("expected value or quoted"));
                }
                Ok(value.to_owned())
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        self.next();
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                Some(c) if c == quote => break,
                Some('\\') => self.escape(quote, &mut bytes)?,
                None | Some('\n') => return Err(self.fault("quoted literal not terminated")),
                Some(c) => push(&mut bytes, c),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.fault("quoted literal is not UTF-8"))
    }

    /// What follows a backslash in a Go string (the Go specification, "Rune literals").
    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<()> {
        let byte = match self.next() {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 0x0b,
            Some('\\') => b'\\',
            Some(c) if c == quote => quote as u8,
            Some('x') => self.number(16, 2)? as u8,
            Some(c @ ('u' | 'U')) => {
                let number = self.number(16, if c == 'u' { 4 } else { 8 })?;
                let c = char::from_u32(number).ok_or_else(|| self.fault("no such character"))?;
                push(bytes, c);
                return Ok(());
            }
            Some('0'..='7') => {
                self.at -= 1;
                let number = self.number(8, 3)?;
                u8::try_from(number).map_err(|_| self.fault("illegal numeric escape sequence"))?
            }
            _ => return Err(self.fault("illegal escape sequence")),
        };
        bytes.push(byte);
        Ok(())
    }

    fn number(&mut self, radix: u32, digits: usize) -> Result<u32> {
        let mut number = 0u32;
        for _ in 0..digits {
            let digit = self.next().and_then(|c| c.to_digit(radix));
            let digit = digit.ok_or_else(|| self.fault("illegal numeric escape sequence"))?;
            number = number.wrapping_mul(radix).wrapping_add(digit);
        }
        Ok(number)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn skip_space(&mut self) {
        self.run(char::is_whitespace);
    }

    /// Takes the longest run of characters that are `wanted`.
    fn run(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let run = rest.find(|c| !wanted(c)).map_or(rest, |end| &rest[..end]);
        self.at += run.len();
        run
    }

    fn fault(&self, what: &str) -> Error {
        let (before, after) = self.text.split_at(self.at);
        Error::invalid_argument(format!("filter [{before} >|{after}]: {what}"))
    }
}

/// Go's `\w`, `\d`, `\s` and `\b` are ASCII, so these are, too.
fn compile(text: &str) -> Result<Regex> {
    let regex = RegexBuilder::new(text).unicode(false).size_limit(REGEX_LIMIT).build();
    regex.map_err(|error| {
        Error::invalid_argument(format!(
            "filter has the wrong regular expression {text:?}: {error}"
        ))
    })
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    struct Record {
        name: &'static str,
        labels: &'static [(&'static str, &'static str)],
    }

    impl Fields for Record {
        fn field(&self, path: &[String]) -> Option<&str> {
            match path.first()?.as_str() {
                "name" => Some(self.name).filter(|name| !name.is_empty()),
                "labels" => {
                    let key = path[1..].join(".");
                    self.labels.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
                }
                _ => None,
            }
        }
    }

    const RECORDS: &[Record] = &[
        Record { name: "web", labels: &[("tier", "front"), ("a.b/c", "1")] },
        Record { name: "web-2", labels: &[("tier", "back"), ("with \" and \\", "yes")] },
        Record { name: "db", labels: &[("note", "one, two")] },
        Record { name: "", labels: &[] },
    ];

    fn passing(filters: &[&str]) -> Vec<usize> {
        let filter = Filter::parse(filters).unwrap();
        (0..RECORDS.len()).filter(|n| filter.matches(&RECORDS[*n])).collect()
    }

    #[test]
    fn selects() {
        let cases: &[(&[&str], &[usize])] = &[
            (&[], &[0, 1, 2, 3]),
            (&[""], &[0, 1, 2, 3]),
            (&["name"], &[0, 1, 2]),
            (&["name==web"], &[0]),
            (&["name == web"], &[0]),
            (&["name!=web"], &[1, 2, 3]),
            (&["name!=\"\""], &[0, 1, 2]),
            (&["labels.tier"], &[0, 1]),
            (&["labels.tier==back"], &[1]),
            (&["labels.tier,name==web"], &[0]),
            (&["name==db", "labels.tier==back"], &[1, 2]),
            (&["labels.\"a.b/c\"==1"], &[0]),
            (&["labels.a.\"b/c\"==1"], &[0]),
            (&[r#"labels."with \" and \\"==yes"#], &[1]),
            (&["labels.note==\"one, two\""], &[2]),
            (&["labels.note==\"\\x6fne\\u002c \\164wo\""], &[2]),
            (&["name~=^web$"], &[0]),
            (&["name~=/^web-\\\\d$/"], &[1]),
            (&["name~=|^(web,?2?\\|db)$|"], &[0, 2]),
            (&["name~=eb"], &[0, 1]),
            (&["unknown"], &[]),
            (&["unknown!=x"], &[0, 1, 2, 3]),
        ];
        for (filters, expected) in cases {
            assert_eq!(passing(filters), *expected, "{filters:?}");
        }
    }

    #[test]
    fn refuses_malformed_filters() {
        let malformed = [
            "name==",
            "name=x",
            "name===x",
            "name==a,",
            ",name",
            "labels.",
            ".name",
            "name==\"a",
            "name==\"\\q\"",
            "name==/a/",
            "labels.|a|",
            "name~=[",
            "name~=/a",
            "name web",
            "name==a b",
            "image~=,id",
            "name==\"\\u12\"",
            "name==\"\\400\"",
            "name==\"\\xff\"",
            "é",
            "name~=(((a{99}){99}){99})",
        ];
        for filter in malformed {
            let error = Filter::parse(&[filter]).err();
            assert_eq!(error.map(|e| e.kind()), Some(Kind::InvalidArgument), "{filter}");
        }
    }
}
