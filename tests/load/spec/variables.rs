//! `request::variables`: a CSV file, a row for each connection.

use proptest::prelude::*;

use crate::request::variables::Variables;

fn read(text: &str) -> Variables {
    Variables::read("users.csv", text.as_bytes()).unwrap()
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>) -> String {
    Variables::read("users.csv", text.as_ref()).unwrap_err().to_string()
}

#[test]
fn connections_use_the_rows_in_turn() {
    let variables = read("user,token\na,1\nb,2\nc,3\n");
    assert_eq!(variables.names(), ["user", "token"]);
    let users: Vec<_> = (0..7).map(|number| variables.value(number, "user").unwrap()).collect();
    assert_eq!(users, ["a", "b", "c", "a", "b", "c", "a"]);
    assert_eq!(variables.value(u32::MAX, "token"), Some("1"), "4,294,967,295 is a multiple of 3");
    assert_eq!(variables.value(0, "other"), None);
}

#[test]
fn rfc4180_2_cells_may_hold_quotes_commas_and_newlines() {
    let variables = read("user,message\r\n\"a, b\",\"say \"\"hi\"\"\r\nand go\"\r\n,last");
    assert_eq!(variables.value(0, "user"), Some("a, b"));
    assert_eq!(variables.value(0, "message"), Some("say \"hi\"\r\nand go"));
    assert_eq!(variables.value(1, "user"), Some(""));
    assert_eq!(variables.value(1, "message"), Some("last"));
}

#[test]
fn spaces_around_names_and_a_byte_order_mark_are_not_theirs() {
    let variables = read("\u{feff}user, token \n a ,1\n");
    assert_eq!(variables.names(), ["user", "token"]);
    assert_eq!(variables.value(0, "user"), Some(" a "));
}

#[test]
fn errors_name_the_file_and_the_line() {
    assert_eq!(
        refused("user,token\na,1\nb\n"),
        "users.csv, line 3: 1 field where the first line has 2 fields"
    );
    assert_eq!(
        refused("a,b\n\"x\ny\",1\n1,2,3\n"),
        "users.csv, line 4: 3 fields where the first line has 2 fields"
    );
    assert_eq!(refused(b"user\nok\n\xff\n"), "users.csv, line 3: not UTF-8");
    assert_eq!(refused(b"us\xff\nok\n"), "users.csv, line 1: not UTF-8");
}

#[test]
fn a_file_without_rows_is_refused() {
    assert_eq!(refused(""), "users.csv, line 1: it is empty: the first line names the variables");
    let no_rows = "users.csv: it has no rows: one line per connection follows the names";
    assert_eq!(refused("user,token\n"), no_rows);
}

#[test]
fn a_name_stands_for_one_column() {
    assert_eq!(refused("a,b,a\n1,2,3\n"), "users.csv, line 1: two columns are named \"a\"");
    let own = "users.csv, line 1: {{number}} is the tool's own: name the column otherwise";
    assert_eq!(refused("user,number\na,1\n"), own);
    let no_name = "users.csv, line 1: \"user id\" is no name: letters, digits, '_', '-' and '.'";
    assert_eq!(refused("user id,b\na,1\n"), no_name);
    assert!(refused("a,,b\n1,2,3\n").contains("\"\" is no name"));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let error = Variables::read("users.csv", Broken).unwrap_err();
    assert_eq!(error.to_string(), "users.csv: the disk is gone");
}

proptest! {
    #[test]
    fn rows_come_out_as_they_went_in(
        rows in proptest::collection::vec(("[a-z\",\n\r ]{0,8}", "\\PC{0,8}"), 1..20), number: u32,
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["one", "two"]).unwrap();
        rows.iter().for_each(|(one, two)| writer.write_record([one, two]).unwrap());
        let file = writer.into_inner().unwrap();
        let variables = Variables::read("users.csv", &file[..]).unwrap();
        let (one, two) = &rows[number as usize % rows.len()];
        prop_assert_eq!(variables.value(number, "one"), Some(&**one));
        prop_assert_eq!(variables.value(number, "two"), Some(&**two));
    }
}
