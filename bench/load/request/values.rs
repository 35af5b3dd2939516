//! What the variables of a template are for one connection and one message.

use std::borrow::Cow;

use super::template::{BUILTINS, Template};
use super::variables::Variables;

/// The values at hand; what does not apply is left at its default and renders as nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    /// `{{number}}`: the connection's, over all workers; also its row of the CSV.
    pub number: u32,
    /// `{{group}}`.
    pub group: u32,
    /// `{{to}}`.
    pub to: &'a str,
    /// `{{payload}}`.
    pub payload: &'a str,
    /// `{{next}}`.
    pub next: &'a str,
    /// `{{random}}`, in hexadecimal.
    pub random: u64,
    /// `{{user}}` of a publisher's templates; elsewhere the CSV may have one.
    pub user: Option<&'a str>,
    /// The CSV.
    pub variables: Option<&'a Variables>,
}

impl Values<'_> {
    /// The template with its variables put in.
    pub fn render(&self, template: &Template) -> String {
        let mut out = Vec::new();
        template.render(&|name| self.value(name), &mut out);
        String::from_utf8(out).expect("templates and their values are UTF-8")
    }

    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(match name {
            "number" => self.number.to_string().into(),
            "group" => self.group.to_string().into(),
            "to" => self.to.into(),
            "payload" => self.payload.into(),
            "next" => self.next.into(),
            "random" => format!("{:016x}", self.random).into(),
            "user" if self.user.is_some() => self.user?.into(),
            column => self.variables?.value(self.number, column)?.into(),
        })
    }
}

/// Whether something is called `name`.
pub fn is_known(name: &str, variables: Option<&Variables>) -> bool {
    BUILTINS.contains(&name)
        || variables.is_some_and(|variables| variables.names().iter().any(|column| column == name))
}
