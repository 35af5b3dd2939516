//! Every kept input through its target: `seeds`, written by hand and named after what they are, and `corpus`,
//! what the fuzzer found and `fuzz/run` has minimised.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use super::targets::TARGETS;

const FOLDERS: [&str; 2] = ["seeds", "corpus"];

/// All inputs together: they are in the repository.
const BYTES_MAX: u64 = 512 * 1024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Paths below `folder`, by name.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn issue_6_every_input_that_is_kept_holds() {
    let (mut failed, mut bytes) = (Vec::new(), 0);
    for (name, check) in TARGETS {
        for folder in FOLDERS {
            let inputs = entries(&root().join(folder).join(name));
            assert!(!inputs.is_empty(), "no input in fuzz/{folder}/{name}");
            for path in inputs {
                let input = fs::read(&path).unwrap();
                bytes += input.len() as u64;
                failed.extend(catch_unwind(|| check(&input)).is_err().then_some(path));
            }
        }
    }
    assert!(failed.is_empty(), "fails: {failed:#?}");
    assert!(bytes <= BYTES_MAX, "{bytes} bytes of inputs: `fuzz/run` minimises them");
}

#[test]
fn issue_6_every_target_has_a_program_inputs_and_a_line_in_the_table() {
    let named = TARGETS.map(|(name, _)| name.to_owned()).to_vec();
    let stems = |folder: &str| -> Vec<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(&root().join(folder)).into_iter().map(stem).collect()
    };
    for folder in FOLDERS.iter().chain(&["fuzz_targets"]) {
        assert_eq!(stems(folder), named, "fuzz/{folder}");
    }
    let cargo: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let programs = cargo["bin"].as_array().unwrap().iter();
    assert_eq!(programs.map(|bin| bin["name"].as_str().unwrap()).collect::<Vec<_>>(), named);
    for name in named {
        let program = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("corecast_fuzz::{name}::check(input)")), "{name} runs another");
    }
}
