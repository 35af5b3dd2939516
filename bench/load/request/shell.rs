//! Words of a POSIX shell's command line, with bash's `$'...'`: as much as a pasted command needs.
//!
//! Substitutes nothing and runs nothing: what would need a shell is refused with its place.

use std::fmt;

/// A command line that cannot be taken apart without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadWords {
    /// Where, in bytes from the front.
    pub at: usize,
    /// What is there.
    pub fault: WordFault,
}

/// Why a command line cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordFault {
    /// A quote that nothing closes.
    Unclosed(char),
    /// `$NAME`, `$(...)` or a backtick.
    Substitution,
    /// A character that ends or redirects a command: `&`, `;`, `|`, `<`, `>`, `(`, `)`.
    Operator(char),
    /// `^"`, as Windows' cmd quotes.
    Windows,
    /// `\u` or `\x` of what is no character, in `$'...'`.
    Escape,
}

impl fmt::Display for BadWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.fault {
            WordFault::Unclosed(quote) => write!(f, "nothing closes the {quote} at byte {at}"),
            WordFault::Substitution => {
                write!(f, "what the shell would put in at byte {at} is not known here: put it in yourself")
            }
            WordFault::Operator(c) => {
                write!(
                    f,
                    "the {c} at byte {at} ends the command in a shell: quote it, or give one command only"
                )
            }
            WordFault::Windows => {
                write!(f, "byte {at} is quoted for Windows: choose \"Copy as cURL (bash)\" in the browser")
            }
            WordFault::Escape => write!(f, "the escape at byte {at} is no character"),
        }
    }
}

