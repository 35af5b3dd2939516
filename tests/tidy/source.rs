//! Rust source as the rules see it: without comments and literals, as paths and as functions.
//!
//! A lexer, not a parser: it knows where comments, strings and character literals begin and end, and
//! counts brackets in what is left. That is enough for imports, words and lengths.

use std::fs;
use std::path::{Path, PathBuf};

/// One file, blanked where it is not code; lines keep their numbers and the code its columns.
pub struct Source {
    /// Relative to the repository's root, as in `src/shard/conn.rs`.
    pub path: String,
    /// As it is on disk.
    pub text: String,
    /// With spaces in the place of comments and of what literals hold.
    pub code: String,
}

/// A function's name, first line and length in lines, its closing brace included.
#[derive(Debug, PartialEq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// Every `.rs` file under the given folders of the repository, in the order of their paths.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| collect(&root.join(folder), &mut paths));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        Source { path, code: blanked(&text), text }
    };
    assert!(!paths.is_empty(), "no source under {folders:?}");
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// `text` with every character of comments and literals turned into a space, line ends excepted.
pub fn blanked(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let end = literal_end(&text, at);
        if end == at {
            code.push(text[at]);
            at += 1;
            continue;
        }
        code.extend(text[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1);
    let inside_word = at > 0 && is_word(text[at - 1]);
    match text[at] {
        '/' if next == Some(&'/') => position(text, at, |c| c == '\n'),
        '/' if next == Some(&'*') => block_comment_end(text, at),
        '"' => quoted_end(text, at, '"'),
        '\'' if is_character(text, at) => quoted_end(text, at, '\''),
        'r' | 'b' | 'c' if !inside_word => raw_string_end(text, at),
        _ => at,
    }
}

fn position(text: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    text[from..].iter().position(|&c| wanted(c)).map_or(text.len(), |found| from + found)
}

/// Block comments nest.
fn block_comment_end(text: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0, at);
    while end < text.len() {
        match (text[end], text.get(end + 1)) {
            ('/', Some('*')) => (depth, end) = (depth + 1, end + 2),
            ('*', Some('/')) => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
        if depth == 0 {
            return end;
        }
    }
    end
}

fn quoted_end(text: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < text.len() && text[end] != quote {
        end += if text[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(text.len())
}

/// A quote begins a character where an escape or a closing quote follows; a lifetime otherwise.
fn is_character(text: &[char], at: usize) -> bool {
    text.get(at + 1) == Some(&'\\') || (text.get(at + 1) != Some(&'\'') && text.get(at + 2) == Some(&'\''))
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`; not `r#name`, and not `b"…"`, whose quote comes by itself.
fn raw_string_end(text: &[char], at: usize) -> usize {
    let r = if text[at] == 'r' { at } else { at + 1 };
    if text.get(r) != Some(&'r') {
        return at;
    }
    let open = position(text, r + 1, |c| c != '#');
    if text.get(open) != Some(&'"') {
        return at;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', open - r - 1)).collect();
    let body = &text[open + 1..];
    let found = body.windows(close.len()).position(|window| window == close);
    found.map_or(text.len(), |found| open + 1 + found + close.len())
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Line of the byte `at`, from 1.
pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Where `word` stands by itself in `code`, as byte offsets.
pub fn words<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })
}

/// Every path that begins with `root` (`crate`, `corecast`, `std`), its root left out and groups
/// taken apart: `crate::{a::b, c}` is `a::b` and `c`. With the line of its root.
pub fn paths(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, root) {
        let mut names = Vec::new();
        follow(&code[at + root.len()..], "", &mut names);
        found.extend(names.into_iter().map(|name| (line_of(code, at), name)));
    }
    found
}

/// Adds what `rest` (behind a segment of `path`) leads to.
fn follow(rest: &str, path: &str, found: &mut Vec<String>) {
    let Some(rest) = rest.trim_start().strip_prefix("::") else {
        found.extend((!path.is_empty()).then(|| path.to_owned()));
        return;
    };
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
        if name.is_empty() {
            found.push(path.to_owned());
            return;
        }
        follow(&rest[name.len()..], &joined(path, &name), found);
        return;
    };
    for item in items(group) {
        let name: String = item.chars().take_while(|&c| is_word(c)).collect();
        follow(&item[name.len()..], &joined(path, &name), found);
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") }
}

/// The items of a group, up to its closing brace.
fn items(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                items.push(group[start..at].trim());
                break;
            }
            ',' if depth == 0 => {
                items.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// Every function with a body.
pub fn functions(code: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    for at in words(code, "fn") {
        let rest = &code[at + 2..];
        let name: String = rest.trim_start().chars().take_while(|&c| is_word(c)).collect();
        // `fn(u8) -> u8` is a type.
        if name.is_empty() {
            continue;
        }
        if let Some(body) = body(rest) {
            let lines = rest[..body].matches('\n').count() + 1;
            functions.push(Function { name, line: line_of(code, at), lines });
        }
    }
    functions
}

/// How far a function's closing brace is from `rest`; `None` for a declaration without a body.
fn body(rest: &str) -> Option<usize> {
    let (mut round, mut braces) = (0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' if braces == 0 => round += 1,
            ')' | ']' if braces == 0 => round -= 1,
            ';' if braces == 0 && round == 0 => return None,
            '{' if round == 0 => braces += 1,
            '}' if round == 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    panic!("a body without its closing brace");
}

mod tests {
    use super::*;

    #[test]
    fn comments_are_no_code_and_block_comments_nest() {
        assert_eq!(blanked("a // b {\nc"), "a       \nc");
        assert_eq!(blanked("a /* /* } */ */ c"), format!("a{}c", " ".repeat(15)));
        assert_eq!(blanked("/* never closed {"), " ".repeat(17));
    }

    #[test]
    fn strings_are_no_code_whatever_they_hold() {
        assert_eq!(blanked(r#"f("{ \" // ");"#), format!("f({});", " ".repeat(10)));
        assert_eq!(blanked(r##"f(r#"{" \"#);"##), format!("f({});", " ".repeat(9)));
        assert_eq!(blanked(r#"f(br"\", b"\"");"#), format!("f({}, b{});", " ".repeat(5), " ".repeat(4)));
        assert_eq!(blanked("f(\"{\n\\\n}\")"), "f(  \n \n  )");
    }

    #[test]
    fn characters_are_no_code_but_lifetimes_are() {
        assert_eq!(blanked(r"m('{', '\'', b'\\', '\u{7f}')"), "m(   ,     , b    ,         )");
        assert_eq!(blanked("fn f<'a>(x: &'a str, y: &'static [u8]) {}").matches('\'').count(), 3);
        assert_eq!(blanked("'outer: loop { break 'outer; }"), "'outer: loop { break 'outer; }");
    }

    #[test]
    fn a_raw_identifier_and_a_word_that_ends_in_r_begin_no_string() {
        assert_eq!(blanked("let r#fn = for_r; \"x\""), "let r#fn = for_r;    ");
        assert_eq!(blanked("bar\"x\""), "bar   ");
    }

    #[test]
    fn a_path_is_found_in_groups_and_over_lines() {
        let code = "use crate::{a::{b, c::*}, d};\nlet x = crate::e\n::f();";
        let names: Vec<String> = paths(code, "crate").into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a::b", "a::c", "d", "e::f"]);
        assert_eq!(paths("my_crate::a; crate_b::a; pub(crate) x", "crate"), []);
    }

    #[test]
    fn a_function_is_counted_from_fn_to_its_closing_brace() {
        let code =
            blanked("fn a() -> [u8; 2] {\n    let c = '{';\n    b(|| { 1 })\n}\nfn d();\ntype E = fn(u8);");
        assert_eq!(functions(&code), [Function { name: "a".to_owned(), line: 1, lines: 4 }]);
    }

    #[test]
    fn a_function_inside_a_function_counts_by_itself_too() {
        let functions = functions("fn a() {\nfn b() {\n}\n}\n");
        let lengths: Vec<(&str, usize)> = functions.iter().map(|f| (f.name.as_str(), f.lines)).collect();
        assert_eq!(lengths, [("a", 4), ("b", 2)]);
    }
}
