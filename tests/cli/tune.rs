//! `corecast tune` on a directory that stands in for the root, so that the host is never touched.
//! tests/vm/tune.sh does it for real, with a reboot.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::{assert_usage, corecast, run, stderr, stdout};

/// What a Debian 12 host with 3 GB has (measured in the guest), with a firewall.
const VALUES: [(&str, &str); 7] = [
    ("kernel.io_uring_disabled", "0\n"),
    ("fs.nr_open", "1048576\n"),
    ("fs.file-max", "9223372036854775807\n"),
    ("net.core.somaxconn", "4096\n"),
    ("net.ipv4.tcp_mem", "32814\t43752\t65628\n"),
    ("net.core.wmem_max", "212992\n"),
    ("net.netfilter.nf_conntrack_max", "65536\n"),
];

/// A root of its own.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for (key, value) in VALUES {
            let path = root.key(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        fs::create_dir_all(root.path("etc/sysctl.d")).unwrap();
        fs::create_dir_all(root.path("var/lib")).unwrap();
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn key(&self, key: &str) -> PathBuf {
        self.path("proc/sys").join(key.replace('.', "/"))
    }

    fn value(&self, key: &str) -> String {
        fs::read_to_string(self.key(key)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn file(&self) -> PathBuf {
        self.path("etc/sysctl.d/99-corecast.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        corecast(&["tune", "--root"]).arg(self.0.path()).args(arguments).output().unwrap()
    }

    /// Must do it.
    #[track_caller]
    fn tuned(&self, arguments: &[&str]) -> String {
        let output = self.tune(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).to_owned()
    }

    /// Must refuse to, with this on standard error.
    #[track_caller]
    fn refused(&self, arguments: &[&str], part: &str) {
        let output = self.tune(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }

    /// Every file below the root with its text.
    fn everything(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.0.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    // An empty one is something that was left behind, too.
                    files.insert(path.clone(), String::new());
                    directories.push(path);
                } else {
                    let words = fs::read_to_string(&path).unwrap();
                    files.insert(path, words.split_whitespace().collect::<Vec<_>>().join(" "));
                }
            }
        }
        files
    }
}

const MILLION: [&str; 2] = ["--connections", "1000000"];
const APPLY: [&str; 3] = ["--connections", "1000000", "--apply"];

#[test]
fn without_apply_the_difference_is_shown_and_nothing_changes() {
    let root = Root::new();
    let before = root.everything();
    let shown = root.tuned(&MILLION);
    let line = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("net.core.somaxconn"), "net.core.somaxconn 4096 33334 33334");
    assert_eq!(line("fs.nr_open"), "fs.nr_open 1048576 1010101 as it is");
    assert!(shown.contains("nothing is changed; corecast tune --connections 1000000 --apply"), "{shown}");
    assert_eq!(root.everything(), before);
}

#[test]
fn apply_writes_the_file_and_sets_the_values_it_names() {
    let root = Root::new();
    let printed = root.tuned(&["--print", "--connections", "1000000"]);
    let said = root.tuned(&APPLY);
    assert!(said.contains("net.core.somaxconn = 33334, was 4096\n"), "{said}");
    assert!(said.contains("restart the gateway"), "{said}");
    assert_eq!(root.text(), printed);
    assert_eq!(root.value("net.core.somaxconn"), "33334");
    assert_eq!(root.value("net.ipv4.tcp_mem"), "750000 1000000 1500000");
    assert_eq!(root.value("net.netfilter.nf_conntrack_max"), "1065536");
    // Enough already: not lowered, and no line.
    assert_eq!(root.value("fs.nr_open"), "1048576");
    assert!(!printed.contains("\nfs.nr_open") && !printed.contains("\nfs.file-max"), "{printed}");
}

#[test]
fn more_than_the_memory_holds_is_said() {
    let root = Root::new();
    let shown = root.tuned(&["--connections", "4294967295"]);
    assert!(shown.contains("\nthe memory of this host has room for "), "{shown}");
    assert!(!root.tuned(&["--connections", "1"]).contains("has room for"));
}

#[test]
fn applying_twice_is_applying_once() {
    let root = Root::new();
    root.tuned(&APPLY);
    let after = root.everything();
    let said = root.tuned(&APPLY);
    assert!(said.contains("the host was tuned for 1,000,000 connections already"), "{said}");
    assert_eq!(root.everything(), after);
}

#[test]
fn undo_leaves_everything_as_it_was_however_often_it_was_applied() {
    let root = Root::new();
    let before = root.everything();
    for connections in ["1000000", "1000", "300000", "2000000"] {
        root.tuned(&["--connections", connections, "--apply"]);
    }
    assert_eq!(root.value("net.core.somaxconn"), "66667");
    let said = root.tuned(&["--undo"]);
    assert!(said.contains("net.core.somaxconn = 4096, was 66667\n"), "{said}");
    assert_eq!(root.everything(), before);
    root.refused(&["--undo"], "nothing to undo");
}

#[test]
fn a_smaller_need_gives_back_what_it_does_not_need() {
    let root = Root::new();
    root.tuned(&APPLY);
    root.tuned(&["--connections", "1000", "--apply"]);
    assert_eq!(root.value("net.core.somaxconn"), "4096");
    assert_eq!(root.value("net.ipv4.tcp_mem"), "32814 43752 65628");
    assert_eq!(root.value("net.netfilter.nf_conntrack_max"), "66536");
}

#[test]
fn a_value_that_somebody_raised_since_is_not_lowered() {
    let root = Root::new();
    root.tuned(&APPLY);
    fs::write(root.key("net.core.somaxconn"), "65535\n").unwrap();
    root.tuned(&APPLY);
    assert_eq!(root.value("net.core.somaxconn"), "65535");
    assert!(root.text().contains("# Left as it is: 65535, enough for 33334."), "{}", root.text());
    root.tuned(&["--undo"]);
    assert_eq!(root.value("net.core.somaxconn"), "65535");
}