/// The words of a command line. Each is the bytes a program would be given, so it need not be UTF-8.
pub fn words(text: &str) -> Result<Vec<Vec<u8>>, BadWords> {
    let mut scanner = Scanner { text: text.as_bytes(), at: 0, word: None, words: Vec::new() };
    while let Some(byte) = scanner.next() {
        scanner.unquoted(byte)?;
    }
    scanner.end_word();
    Ok(scanner.words)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// The word under way; quotes can begin one that stays empty.
    word: Option<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn word(&mut self) -> &mut Vec<u8> {
        self.word.get_or_insert_default()
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn unquoted(&mut self, byte: u8) -> Result<(), BadWords> {
        let at = self.at - 1;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => self.end_word(),
            b'\\' => self.escaped(),
            b'\'' => self.single_quoted(at)?,
            b'"' => self.double_quoted(at)?,
            b'$' if self.peek() == Some(b'\'') => {
                self.at += 1;
                self.ansi_c_quoted(at)?;
            }
            // bash: a string to translate, the same where there is no translation.
            b'$' if self.peek() == Some(b'"') => {}
            b'$' | b'`' if self.substitutes(byte) => return Err(bad(at, WordFault::Substitution)),
            b'&' | b';' | b'|' | b'<' | b'>' | b'(' | b')' => {
                return Err(bad(at, WordFault::Operator(char::from(byte))));
            }
            b'^' if matches!(self.peek(), Some(b'"' | b'\r' | b'\n') | None) => {
                return Err(bad(at, WordFault::Windows));
            }
            other => self.word().push(other),
        }
        Ok(())
    }

    /// After a backslash outside quotes: the next byte is plain, and a line end is not there at all.
    fn escaped(&mut self) {
        if self.text[self.at..].starts_with(b"\r\n") {
            self.at += 2;
            return;
        }
        match self.next() {
            Some(b'\n') | None => {}
            Some(byte) => self.word().push(byte),
        }
    }

    fn single_quoted(&mut self, begin: usize) -> Result<(), BadWords> {
        let rest = &self.text[self.at..];
        let length = memchr::memchr(b'\'', rest).ok_or(bad(begin, WordFault::Unclosed('\'')))?;
        self.word().extend_from_slice(&rest[..length]);
        self.at += length + 1;
        Ok(())
    }

    /// POSIX 2.2.3: the backslash escapes few characters and is text before others.
    fn double_quoted(&mut self, begin: usize) -> Result<(), BadWords> {
        self.word();
        loop {
            let at = self.at;
            match self.next().ok_or(bad(begin, WordFault::Unclosed('"')))? {
                b'"' => return Ok(()),
                b'\\' => match self.peek() {
                    Some(b'\n') => self.at += 1,
                    Some(escaped @ (b'$' | b'`' | b'"' | b'\\')) => {
                        self.at += 1;
                        self.word().push(escaped);
                    }
                    _ => self.word().push(b'\\'),
                },
                byte @ (b'$' | b'`') if self.substitutes(byte) => {
                    return Err(bad(at, WordFault::Substitution));
                }
                byte => self.word().push(byte),
            }
        }
    }

    /// Whether `$` or a backtick begins something that the shell puts in; a lone `$` is text.
    fn substitutes(&self, byte: u8) -> bool {
        let begins = |next: u8| next.is_ascii_alphanumeric() || b"_({@*#?$!-".contains(&next);
        byte == b'`' || self.peek().is_some_and(begins)
    }

    /// bash, "ANSI-C Quoting".
    fn ansi_c_quoted(&mut self, begin: usize) -> Result<(), BadWords> {
        self.word();
        loop {
            let byte = self.next().ok_or(bad(begin, WordFault::Unclosed('\'')))?;
            match byte {
                b'\'' => return Ok(()),
                b'\\' => self.ansi_c_escape()?,
                byte => self.word().push(byte),
            }
        }
    }

    fn ansi_c_escape(&mut self) -> Result<(), BadWords> {
        let begin = self.at - 1;
        // At the end of the text the quote is unclosed, which the caller sees.
        let Some(byte) = self.next() else { return Ok(()) };
        let plain = match byte {
            b'a' => 0x07,
            b'b' => 0x08,
            b'e' | b'E' => 0x1b,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' | b'\'' | b'"' | b'?' => byte,
            b'0'..=b'7' => {
                self.at -= 1;
                self.digits(8, 3) as u8
            }
            b'x' => {
                let at = self.at;
                let value = self.digits(16, 2);
                if self.at == at {
                    return Err(bad(begin, WordFault::Escape));
                }
                value as u8
            }
            b'u' => return self.unicode(begin, 4),
            b'U' => return self.unicode(begin, 8),
            other => {
                self.word().extend([b'\\', other]);
                return Ok(());
            }
        };
        self.word().push(plain);
        Ok(())
    }

    /// A character by its number. Browsers write one beyond U+FFFF as two surrogates, as JavaScript counts.
    fn unicode(&mut self, begin: usize, digits_max: usize) -> Result<(), BadWords> {
        let none = bad(begin, WordFault::Escape);
        let at = self.at;
        let mut number = self.digits(16, digits_max);
        if self.at == at {
            return Err(none);
        }
        if (0xd800..0xdc00).contains(&number) {
            if !self.text[self.at..].starts_with(b"\\u") {
                return Err(none);
            }
            self.at += 2;
            let low =
                self.digits(16, 4).checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(none.clone())?;
            number = 0x1_0000 + ((number - 0xd800) << 10) + low;
        }
        let character = char::from_u32(number).ok_or(none)?;
        self.word().extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// The number that up to `digits_max` digits are; 0 for none.
    fn digits(&mut self, radix: u32, digits_max: usize) -> u32 {
        let mut value: u32 = 0;
        for _ in 0..digits_max {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(radix));
            let Some(digit) = digit else { break };
            // Eight hex digits are 32 bits: nothing is shifted out.
            value = value.wrapping_mul(radix) + digit;
            self.at += 1;
        }
        value
    }
}

fn bad(at: usize, fault: WordFault) -> BadWords {
    BadWords { at, fault }
}
