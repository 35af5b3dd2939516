//! A flame graph: stacks that were sampled, put together and drawn as one SVG file.
//!
//! Each frame is as wide as it was often on a stack; what it calls stands on it. Pure: `profile` brings the stacks.

use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const ROW: usize = 17;
const HEAD: usize = 32;
/// Narrower frames could not be seen, and there may be thousands.
const WIDTH_MIN: f64 = 0.4;
/// Of one letter of the font.
const LETTER: f64 = 6.7;

/// A function, where it was called.
#[derive(Debug, Default)]
struct Frame {
    samples: u64,
    /// In which it was the innermost.
    own: u64,
    is_kernel: bool,
    calls: BTreeMap<String, Frame>,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) name: String,
    pub(super) is_kernel: bool,
}

/// All stacks.
#[derive(Debug, Default)]
pub(super) struct Flame {
    root: Frame,
}

impl Flame {
    /// Adds one sample of `thread`; `stack` has the innermost frame first.
    pub(super) fn add(&mut self, thread: &str, stack: &[Called]) {
        let thread = Called { name: thread.to_owned(), is_kernel: false };
        let mut at = &mut self.root;
        at.samples += 1;
        for called in std::iter::once(&thread).chain(stack.iter().rev()) {
            at = at.calls.entry(called.name.clone()).or_default();
            at.samples += 1;
            at.is_kernel = called.is_kernel;
        }
        at.own += 1;
    }

    pub(super) fn samples(&self) -> u64 {
        self.root.samples
    }

    /// Functions by how often they ran themselves, the most frequent first.
    pub(super) fn own(&self) -> Vec<(String, u64)> {
        let mut own = BTreeMap::new();
        count_own(&self.root, &mut own);
        let mut own: Vec<_> = own.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        own.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        own
    }

    /// The picture, with a heading.
    pub(super) fn svg(&self, heading: &str) -> String {
        let rows = depth(&self.root);
        let height = HEAD + rows * ROW + 8;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <style>rect {{ stroke: #fff; stroke-width: .5 }} g:hover rect {{ stroke: #000 }}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"6\" y=\"20\" font-size=\"14\">{}</text>\n",
            escaped(heading)
        );
        let scale = (WIDTH - 12.0) / self.root.samples.max(1) as f64;
        let drawing = Drawing { all: self.root.samples, scale, bottom: height - 8 };
        drawing.draw(&mut svg, "all", &self.root, (6.0, 0));
        svg + "</svg>\n"
    }
}

fn count_own<'f>(frame: &'f Frame, own: &mut BTreeMap<&'f str, u64>) {
    for (name, called) in &frame.calls {
        if called.own > 0 {
            *own.entry(name).or_default() += called.own;
        }
        count_own(called, own);
    }
}

/// Rows that a frame takes, its own included.
fn depth(frame: &Frame) -> usize {
    1 + frame.calls.values().map(depth).max().unwrap_or(0)
}

struct Drawing {
    all: u64,
    /// Width of one sample.
    scale: f64,
    bottom: usize,
}

impl Drawing {
    /// Draws `frame` from `x` on, `row` rows above the bottom, and what stands on it.
    fn draw(&self, svg: &mut String, name: &str, frame: &Frame, (x, row): (f64, usize)) {
        let width = frame.samples as f64 * self.scale;
        if width < WIDTH_MIN {
            return;
        }
        let y = self.bottom - (row + 1) * ROW;
        let percent = 100.0 * frame.samples as f64 / self.all.max(1) as f64;
        let (title, colour) = (escaped(name), colour(name, frame.is_kernel));
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<g><title>{title}: {} samples, {percent:.1} %</title><rect x=\"{x:.1}\" y=\"{y}\" \
             width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>",
            frame.samples,
            ROW - 1
        );
        let room = ((width - 6.0) / LETTER) as usize;
        if room >= 3 {
            // The end of a path says more than its beginning.
            let shown: String = name.chars().skip(name.chars().count().saturating_sub(room)).collect();
            let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\">{}</text>", x + 3.0, y + 12, escaped(&shown));
        }
        svg.push_str("</g>\n");
        let mut x = x;
        for (name, called) in &frame.calls {
            self.draw(svg, name, called, (x, row + 1));
            x += called.samples as f64 * self.scale;
        }
    }
}

/// Warm for the program, blue for the kernel; one name has one colour.
fn colour(name: &str, is_kernel: bool) -> String {
    let mixed = name.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let (hue, light) = if is_kernel { (205 + mixed % 25, 72) } else { (18 + mixed % 35, 66) };
    format!("hsl({hue} 75% {}%)", light + mixed / 64 % 10)
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            // XML 1.0 has no way to write most of them.
            c if c.is_control() => safe.push('?'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str]) -> Vec<Called> {
        let called = |name: &&str| Called { name: (*name).to_owned(), is_kernel: name.starts_with("tcp") };
        names.iter().map(called).collect()
    }

    fn flame() -> Flame {
        let mut flame = Flame::default();
        flame.add("shard-0", &stack(&["tcp_sendmsg", "Shard::send", "Shard::turn"]));
        flame.add("shard-0", &stack(&["tcp_sendmsg", "Shard::send", "Shard::turn"]));
        flame.add("shard-0", &stack(&["<T as Deref>::deref", "Shard::turn"]));
        flame.add("control", &stack(&["tcp_sendmsg"]));
        flame
    }

    #[test]
    fn issue_7_a_frame_is_as_wide_as_it_was_often_on_a_stack() {
        let svg = flame().svg("a & b");
        let width = |name: &str| {
            let group = svg.lines().find(|line| line.contains(&format!("<title>{name}: "))).unwrap();
            let width = group.split("width=\"").nth(1).unwrap().split('"').next().unwrap();
            width.parse::<f64>().unwrap()
        };
        assert_eq!((width("all"), width("shard-0"), width("Shard::send")), (1188.0, 891.0, 594.0));
        assert_eq!(width("&lt;T as Deref&gt;::deref"), 297.0);
        assert!(svg.contains("<title>Shard::turn: 3 samples, 75.0 %</title>") && svg.contains("a &amp; b"));
    }

    #[test]
    fn issue_7_what_ran_itself_is_counted_over_all_threads() {
        let own = flame().own();
        assert_eq!(own, [("tcp_sendmsg".to_owned(), 3), ("<T as Deref>::deref".to_owned(), 1)]);
    }

    #[test]
    fn issue_7_the_picture_is_well_formed_whatever_functions_are_called() {
        let mut flame = Flame::default();
        flame.add("a\u{1}b", &stack(&["</title><script>\"&'", "operator<"]));
        let svg = flame.svg("x");
        assert!(!svg.contains("<script>") && !svg.chars().any(|c| c.is_control() && c != '\n'), "{svg}");
        let opened = svg.matches("<g>").count();
        assert_eq!((opened, svg.matches("</g>").count(), svg.matches("<title>").count()), (4, 4, 4));
    }
}
