//! What the runner of Rust's tests says of those that failed, gathered while it passes by. Thousands of
//! lines of other tests may follow a failure; who reads only the end of a log must find its cause there.

/// Of what a panic says, so many lines from its beginning and from its end, where it may quote a log; the
/// rest stands further up.
const FIRST: usize = 4;
const LAST: usize = 16;

/// Reads the runner's output line by line.
#[derive(Debug, Default)]
pub(super) struct Failures {
    found: Vec<Failure>,
    place: Place,
}

/// A test that failed.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    test: String,
    /// From the line that names the place of the panic.
    said: Vec<String>,
    /// Lines left out after the first.
    left_out: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    /// Where nothing is told of failures.
    #[default]
    Elsewhere,
    /// In what a test printed, before its panic.
    Printed,
    /// In what its panic says.
    Panic,
}

impl Failures {
    /// The next line, without its end.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(test) = failed_test(line) {
            self.place = Place::Printed;
            self.found.push(Failure {
                test: test.to_owned(),
                said: Vec::new(),
                left_out: 0,
            });
            return;
        }
        // The list of names that the runner ends with, and its sum.
        if line == "failures:" || line.starts_with("test result: ") {
            self.place = Place::Elsewhere;
        }
        if is_panic(line) && self.place == Place::Printed {
            self.place = Place::Panic;
        }
        // The calls that led there, or how to have them shown.
        if line.starts_with("stack backtrace:") || line.starts_with("note: ") {
            self.place = Place::Elsewhere;
        }
        if let (Place::Panic, Some(failure)) = (&self.place, self.found.last_mut())
            && !line.is_empty()
        {
            failure.said.push(line.to_owned());
            if failure.said.len() > FIRST + LAST {
                failure.said.remove(FIRST);
                failure.left_out += 1;
            }
        }
    }

    /// Each test that failed with what its panic says, a line each; nothing if none did.
    pub(super) fn summary(&self) -> String {
        let mut summary = String::new();
        for failure in &self.found {
            summary += &format!("{} failed\n", failure.test);
            for (number, line) in failure.said.iter().enumerate() {
                if number == FIRST && failure.left_out > 0 {
                    summary += &format!("    [{} lines more]\n", failure.left_out);
                }
                summary += &format!("    {line}\n");
            }
        }
        summary
    }
}

/// The test whose output begins after this line.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// `thread 'name' (number) panicked at file:line:column:`
fn is_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains(" panicked at ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str) -> String {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.line(line));
        failures.summary()
    }

    /// As the runner of this toolchain prints it, beside tests that pass.
    #[test]
    fn causes_are_found() {
        let output = "\
running 3 tests
test a::passes ... ok
test a::fails ... FAILED
test a::gives_up ... FAILED

failures:

---- a::fails stdout ----
healthy after 2.4s

thread 'a::fails' (6411) panicked at tests/tests/e2e/a.rs:282:5:
assertion `left == right` failed: two
  left: 1
 right: 2
stack backtrace:
   0: std::panicking::begin_panic_handler

---- a::gives_up stdout ----

thread 'a::gives_up' (6412) panicked at tests/tests/e2e/a.rs:9:5:
gave up waiting
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace


failures:
    a::fails
    a::gives_up

test result: FAILED. 1 passed; 2 failed; 0 ignored

thread 'of something else' panicked at elsewhere
";
        assert_eq!(
            summary(output),
            "\
a::fails failed
    thread 'a::fails' (6411) panicked at tests/tests/e2e/a.rs:282:5:
    assertion `left == right` failed: two
      left: 1
     right: 2
a::gives_up failed
    thread 'a::gives_up' (6412) panicked at tests/tests/e2e/a.rs:9:5:
    gave up waiting
"
        );
    }

    #[test]
    fn a_long_cause_is_cut_and_an_error_has_none() {
        let lines: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let panic = format!("---- a stdout ----\nthread 'a' panicked at a.rs:1:1:\n{lines}");
        let cut = summary(&panic);
        assert_eq!(cut.lines().count(), 1 + FIRST + 1 + LAST);
        assert!(
            cut.contains("    line 2\n    [81 lines more]\n    line 84\n"),
            "{cut}"
        );
        assert!(cut.ends_with("    line 99\n"), "{cut}");
        assert_eq!(summary("---- a stdout ----\nError: x\n"), "a failed\n");
        assert_eq!(summary("test a ... ok\n\ntest result: ok. 1 passed\n"), "");
    }

    /// A test of this package that fails on purpose would be one that fails; so this asks the runner itself.
    #[test]
    fn this_runner_prints_what_is_looked_for() {
        let directory = std::env::temp_dir().join(format!("lb-failures-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (source, program) = (directory.join("a.rs"), directory.join("a"));
        std::fs::write(&source, "#[test] fn fails() { assert_eq!(1, 2, \"why\"); }").unwrap();
        let built = std::process::Command::new("rustc")
            .arg("--test")
            .arg("-o")
            .args([&program, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{built:?}");
        let ran = std::process::Command::new(&program).output().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let summary = summary(&String::from_utf8(ran.stdout).unwrap());
        assert!(summary.starts_with("fails failed\n"), "{summary}");
        assert!(
            summary.ends_with("left == right` failed: why\n      left: 1\n     right: 2\n"),
            "{summary}"
        );
    }
}