#[test]
fn undo_puts_another_file_of_that_name_back() {
    let root = Root::new();
    fs::write(root.file(), "vm.swappiness = 1\n").unwrap();
    let before = root.everything();
    root.tuned(&APPLY);
    assert!(!root.text().contains("vm.swappiness = 1"));
    root.tuned(&["--undo"]);
    assert_eq!(root.text(), "vm.swappiness = 1\n");
    assert_eq!(root.everything(), before);
}

#[test]
fn a_file_that_was_edited_since_is_kept_by_apply_and_by_undo() {
    for arguments in [&APPLY[..], &["--undo"]] {
        let root = Root::new();
        root.tuned(&APPLY);
        let edited = root.text() + "net.core.busy_poll = 50\n";
        fs::write(root.file(), &edited).unwrap();
        let said = root.tuned(arguments);
        assert!(said.contains("it had been edited since"), "{said}");
        let kept = fs::read_to_string(root.path("var/lib/corecast/99-corecast.conf.edited")).unwrap();
        assert_eq!(kept, edited);
    }
}

#[test]
fn a_read_only_proc_sys_is_found_out_before_anything_changes() {
    let root = Root::new();
    // Three numbers that not even root may write.
    fs::remove_file(root.key("net.ipv4.tcp_mem")).unwrap();
    symlink("/proc/sys/fs/file-nr", root.key("net.ipv4.tcp_mem")).unwrap();
    root.refused(&APPLY, "net.ipv4.tcp_mem cannot be written");
    root.refused(&APPLY, "likely cause: this is a container");
    assert_eq!(root.value("net.core.somaxconn"), "4096");
    assert!(!root.file().exists() && !root.path("var/lib/corecast").exists());
}

#[test]
fn a_value_that_the_kernel_refuses_puts_the_others_back() {
    let root = Root::new();
    fs::write(root.key("fs.nr_open"), "65536\n").unwrap();
    // Takes -1000 to 1000, and is of the program's own process only.
    fs::remove_file(root.key("net.core.somaxconn")).unwrap();
    symlink("/proc/self/oom_score_adj", root.key("net.core.somaxconn")).unwrap();
    root.refused(&APPLY, "the kernel refused net.core.somaxconn = 33334");
    assert_eq!(root.value("fs.nr_open"), "65536");
    assert!(!root.file().exists() && !root.path("var/lib/corecast").exists());
    root.refused(&["--undo"], "nothing to undo");
}

#[test]
fn a_file_that_cannot_be_written_puts_the_values_back() {
    let root = Root::new();
    fs::remove_dir(root.path("etc/sysctl.d")).unwrap();
    fs::write(root.path("etc/sysctl.d"), "").unwrap();
    let before = root.everything();
    root.refused(&APPLY, "everything is as it was before");
    assert_eq!(root.everything(), before);
}

#[test]
fn a_record_that_cannot_be_read_stops_everything() {
    let root = Root::new();
    root.tuned(&APPLY);
    fs::write(root.path("var/lib/corecast/tune.json"), "{").unwrap();
    let after = root.everything();
    root.refused(&["--undo"], "tune.json");
    root.refused(&APPLY, "tune.json");
    assert_eq!(root.everything(), after);
}

#[test]
fn another_user_than_root_is_refused_before_anything_is_looked_at() {
    for arguments in [&["tune", "--apply", "--connections", "1000000"][..], &["tune", "--undo"]] {
        let mut command = corecast(arguments);
        if rustix::process::geteuid().is_root() {
            // A copy that this user may run, wherever the checkout lies.
            let directory = tempfile::tempdir_in("/tmp").unwrap();
            let copy = directory.path().join("corecast");
            open_to_all(directory.path());
            fs::copy(env!("CARGO_BIN_EXE_corecast"), &copy).unwrap();
            command = std::process::Command::new(&copy);
            command.args(arguments).env_clear().uid(65_534).gid(65_534);
            assert_only_root(&command.output().unwrap());
        } else {
            assert_only_root(&command.output().unwrap());
        }
    }
}

fn open_to_all(directory: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory, mode).unwrap();
}

#[track_caller]
fn assert_only_root(output: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}", stderr(output));
    assert!(stderr(output).contains("only root may change kernel settings"), "{}", stderr(output));
}

#[test]
fn tune_as_json_has_every_setting_and_what_was_done() {
    let root = Root::new();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let shown = json(&root.tuned(&["--json", "--connections", "1000000"]));
    assert_eq!(shown["connections"], 1_000_000);
    let somaxconn = &shown["settings"].as_array().unwrap()[3];
    assert_eq!(somaxconn["key"], "net.core.somaxconn");
    assert_eq!((&somaxconn["now"][0], &somaxconn["profile"][0]), (&4096.into(), &33_334.into()));
    let done = json(&root.tuned(&["--json", "--connections", "1000000", "--apply"]));
    assert_eq!(done["file"]["done"], "written");
    assert_eq!(done["values"].as_array().unwrap().len(), 3);
    let undone = json(&root.tuned(&["--json", "--undo"]));
    assert_eq!(undone["file"]["done"], "removed");
}

#[test]
fn contract_4_wrong_usage_of_tune_is_status_2() {
    assert_usage(&["tune", "--undo", "--apply"], "cannot be used with");
    assert_usage(&["tune", "--connections", "0"], "--connections");
    assert_usage(&["tune", "--print", "--apply"], "cannot be used with");
    assert!(!stdout(&run(&["tune", "--help"])).contains("--root"));
}
