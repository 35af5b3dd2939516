//! Columns, numbers and ages for people at a terminal of 80 columns. Programs ask for `--json`.

use std::time::Duration;

/// Widest line where it can be helped.
const COLUMNS_MAX: usize = 80;

/// Aligns `rows`, the first of them the heads: columns of numbers to the right, except the first, the
/// others to the left. Every row has as many cells as the first.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let number = |cell: &str| cell.chars().all(|c| c.is_ascii_digit() || c == ',');
    let numbers = |column: usize| rows.len() > 1 && rows[1..].iter().all(|row| number(&row[column]));
    let right: Vec<bool> = (0..columns).map(|column| column > 0 && numbers(column)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &if right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line += "  ";
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// `items` with commas, as many as fit beside `taken` columns but at least one; the rest is counted.
pub(super) fn listed(items: &[&str], taken: usize) -> String {
    let room = COLUMNS_MAX.saturating_sub(taken);
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let rest = format!(", and {} more", items.len() - index);
        let needed = text.chars().count() + 2 + item.chars().count();
        let last = index + 1 == items.len();
        if index > 0 && needed + if last { 0 } else { rest.chars().count() } > room {
            return text + &rest;
        }
        if index > 0 {
            text += ", ";
        }
        text += item;
    }
    text
}

/// `1,048,576`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 connection`, `3 connections`
pub(super) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// The two largest units: `3d 4h`, `5m 2s`, `0s`.
pub(super) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// `32.0 KiB`, `8.00 GiB`: three digits, whole bytes below 1 KiB.
pub(super) fn bytes_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    let decimals = match value {
        _ if unit == "B" => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// The largest unit: `3d`, `5m`, `0s`.
pub(super) fn short_age(duration: Duration) -> String {
    let whole = age(duration);
    whole.split(' ').next().unwrap_or_default().to_owned()
}

/// `text` in what is left beside `taken` columns, at least 8; what does not fit is cut.
pub(super) fn cut(text: &str, taken: usize) -> String {
    let room = COLUMNS_MAX.saturating_sub(taken).max(8);
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}

/// `text` in lines that fit, each `indent` spaces in.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    let (mut lines, mut column) = (String::new(), COLUMNS_MAX);
    for word in text.split(' ') {
        let columns = word.chars().count();
        if column + 1 + columns > COLUMNS_MAX {
            lines += if lines.is_empty() { "" } else { "\n" };
            lines += &" ".repeat(indent);
            column = indent;
        } else {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += columns;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let pairs = [(0, "0"), (999, "999"), (1000, "1,000"), (1_048_576, "1,048,576")];
        for (number, text) in pairs {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn an_age_shows_its_two_largest_units() {
        let pairs = [(0, "0s"), (59, "59s"), (62, "1m 2s"), (3600, "1h 0m"), (90_061, "1d 1h")];
        for (seconds, text) in pairs {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn issue_7_long_texts_are_cut_or_wrapped_at_80_columns() {
        assert_eq!((cut("abc", 70), cut("0123456789abc", 70)), ("abc".to_owned(), "012345678…".to_owned()));
        assert_eq!(cut("0123456789", 200), "0123456…");
        let text = wrapped(&["0123456789"; 14].join(" "), 4);
        let line = format!("    {}\n", ["0123456789"; 7].join(" "));
        // 4 and seven words are 80 exactly.
        assert_eq!(text, line.repeat(2));
        assert_eq!(short_age(Duration::from_secs(90_061)), "1d");
    }

    #[test]
    fn words_stand_left_numbers_right_and_no_line_ends_in_spaces() {
        let rows = [["TOPIC", "CONNECTIONS"], ["news", "12"], ["größe", "1,000"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "TOPIC  CONNECTIONS\nnews            12\ngröße        1,000\n");
    }

    #[test]
    fn a_list_that_does_not_fit_80_columns_is_counted_to_its_end() {
        assert_eq!(listed(&["a", "b"], 70), "a, b");
        let names = ["0123456789"; 10];
        let text = listed(&names, 30);
        assert_eq!(text, "0123456789, 0123456789, 0123456789, and 7 more");
        assert!(30 + text.len() <= 80);
    }
}
