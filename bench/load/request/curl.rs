//! A request as a browser's "copy as cURL (bash)" gives it.
//!
//! As curl 8 reads its options, without its files and without what belongs to the connection, which is the
//! tool's own: an option that would change the request in a way that is not done here is refused by name, one
//! that changes only how it is sent is told as a warning.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::shell::{self, BadWords};
use super::template::percent_encode;

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurlRequest {
    /// `GET`, `POST` with data, `HEAD` with `-I`, or what `-X` says.
    pub method: String,
    /// As typed; `http://` is put in front where there is no scheme.
    pub url: String,
    /// Name and value, in order; neither `Content-Length` nor `Connection`, which are the tool's own.
    pub headers: Vec<(String, String)>,
    /// What `-d` and its kin make.
    pub body: Option<String>,
    /// What cannot be honoured and is left out, for people.
    pub warnings: Vec<String>,
}

/// A command that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadCurl {
    /// The shell's syntax.
    Words(BadWords),
    /// Its first word is not `curl`.
    NoCurl,
    /// It has no URL.
    NoUrl,
    /// It has another URL.
    SecondUrl(String),
    /// An option that is not known here, or not done.
    Option(String),
    /// An option without its value.
    NoValue(String),
    /// An option whose value is a file.
    File(String, String),
    /// `-H` without a colon, or with a name or value that no header has.
    Header(String),
    /// `-X` with what is no method.
    Method(String),
    /// What is not UTF-8: the word, as far as it can be shown.
    NotUtf8(String),
}

impl fmt::Display for BadCurl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(bad) => bad.fmt(f),
            Self::NoCurl => write!(f, "the command does not begin with curl"),
            Self::NoUrl => write!(f, "the command has no URL"),
            Self::SecondUrl(url) => write!(f, "a second URL, {url:?}: one request is taken"),
            Self::Option(option) => write!(f, "{option} is not understood: take it out, or write it as ours"),
            Self::NoValue(option) => write!(f, "{option} has no value"),
            Self::File(option, file) => {
                write!(f, "{option} reads {file:?}: paste what the file holds, or give it with --body @FILE")
            }
            Self::Header(header) => write!(f, "{header:?} is no header: write -H 'Name: value'"),
            Self::Method(method) => write!(f, "{method:?} is no method: write GET, POST, ..."),
            Self::NotUtf8(word) => write!(f, "{word:?} is not UTF-8"),
        }
    }
}

impl From<BadWords> for BadCurl {
    fn from(bad: BadWords) -> Self {
        Self::Words(bad)
    }
}

/// An option that is known here.
struct Known {
    /// `-H`; `None` where there is no short one.
    short: Option<char>,
    /// `header`, without its dashes.
    long: &'static str,
    does: Does,
}

