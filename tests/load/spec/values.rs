//! `request::values`: what each variable of a template becomes.

use crate::request::template::Template;
use crate::request::values::{Values, is_known};
use crate::request::variables::Variables;

fn rendered(text: &str, values: &Values<'_>) -> String {
    values.render(&Template::parse(text).unwrap())
}

#[test]
fn builtins_are_what_the_connection_and_the_message_are() {
    let values = Values {
        number: 7,
        group: 3,
        to: "bob",
        payload: "hi",
        next: "0-1",
        random: 255,
        ..Values::default()
    };
    let text = "{{number}} {{number:4}} {{group}} {{to}} {{payload}} {{next}} {{random}}";
    assert_eq!(rendered(text, &values), "7 0007 3 bob hi 0-1 00000000000000ff");
}

#[test]
fn columns_are_those_of_the_connections_row() {
    let variables = Variables::read("users.csv", "user,token\nann,a b\nbob,c\n".as_bytes()).unwrap();
    let values = Values { number: 2, variables: Some(&variables), ..Values::default() };
    assert_eq!(rendered("?user={{user}}&token={{token|url}}", &values), "?user=ann&token=a%20b");
    assert!(is_known("token", Some(&variables)) && is_known("number", None) && !is_known("token", None));
}

#[test]
fn a_publishers_user_goes_before_a_column_of_that_name() {
    let variables = Variables::read("users.csv", "user\nann\n".as_bytes()).unwrap();
    let values = Values { user: Some("u7"), variables: Some(&variables), ..Values::default() };
    assert_eq!(rendered("{{user}}", &values), "u7");
}
