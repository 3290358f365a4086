//! What the guest printed, taken apart again: steps, and the tests in them. Only what is seen to
//! have passed has passed.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

const MARK: &str = "@@";

/// Lines of the kernel's that no test may cause.
const FAULTS: [&str; 5] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "Kernel panic",
    "general protection fault",
];

/// A line for the guest's shell that marks where a step begins.
pub(crate) fn begin(step: &str) -> String {
    format!("echo '{MARK} begin {step}'")
}

/// A line for the guest's shell that marks where a step has ended, with its exit code.
pub(crate) fn end(step: &str) -> String {
    // The output may lack its last line break.
    format!("code=$?; echo; echo \"{MARK} end {step} $code\"")
}

/// The steps that have begun, in their order.
pub(crate) fn begun(transcript: &str) -> impl Iterator<Item = &str> {
    transcript
        .lines()
        .filter_map(|line| line.strip_prefix(MARK)?.strip_prefix(" begin "))
}

/// What a step printed, and its exit code.
///
/// # Errors
/// The guest never began the step, or did not get to its end.
pub(crate) fn step<'a>(transcript: &'a str, name: &str) -> Result<(&'a str, i32)> {
    let (_, rest) = transcript
        .split_once(&format!("{MARK} begin {name}\n"))
        .with_context(|| format!("the guest did not begin the step `{name}`"))?;
    let (printed, rest) = rest
        .split_once(&format!("{MARK} end {name} "))
        .with_context(|| format!("the guest did not get to the end of the step `{name}`"))?;
    let code = rest.lines().next().unwrap_or_default();
    let code = code
        .parse()
        .with_context(|| format!("`{code}` is no exit code"))?;
    Ok((printed, code))
}

/// Checks that a step of tests ended well and that each of `expected` passed, and nothing else
/// ran.
///
/// # Errors
/// Names what failed, and what did not run.
pub(crate) fn all_passed(transcript: &str, name: &str, expected: &BTreeSet<String>) -> Result<()> {
    let (printed, code) = step(transcript, name)?;
    let mut passed = BTreeSet::new();
    let mut failed = Vec::new();
    for line in printed.lines() {
        let Some((test, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        else {
            continue;
        };
        match result.trim() {
            "ok" => drop(passed.insert(test.to_owned())),
            result => failed.push(format!("{test} ({result})")),
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    let missing: Vec<&str> = expected.difference(&passed).map(String::as_str).collect();
    ensure!(missing.is_empty(), "did not run: {}", missing.join(", "));
    ensure!(!expected.is_empty(), "there was nothing to run");
    ensure!(code == 0, "the tests passed, yet ended with {code}");
    Ok(())
}

/// Checks that the kernel has not complained.
///
/// # Errors
/// Quotes its first complaint.
pub(crate) fn no_faults(console: &str) -> Result<()> {
    let complaint = console
        .lines()
        .find(|line| FAULTS.iter().any(|fault| line.contains(fault)));
    if let Some(line) = complaint {
        bail!("the kernel complained: {}", line.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSCRIPT: &str = "noise\n@@ begin tests\nrunning 2 tests\ntest a::b ... ok\n\
                              test c ... ok\n\ntest result: ok. 2 passed; 0 failed\n\n\
                              @@ end tests 0\n@@ begin other\nhalf";

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn steps_are_found_with_their_code() {
        let (printed, code) = step(TRANSCRIPT, "tests").unwrap();
        assert!(printed.starts_with("running 2 tests") && code == 0);
        assert!(step(TRANSCRIPT, "other").is_err());
        assert!(step(TRANSCRIPT, "third").is_err());
        assert_eq!(begun(TRANSCRIPT).collect::<Vec<_>>(), ["tests", "other"]);
    }

    #[test]
    fn what_was_not_seen_to_pass_has_not_passed() {
        let expected = names(&["a::b", "c"]);
        all_passed(TRANSCRIPT, "tests", &expected).unwrap();
        let rows = [
            ("test c ... ok", "test c ... FAILED", "failed: c (FAILED)"),
            ("test c ... ok", "test c ... ignored", "failed: c (ignored)"),
            ("test c ... ok", "", "did not run: c"),
            ("end tests 0", "end tests 101", "ended with 101"),
        ];
        for (old, new, told) in rows {
            let transcript = TRANSCRIPT.replace(old, new);
            let error = all_passed(&transcript, "tests", &expected).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
        assert!(all_passed(TRANSCRIPT, "tests", &names(&[])).is_err());
    }

    #[test]
    fn complaints_of_the_kernel_are_quoted() {
        no_faults("[    1.0] Linux version 6.1\n").unwrap();
        let error = no_faults("[    1.0] x\n[    2.0] BUG: scheduling while atomic\n");
        assert!(error.unwrap_err().to_string().contains("[    2.0] BUG"));
    }
}