/// What an option does.
#[derive(Clone, Copy)]
enum Does {
    /// Sets something by its value.
    Sets(Setting),
    /// Sets something, without a value.
    Switches(Switch),
    /// Nothing here. Where that may matter, `warning` says why; else it is empty.
    Nothing { has_value: bool, warning: &'static str },
}

#[derive(Clone, Copy)]
enum Setting {
    Url,
    Method,
    Header,
    Cookie,
    Agent,
    Referer,
    User,
    /// `@` names a file.
    Data,
    /// `@` is text.
    DataRaw,
    DataUrlencode,
    Json,
}

#[derive(Clone, Copy)]
enum Switch {
    Get,
    Head,
}

const fn known(short: char, long: &'static str, does: Does) -> Known {
    Known { short: Some(short), long, does }
}

const fn long(long: &'static str, does: Does) -> Known {
    Known { short: None, long, does }
}

const fn ignored(has_value: bool) -> Does {
    Does::Nothing { has_value, warning: "" }
}

const fn warns(has_value: bool, warning: &'static str) -> Does {
    Does::Nothing { has_value, warning }
}

const KNOWN: &[Known] = &[
    known('X', "request", Does::Sets(Setting::Method)),
    known('H', "header", Does::Sets(Setting::Header)),
    known('b', "cookie", Does::Sets(Setting::Cookie)),
    known('A', "user-agent", Does::Sets(Setting::Agent)),
    known('e', "referer", Does::Sets(Setting::Referer)),
    known('u', "user", Does::Sets(Setting::User)),
    known('d', "data", Does::Sets(Setting::Data)),
    long("data-ascii", Does::Sets(Setting::Data)),
    long("data-binary", Does::Sets(Setting::Data)),
    long("data-raw", Does::Sets(Setting::DataRaw)),
    long("data-urlencode", Does::Sets(Setting::DataUrlencode)),
    long("json", Does::Sets(Setting::Json)),
    long("url", Does::Sets(Setting::Url)),
    known('G', "get", Does::Switches(Switch::Get)),
    known('I', "head", Does::Switches(Switch::Head)),
    known('k', "insecure", ignored(false)),
    known('s', "silent", ignored(false)),
    known('S', "show-error", ignored(false)),
    known('i', "include", ignored(false)),
    known('v', "verbose", ignored(false)),
    known('f', "fail", ignored(false)),
    known('g', "globoff", ignored(false)),
    known('N', "no-buffer", ignored(false)),
    known('#', "progress-bar", ignored(false)),
    known('4', "ipv4", ignored(false)),
    long("http1.1", ignored(false)),
    known('o', "output", ignored(true)),
    known('w', "write-out", ignored(true)),
    known('L', "location", warns(false, "redirects are not followed")),
    known('0', "http1.0", warns(false, "HTTP/1.1 is spoken")),
    long("http2", warns(false, "HTTP/1.1 is spoken")),
    long("http2-prior-knowledge", warns(false, "HTTP/1.1 is spoken")),
    long("http3", warns(false, "HTTP/1.1 is spoken")),
    long("compressed", warns(false, "bodies are counted and checked as they come, compressed or not")),
    known('m', "max-time", warns(true, "write --timeout")),
    long("connect-timeout", warns(true, "write --timeout")),
    known('x', "proxy", warns(true, "the target is asked directly")),
];

/// Reads a command: line continuations, quotes of all kinds, options in any order and short ones together.
pub fn parse(text: &str) -> Result<CurlRequest, BadCurl> {
    let mut words = shell::words(text)?.into_iter().map(|word| {
        String::from_utf8(word)
            .map_err(|bad| BadCurl::NotUtf8(String::from_utf8_lossy(bad.as_bytes()).into()))
    });
    // A prompt is pasted along now and then.
    let first = words.by_ref().find(|word| word.as_deref() != Ok("$")).transpose()?;
    if first.as_deref().and_then(|path| path.rsplit('/').next()) != Some("curl") {
        return Err(BadCurl::NoCurl);
    }
    let mut command = Command::default();
    while let Some(word) = words.next().transpose()? {
        match word.strip_prefix('-') {
            None | Some("") => command.set(Setting::Url, "the URL", &word)?,
            Some(rest) => match rest.strip_prefix('-') {
                Some(name) => {
                    let option = KNOWN.iter().find(|known| known.long == name);
                    command.take(option, &word, None, &mut words)?;
                }
                None => command.take_short(rest, &mut words)?,
            },
        }
    }
    command.finish()
}

#[derive(Default)]
struct Command {
    url: Option<String>,
    method: Option<String>,
    headers: Vec<(String, String)>,
    /// Headers that `-H 'Name:'` takes out.
    without: Vec<String>,
    cookies: Vec<String>,
    agent: Option<String>,
    referer: Option<String>,
    authorization: Option<String>,
    data: Option<String>,
    is_json: bool,
    get: bool,
    head: bool,
    warnings: Vec<String>,
}

impl Command {
    /// Short options in one word: `-sS`, `-XPOST`.
    fn take_short(
        &mut self,
        mut rest: &str,
        words: &mut impl Iterator<Item = Result<String, BadCurl>>,
    ) -> Result<(), BadCurl> {
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            let option = KNOWN.iter().find(|known| known.short == Some(letter));
            let attached = Some(rest).filter(|rest| !rest.is_empty());
            if self.take(option, &format!("-{letter}"), attached, words)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes an option, written as `name`, and says whether it has used `attached`, or the next word, as its
    /// value.
    fn take(
        &mut self,
        option: Option<&Known>,
        name: &str,
        attached: Option<&str>,
        words: &mut impl Iterator<Item = Result<String, BadCurl>>,
    ) -> Result<bool, BadCurl> {
        let mut value = || match attached {
            Some(attached) => Ok(attached.to_owned()),
            None => words.next().unwrap_or_else(|| Err(BadCurl::NoValue(name.to_owned()))),
        };
        match option.ok_or_else(|| BadCurl::Option(name.to_owned()))?.does {
            Does::Sets(setting) => {
                let value = value()?;
                self.set(setting, name, &value)?;
                return Ok(true);
            }
            Does::Switches(Switch::Get) => self.get = true,
            Does::Switches(Switch::Head) => self.head = true,
            Does::Nothing { has_value, warning } => {
                if !warning.is_empty() {
                    self.warnings.push(format!("{name} is left out: {warning}"));
                }
                if has_value {
                    value()?;
                }
                return Ok(has_value);
            }
        }
        Ok(false)
    }

    fn set(&mut self, setting: Setting, name: &str, value: &str) -> Result<(), BadCurl> {
        let file = |path: &str| BadCurl::File(name.to_owned(), path.to_owned());
        match setting {
            Setting::Url if self.url.is_some() => return Err(BadCurl::SecondUrl(value.to_owned())),
            Setting::Url => self.url = Some(value.to_owned()),
            Setting::Method if !is_token(value) => return Err(BadCurl::Method(value.to_owned())),
            Setting::Method => self.method = Some(value.to_owned()),
            Setting::Header => self.header(value)?,
            // curl: what has no `=` is a file to read cookies from, and '' none.
            Setting::Cookie if value.is_empty() => {}
            Setting::Cookie if !value.contains('=') => return Err(file(value)),
            Setting::Cookie => self.cookies.push(value.to_owned()),
            Setting::Agent => self.agent = Some(value.to_owned()),
            Setting::Referer => self.referer = Some(value.to_owned()),
            Setting::User => self.authorization = Some(format!("Basic {}", BASE64.encode(value))),
            Setting::Data | Setting::Json if value.starts_with('@') => return Err(file(&value[1..])),
            Setting::Data | Setting::DataRaw => self.add_data(value),
            Setting::DataUrlencode => self.add_data(&urlencoded(value).ok_or_else(|| file(value))?),
            Setting::Json => {
                // Several --json are one body, without `&` between them.
                self.data.get_or_insert_default().push_str(value);
                self.is_json = true;
            }
        }
        Ok(())
    }

    fn header(&mut self, header: &str) -> Result<(), BadCurl> {
        let bad = || BadCurl::Header(header.to_owned());
        if let Some(path) = header.strip_prefix('@') {
            return Err(BadCurl::File("-H".to_owned(), path.to_owned()));
        }
        // HTTP/2's `:authority` and its like, which Chrome once pasted, are not headers.
        if let Some((name, _)) = header.strip_prefix(':').and_then(|pseudo| pseudo.split_once(':')) {
            self.warnings.push(format!("the header :{name} is left out: HTTP/1.1 has it elsewhere"));
            return Ok(());
        }
        // curl: `Name;` is a header without a value.
        if let Some(name) = header.strip_suffix(';').filter(|name| is_token(name)) {
            self.headers.push((name.to_owned(), String::new()));
            return Ok(());
        }
        let (name, value) = header.split_once(':').ok_or_else(bad)?;
        let (name, value) = (name.trim_end(), value.trim());
        if !is_token(name) || value.contains(['\r', '\n', '\0']) {
            return Err(bad());
        }
        match value {
            "" => self.without.push(name.to_owned()),
            value => self.headers.push((name.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    fn add_data(&mut self, data: &str) {
        match &mut self.data {
            Some(before) => {
                before.push('&');
                before.push_str(data);
            }
            None => self.data = Some(data.to_owned()),
        }
    }

    fn finish(mut self) -> Result<CurlRequest, BadCurl> {
        let mut url = self.url.take().filter(|url| !url.is_empty()).ok_or(BadCurl::NoUrl)?;
        if !url.contains("://") {
            url.insert_str(0, "http://");
        }
        let is_json = self.is_json;
        if let Some(data) = self.data.take_if(|_| self.get) {
            url = with_query(&url, &data);
        }
        let method = self.method.take().unwrap_or_else(|| {
            let method = if self.head {
                "HEAD"
            } else if self.data.is_some() {
                "POST"
            } else {
                "GET"
            };
            method.to_owned()
        });
        self.add_header("User-Agent", self.agent.clone());
        self.add_header("Referer", self.referer.clone());
        self.add_header("Authorization", self.authorization.clone());
        let cookies = self.cookies.join("; ");
        self.add_header("Cookie", Some(cookies).filter(|cookies| !cookies.is_empty()));
        self.add_header("Accept", is_json.then(|| "application/json".to_owned()));
        let kind = if is_json { "application/json" } else { "application/x-www-form-urlencoded" };
        self.add_header("Content-Type", (is_json || self.data.is_some()).then(|| kind.to_owned()));
        let ours = ["content-length", "connection"];
        self.headers.retain(|(name, _)| !ours.contains(&&*name.to_ascii_lowercase()));
        Ok(CurlRequest { method, url, headers: self.headers, body: self.data, warnings: self.warnings })
    }

    /// Adds a header that an option makes: `-H` with the same name, or that takes it out, goes before.
    fn add_header(&mut self, name: &str, value: Option<String>) {
        let named = self.headers.iter().map(|(name, _)| name).chain(&self.without);
        let is_there = named.into_iter().any(|there| there.eq_ignore_ascii_case(name));
        if let Some(value) = value.filter(|_| !is_there) {
            self.headers.push((name.to_owned(), value));
        }
    }
}

/// What names of headers and methods are (RFC 9110 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"(),/:;<=>?@[\\]{}\"".contains(c))
}

/// `--data-urlencode`: `content`, `=content`, `name=content`; `None` for `@file` and `name@file`.
fn urlencoded(value: &str) -> Option<String> {
    let (name, content) = match value.find('=').or_else(|| value.find('@')) {
        Some(at) if value[at..].starts_with('@') => return None,
        Some(0) => ("", &value[1..]),
        Some(at) => (&value[..=at], &value[at + 1..]),
        None => ("", value),
    };
    let mut encoded = Vec::new();
    percent_encode(content.as_bytes(), &mut encoded);
    // curl writes a space as forms do.
    let encoded = String::from_utf8(encoded).expect("ASCII").replace("%20", "+");
    Some(format!("{name}{encoded}"))
}

/// `-G`: the data behind the query, before a fragment.
fn with_query(url: &str, data: &str) -> String {
    let (url, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}{data}{fragment}")
}
